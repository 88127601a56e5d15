"""A hundred routes through one relay at once, and what each costs it.

left-1 ... left-5 ──a── rod ──b── right-1 ... right-10      every left one speaks to every right one, and is answered
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator

import pytest
from rig.enter import deliver
from rig.topology import Lab, Realm, wait_for

LEFT_COUNT, RIGHT_COUNT = 5, 10
ROUTE_COUNT = 2 * LEFT_COUNT * RIGHT_COUNT  # replies take routes of their own
SETTINGS = {"stream": {"idle_timeout": 60.0}, "link": {"linger": 0.5}}  # longer than it takes to open all hundred
ROUTE_KB_MAX = (
    100.0  # eight data channels (two tethers of four) take about 50; a card or a link per route would be more
)


class Crowd:
    """Two LANs full of hosts, and one relay between them."""

    def __init__(self, lab: Lab) -> None:
        a, b = lab.lan("a"), lab.lan("b")
        self.rod = lab.host("rod", a, b)
        self.left = [lab.host(f"left-{number + 1}", a) for number in range(LEFT_COUNT)]
        self.right = [lab.host(f"right-{number + 1}", b) for number in range(RIGHT_COUNT)]
        self.realm: Realm = lab.realm(self.rod, *self.left, *self.right)
        wait_for(self._joined, "rod having all as neighbours", within_s=20, logs=(self.realm.daemons["rod"],))

    def _joined(self) -> bool:
        (channel,) = self.rod.status().control
        return len(channel.neighbours) == LEFT_COUNT + RIGHT_COUNT

    def routes(self) -> int:
        """Return how many routes pass the relay."""
        return len(self.rod.status().relays)

    def rod_mb(self) -> float:
        """Return the relay's memory (PSS)."""
        return self.realm.daemons["rod"].memory().pss_mb


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    """The crowd, all joined."""
    lab = Lab(SETTINGS)
    yield Crowd(lab)
    lab.close()


def test_a_hundred_routes_through_one_relay_work_at_once(crowd: Crowd) -> None:
    to = [host.overlay_addresses()[1] for host in crowd.right]
    # Links, cards and everything else that a route needs but does not own come first: one answered ping per host.
    for left, address in zip([*crowd.left, *crowd.left], to, strict=True):
        assert left.ping(address, "-c", "1", "-W", "10").received, crowd.realm.tails()
    routes, memory_mb = crowd.routes(), crowd.rod_mb()

    pings = [
        left.spawn(f"ping-{number}", "ping", "-n", "-i", "0.5", address)
        for left in crowd.left
        for number, address in enumerate(to)
    ]
    wait_for(
        lambda: all("time=" in ping.output() for ping in pings),
        "an answer to every ping",
        within_s=60,
        logs=(crowd.realm.daemons["rod"],),
    )
    wait_for(lambda: crowd.routes() == ROUTE_COUNT, f"{ROUTE_COUNT} routes", within_s=10)
    grown_kb = (crowd.rod_mb() - memory_mb) * 1000
    counts = [ping.output().count("time=") for ping in pings]
    wait_for(
        lambda: all(ping.output().count("time=") > count + 2 for ping, count in zip(pings, counts, strict=True)),
        "all of them still being answered",
        within_s=20,
        logs=(crowd.realm.daemons["rod"],),
    )
    times_ms = [float(time) for ping in pings for time in re.findall(r"time=([\d.]+)", ping.output())[-2:]]
    figures = {
        "routes": crowd.routes(),
        "route_kb": round(grown_kb / (ROUTE_COUNT - routes), 2),
        "rod_pss_mb": round(crowd.rod_mb(), 1),
        "ping_ms": statistics.median(times_ms),
    }
    deliver("lab_relay_crowd.json", json.dumps(figures, indent=2) + "\n")
    assert figures["route_kb"] < ROUTE_KB_MAX, figures
