"""How two flows share one narrow wire.

      alpha ---- flow 1 ----+                     +----> bravo
                            +== one 50 Mbit/s ====+
      delta ---- flow 2 ----+                     +----> charlie

Each flow is a TCP of its own (cubic), in a Conflux link of its own, or bare.  The four hosts never share a link, so
what evens them out, or does not, is how links and kernels answer to the queue they share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ground import Ground
from measure import Bulk, cold_ms, received_mbit
from topology import LabFailure
from wire import Condition

SETTLE_S = 3  # left out of the account: finding one's share takes some round trips

# Who competes: the name, and whether flow 1 and flow 2 go through Conflux.
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
        """1: equal; 0.5: one has it all.  R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984."""
        squares = self.first**2 + self.second**2
        return (self.first + self.second) ** 2 / (2 * squares) if squares else 0.0


class Fairness:
    """Four hosts, a realm on all of them, and one wire in between."""

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
        """Let every pair share the wire, one pair after the other."""
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
        self._ground.close()
