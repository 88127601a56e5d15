"""The choice among several channels: which of them an envelope goes to.

For one node: to the nearest channel that has a way of its own to it, and no further; a retry goes to all channels, as
the nearest may be wrong.  For many nodes: to every channel that it may reach.  Copies act once: plane.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from conflux.control.channel import Handoff
from conflux.control.envelope import Envelope, Reach
from conflux.control.event import Transmit

_RANK = {handoff: rank for rank, handoff in enumerate(Handoff)}
TAKEN = frozenset({Handoff.ACCEPTED, Handoff.FORWARDED})


class Sender(Protocol):
    """What the choice needs of a channel."""

    name: str
    far: bool

    def send(self, envelope: Envelope, *, again: bool = False) -> Handoff:
        """Send an envelope of this node."""


class Handed(NamedTuple):
    """What became of a transmit.  best: of what the channels said.  takers: the names of those that took it."""

    best: Handoff
    takers: frozenset[str] = frozenset()


def hand_over(transmit: Transmit, channels: Iterable[Sender]) -> Handed:
    """Send an envelope by the channels that are right for it.  channels: the nearest first."""
    envelope = transmit.envelope
    results: dict[str, Handoff] = {}
    for channel in channels:
        if channel.far and envelope.reach is Reach.NEAR:
            continue
        results[channel.name] = channel.send(envelope, again=transmit.again)
        if envelope.to is not None and not transmit.again and results[channel.name] is Handoff.ACCEPTED:
            break
    best = min(results.values(), key=_RANK.__getitem__, default=Handoff.DOWN)
    return Handed(best, frozenset(name for name, result in results.items() if result in TAKEN))
