"""What goes into the link machine as settings and what comes out of it as events and signals."""

from __future__ import annotations

from dataclasses import dataclass

from conflux.control.channel import Kind
from conflux.ids import LinkId, NodeId


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """The machine's settings; times in seconds."""

    dial_count_max: int = 8  # our dials in flight; further ones wait their turn
    answer_count_max: int = 16  # offers of others being answered; above it they are refused as "busy"
    dial_timeout_s: float = 10.0
    linger_s: float = 2.0  # an unused link that we opened
    answer_linger_s: float = 300.0  # one that the far side opened: it may have users we cannot see, so it closes first
    yield_s: float = 2.0  # after our offer lost to one that has not come yet
    backoff_s_min: float = 0.5
    backoff_s_max: float = 30.0
    settle_s: float = 5.0  # a link that failed sooner counts as a failed dial


@dataclass(frozen=True, slots=True)
class Signal:
    """A control message for peer.

    re: the sequence number of the message this answers, or None.  answered: it wants an answer; whoever sends it
    repeats it until one comes and reports signal_failed() when none does.
    """

    peer: NodeId
    kind: Kind
    body: bytes
    re: int | None
    attempt: bytes
    answered: bool


@dataclass(frozen=True, slots=True)
class LinkUp:
    peer: NodeId
    link: LinkId


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The link is of no more use.  Its users are forgotten: who still wants the peer acquires it again."""

    peer: NodeId
    link: LinkId
    reason: str

    @property
    def let_go(self) -> bool:
        """The far end closed it, or dialled anew: it did not know yet what we had begun over it."""
        return self.reason in ("peer", "replaced")


@dataclass(frozen=True, slots=True)
class LinkMessage:
    """One message came on conflux.link.1."""

    peer: NodeId
    link: LinkId
    data: bytes


@dataclass(frozen=True, slots=True)
class DialFailed:
    """A dial came to nothing.  While anybody still wants the peer, the next one starts at retry_at."""

    peer: NodeId
    reason: str
    retry_at: float
