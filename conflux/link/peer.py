"""What the link machine remembers of one adjacent node, and of one try to reach it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum

from conflux.carrier.interface import Description, LinkKeys
from conflux.ids import LinkId, NodeId
from conflux.link.event import LinkStatus


class State(StrEnum):
    """Where the link to a peer stands."""

    IDLE = "idle"
    WAITING = "waiting"  # for a dial to end, for the back-off to end, or for the peer's offer that won
    DIALING = "dialing"  # an offer or an answer of this node is under way
    OPEN = "open"
    DRAINING = "draining"  # open, without a user here


@dataclass(slots=True)
class Attempt:
    """One try to bring a link up; becomes the link once it is open.

    by_secret: its offer or its answer came along with a resumption, so no signature of the peer stands behind it.
    keys: agreed on there, until the carrier has them; None: the link has a handshake.
    """

    id: bytes
    link: LinkId
    initiator: bool
    number: int
    local: Description | None = None
    described_at: float | None = None  # since when there is local
    remote: Description | None = None
    connected: bool = False  # Connect was commanded
    offer_seq: int = 0  # the control message that the answer is for
    early: tuple[str, ...] = ()  # candidates that came before they could be used
    opened_at: float | None = None
    by_secret: bool = False
    keys: LinkKeys | None = None


@dataclass(slots=True)
class Peer:
    """One adjacent node."""

    node: NodeId
    state: State = State.IDLE
    users: set[Hashable] = field(default_factory=set)
    attempt: Attempt | None = None  # in DIALING, OPEN and DRAINING
    number: int = 0  # highest attempt number seen, of either node
    failure_count: int = 0
    redial_count: int = 0
    hold_until: float = 0.0  # no dial of this node before: it backs off, or the peer's offer is under way
    wake_at: float | None = None  # when the state's own time is up; None for never

    @property
    def is_up(self) -> bool:
        """Say whether the link is open."""
        return self.state in (State.OPEN, State.DRAINING)

    @property
    def is_answering(self) -> bool:
        """Say whether an offer of the peer is under way."""
        return self.state is State.DIALING and self.attempt is not None and not self.attempt.initiator

    @property
    def is_dialing(self) -> bool:
        """Say whether an offer of this node is under way."""
        return self.state is State.DIALING and self.attempt is not None and self.attempt.initiator

    def status(self) -> LinkStatus:
        """Return what a person may see of it."""
        attempt = self.attempt
        return LinkStatus(
            self.node,
            self.state.value,
            None if attempt is None else attempt.link,
            None if attempt is None else attempt.initiator,
            None if attempt is None else attempt.opened_at,
            len(self.users),
            self.failure_count,
            self.wake_at,
        )
