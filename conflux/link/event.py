"""The link machine's settings, and what it hands out: events, signals and its status."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from conflux.carrier.interface import TetherDown, TetherUp
from conflux.control.envelope import Kind
from conflux.ids import LinkId, NodeId


class LinkConfig(NamedTuple):
    """The machine's settings; times in seconds."""

    dial_count_max: int = 8  # dials of this node under way; others wait in the order in which they were asked for
    answer_count_max: int = 16  # offers of other nodes being answered; above it they are refused as "busy"
    dial_timeout_s: float = 10.0
    linger_s: float = 2.0  # an unused link that this node opened
    answer_linger_s: float = 300.0  # one that the far end opened: it may have unseen users, and closes first
    yield_s: float = 2.0  # after an offer of this node lost to one that has not come yet
    backoff_s_min: float = 0.5
    backoff_s_max: float = 30.0
    settle_s: float = 5.0  # a link that failed sooner counts as a failed dial


class Signal(NamedTuple):
    """A control message for a peer.

    re: the sequence number of the message this answers, or None.  answered: it wants an answer; the caller repeats it
    until one comes, and reports signal_failed() when none does.
    """

    peer: NodeId
    kind: Kind
    body: bytes
    re: int | None
    attempt: bytes
    answered: bool


class LinkEnd(StrEnum):
    """Why an open link ended, as this node saw it."""

    ASKED = "asked"  # this node let it go
    PEER = "peer"  # the far end let it go
    PEER_LOST = "peer-lost"  # the process at the far end is gone
    REVOKED = "revoked"  # the far end is a member no more
    REPLACED = "replaced"  # the far end dialled anew
    SIGNED = "signed-anew"  # a secret opened it, and the far end signs
    FAILED = "failed"  # the carrier lost it


class DialEnd(StrEnum):
    """Why a dial came to nothing, as this node saw it."""

    BACKING_OFF = "backing-off"  # too soon after the last one
    TIMEOUT = "timeout"
    REFUSED = "refused"  # the far end said no
    NO_ANSWER = "no-answer"  # the control plane got none to the offer
    REVOKED = "revoked"  # the far end is a member no more
    FAILED = "failed"  # the carrier could not open it


class Drop(StrEnum):
    """What the links ignore, each counted under its word."""

    SEND_ON_CLOSED_LINK = "send-on-closed-link"
    OWN_ATTEMPT_OFFERED = "own-attempt-offered"
    LATE_ANSWER = "late-answer"
    REPEATED_ANSWER = "repeated-answer"
    LATE_CANDIDATES = "late-candidates"
    LATE_REFUSAL = "late-refusal"
    LATE_CARRIER_EVENT = "late-carrier-event"
    DESCRIBED_TWICE = "described-twice"
    OPENED_TWICE = "opened-twice"


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A link opened, dialled by either end."""

    peer: NodeId
    link: LinkId


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The link is of no more use.  Its users are forgotten: one that still wants the peer acquires it again.

    said: the carrier's word for LinkEnd.FAILED; shown, and decides nothing.
    """

    peer: NodeId
    link: LinkId
    end: LinkEnd
    said: str = ""

    @property
    def let_go(self) -> bool:
        """Say whether the far end closed it, or dialled anew: it did not know yet what this node had begun over it."""
        return self.end in (LinkEnd.PEER, LinkEnd.REPLACED)


@dataclass(frozen=True, slots=True)
class LinkMessage:
    """One message came on conflux.link.1."""

    peer: NodeId
    link: LinkId
    data: bytes


@dataclass(frozen=True, slots=True)
class DialFailed:
    """A dial came to nothing.  While the peer still has a user, the next one starts at retry_at.

    said: the far end's word, the control plane's or the carrier's; shown, and decides nothing.
    """

    peer: NodeId
    end: DialEnd
    retry_at: float
    said: str = ""


Event = LinkUp | LinkDown | LinkMessage | DialFailed | TetherUp | TetherDown


class LinkStatus(NamedTuple):
    """One peer with a link, with a wish for one, or with failures remembered.

    state: the word a person reads.  link, initiator, opened_at: None without a link.  wake_at: when the state's own
    time is up; None for never.
    """

    peer: NodeId
    state: str
    link: LinkId | None = None
    initiator: bool | None = None
    opened_at: float | None = None
    user_count: int = 0
    failure_count: int = 0
    wake_at: float | None = None
