"""How two flows share one narrow wire.

      alpha ---- flow 1 ----+                     +----> bravo
                            +== one 50 Mbit/s ====+
      delta ---- flow 2 ----+                     +----> charlie

Each flow is a TCP connection (cubic), in a Conflux link of its own or bare.  The two flows never share a link, so their
shares depend only on how links and kernels respond to the shared queue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from overlays.ground import Ground
from overlays.measure import Bulk, cold_ms, received_mbit
from overlays.wire import Condition
from rig.topology import LabFailure

SETTLE_S = 3  # left out of the account: a flow takes some round trips to find its share

# The competing flows: a name, and whether flow 1 and flow 2 go through Conflux.
PAIRS = (
    ("cubic+cubic", False, False),
    ("conflux+conflux", True, True),
    ("conflux+cubic", True, False),
)


@dataclass(frozen=True, slots=True)
class Shares:
    """Mbit/s of both flows."""

    first: float
    second: float

    @property
    def jain(self) -> float:
        """Jain's index: 1 if equal, 0.5 if one flow has everything.  R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984."""
        squares = self.first**2 + self.second**2
        return (self.first + self.second) ** 2 / (2 * squares) if squares else 0.0


class Fairness:
    """Four hosts in a realm, and one wire between them."""

    def __init__(self, *, seed: int) -> None:
        self._ground = Ground(seed=seed, near=("alpha", "delta"))
        try:
            hosts = self._ground.hosts
            self._ground.lab.realm(*hosts.values())
            self._overlay = {name: host.overlay_addresses()[0] for name, host in hosts.items()}
            for one, other in (("alpha", "bravo"), ("delta", "charlie")):
                cold_ms(hosts[one], self._overlay[other])
        except LabFailure:
            self._ground.close()
            raise

    def compete(self, condition: Condition, seconds: int, note: Callable[[str, Shares], None]) -> None:
        """Let every pair share the wire, one pair after another."""
        self._ground.wire.impair(condition)
        for name, first_inside, second_inside in PAIRS:
            flows = [
                self._flow("alpha", "bravo", first_inside, seconds),
                self._flow("delta", "charlie", second_inside, seconds),
            ]
            rates = [received_mbit(flow.end()) for flow in flows]
            note(name, Shares(rates[0], rates[1]))
        self._ground.wire.counts()

    def _flow(self, one: str, other: str, inside: bool, seconds: int) -> Bulk:
        to = self._ground[other]
        address = self._overlay[other] if inside else to.addresses[0]
        options = ("--congestion", "cubic", "--omit", str(SETTLE_S))
        return Bulk(self._ground[one], to, address, *options, seconds=seconds)

    def close(self) -> None:
        """End every program."""
        self._ground.close()
