"""Links to adjacent nodes: when to dial, whose offer wins, when to let go.  Decides; never does I/O."""

from conflux.link.interface import DialFailed, LinkConfig, LinkDown, LinkMessage, LinkUp, Signal
from conflux.link.links import LinkEvent, Links

__all__ = [
    "DialFailed",
    "LinkConfig",
    "LinkDown",
    "LinkEvent",
    "LinkMessage",
    "LinkUp",
    "Links",
    "Signal",
]
