"""Links to adjacent nodes: when to dial, whose offer wins, when to let go.  Sans-IO."""

from conflux.link.event import DialFailed, LinkConfig, LinkDown, LinkMessage, LinkUp, Signal
from conflux.link.links import Links

__all__ = [
    "DialFailed",
    "LinkConfig",
    "LinkDown",
    "LinkMessage",
    "LinkUp",
    "Links",
    "Signal",
]
