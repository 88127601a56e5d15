"""What the link machine remembers of one adjacent node, and of one try to reach it."""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass, field

from conflux.carrier.interface import Description
from conflux.ids import LinkId, NodeId, format_node_id


class State(enum.Enum):
    IDLE = "idle"
    WAITING = "waiting"  # for a dial slot, for the back-off's end or for the offer that won over ours
    DIALING = "dialing"  # our offer or our answer is under way
    OPEN = "open"
    DRAINING = "draining"  # open, and nobody here uses it


@dataclass(slots=True)
class Attempt:
    """One try to bring a link up; becomes the link once it is open."""

    id: bytes
    link: LinkId
    initiator: bool
    number: int
    local: Description | None = None
    remote: Description | None = None
    connected: bool = False  # Connect was commanded
    offer_seq: int = 0  # the message our answer answers
    early: tuple[str, ...] = ()  # candidates that came before they could be used
    opened_at: float | None = None


@dataclass(slots=True)
class Peer:
    """One adjacent node."""

    node: NodeId
    state: State = State.IDLE
    users: set[Hashable] = field(default_factory=set)
    attempt: Attempt | None = None  # in DIALING, OPEN and DRAINING
    number: int = 0  # highest attempt number seen, of either side
    failure_count: int = 0
    redial_count: int = 0
    hold_until: float = 0.0  # no dial of ours before: back-off, or the other side's turn
    wake_at: float | None = None  # when the state's own time is up; None for never

    @property
    def is_up(self) -> bool:
        return self.state in (State.OPEN, State.DRAINING)

    @property
    def is_answering(self) -> bool:
        return self.state is State.DIALING and self.attempt is not None and not self.attempt.initiator

    @property
    def is_dialing(self) -> bool:
        return self.state is State.DIALING and self.attempt is not None and self.attempt.initiator

    def status(self) -> dict[str, object]:
        """Return the peer as plain values."""
        attempt = self.attempt
        return {
            "peer": format_node_id(self.node),
            "state": self.state.value,
            "link": attempt.link if attempt is not None else None,
            "initiator": attempt.initiator if attempt is not None else None,
            "opened_at": attempt.opened_at if attempt is not None else None,
            "user_count": len(self.users),
            "failure_count": self.failure_count,
            "wake_at": self.wake_at,
        }
