"""Metrics by Prometheus' rules, and docs/reference/metrics.md and the dashboard in step with them."""

from __future__ import annotations

import json
import re

import pytest
from kit.answers import HOSTILE, status
from kit.tree import DOCS
from prometheus_client.parser import text_string_to_metric_families

from conflux.web.metrics import FAMILIES, SERIES_COUNT_MAX, metrics, points
from conflux.web.request import Turned
from conflux.web.source import Seen

ROW = re.compile(r"^\| `(conflux_\w+)` \| (.+?) \| (.*?) \|$", re.MULTILINE)
UNITS = ("bytes", "seconds", "bytes_per_second", "packets", "info", "up")


def seen(**changes) -> Seen:
    return Seen(status(**changes), 1.0, None, "")


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_writer_and_its_own_reader_agree():
    got = values(metrics(seen(), {}).body.decode())
    assert got[("conflux_up", ())] == 1
    assert got[("conflux_uptime_seconds", ())] == 7260
    assert got[("conflux_drops_total", (("reason", "spoofed"),))] == 3
    assert got[("conflux_link_rtt_seconds", (("neighbour", "cellar"),))] == pytest.approx(0.00038)
    assert got[("conflux_link_rate_bytes_per_second", (("neighbour", "cellar"),))] == pytest.approx(117_900_000)
    assert got[("conflux_streams", (("direction", "in"),))] == 1
    assert not any("boat" in str(labels) for name, labels in got if name.startswith("conflux_link_"))


def test_a_daemon_that_does_not_answer_is_down_and_nothing_else():
    silent = Seen(status(), 1.0, 5.0, "it hangs")
    assert values(metrics(silent, {}).body.decode()) == {("conflux_up", ()): 0}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_and_texts_keep_prometheus_rules(family):
    assert re.fullmatch(r"conflux_[a-z]+(_[a-z]+)*", family.name)
    assert not re.search(r"_(ms|mbit|kb|mb|count|s)(_|$)", family.name)
    assert all(re.fullmatch(r"[a-z]+", label) for label in family.labels)
    assert family.text.endswith(".")


def test_every_metric_has_a_value_or_depends_on_the_host():
    of_the_device = {"conflux_device_received_bytes_total", "conflux_device_sent_bytes_total"}  # it is not here
    given = {name for name, _, value in points(seen(), {Turned.SLOW: 2}) if value is not None}
    assert given | of_the_device == {family.name for family in FAMILIES}


def test_a_hostile_name_is_one_label_and_no_line_of_its_own():
    name = HOSTILE + '"} 1\nconflux_up 7\n'
    got = values(metrics(seen(links=[status()["links"][0] | {"name": name}]), {}).body.decode())
    assert ("conflux_link_rtt_seconds", (("neighbour", name),)) in got
    assert got[("conflux_up", ())] == 1


def test_a_large_realm_gives_no_more_series_than_the_bound():
    links = [status()["links"][0] | {"name": f"node-{number}"} for number in range(SERIES_COUNT_MAX + 50)]
    got = values(metrics(seen(links=links), {}).body.decode())
    assert sum(name == "conflux_link_rtt_seconds" for name, _ in got) == SERIES_COUNT_MAX


def test_every_metric_is_documented_and_every_documented_metric_is_there():
    documented = {
        name: (text, labels) for name, text, labels in ROW.findall((DOCS / "reference/metrics.md").read_text())
    }
    assert documented == {
        family.name: (family.text.rstrip("."), ", ".join(f"`{label}`" for label in family.labels))
        for family in FAMILIES
    }


def test_every_reason_why_a_reader_is_turned_away_is_documented():
    page = (DOCS / "reference/metrics.md").read_text().partition("## Readers turned away")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(Turned)


def test_the_dashboard_asks_for_metrics_that_are_there():
    board = json.loads((DOCS / "examples/grafana-dashboard.json").read_text())
    asked = {
        name
        for panel in board["panels"]
        for each in panel.get("targets", ())
        for name in re.findall(r"conflux_\w+", each["expr"])
    }
    assert len(asked) >= 10
    assert asked - {family.name for family in FAMILIES} == set()
    assert all(panel["targets"] and panel["title"] for panel in board["panels"] if panel["type"] != "row")
