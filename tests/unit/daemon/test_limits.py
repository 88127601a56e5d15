"""What a configuration and the budget make of the idle timeout's choice."""

from __future__ import annotations

from conflux.config.settings import parse
from conflux.daemon.limits import METERED_WEIGHT, patience_bounds
from conflux.node.patience import OPEN_BYTES, RESUME_BYTES
from conflux.usage.bound import PACES, State


def test_a_metered_uplink_and_a_budget_that_is_used_up_weigh_together():
    metered = parse("[stream]\nmetered = true\n")
    assert patience_bounds(parse("")).weight == 1.0
    assert patience_bounds(metered).weight == METERED_WEIGHT
    assert patience_bounds(metered, PACES[State.OVER]).weight == METERED_WEIGHT * PACES[State.OVER].keep_weight


def test_what_opening_costs_is_that_of_the_way_in_which_streams_are_opened():
    assert patience_bounds(parse("")).open_bytes == RESUME_BYTES
    assert patience_bounds(parse('[stream]\nresumption = "off"\n')).open_bytes == OPEN_BYTES
