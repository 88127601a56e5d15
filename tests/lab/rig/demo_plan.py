"""How much the demo measures: the whole one for the figures, the short one to see that it still plays."""

from __future__ import annotations

from typing import NamedTuple


class Plan(NamedTuple):
    """How often and how long the demo measures.

    idle_timeout_s, linger_s: of every node; short, so that each round begins with nothing.  quiet_s: of watching a wire
    on which nothing may pass.  outage_s: of the broker's absence.  flow_s: of the flow whose packets are numbered.
    """

    cold_rounds: int
    iperf3_s: int
    idle_timeout_s: float
    linger_s: float
    quiet_s: float
    outage_s: float
    flow_s: float


WHOLE = Plan(5, 4, idle_timeout_s=3.0, linger_s=1.0, quiet_s=3.0, outage_s=3.0, flow_s=6.0)
SHORT = Plan(1, 1, idle_timeout_s=2.0, linger_s=0.5, quiet_s=1.0, outage_s=2.0, flow_s=8.0)
