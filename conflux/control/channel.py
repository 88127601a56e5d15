"""The interface every control-channel engine implements, and the kinds of message that travel.

An engine may lose, repeat and reorder; a message to X never reaches Y; none of its own exceptions leaks out.  Signing,
sealing, replay, retry and budgets are above it, once: plane.py.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from conflux.ids import NodeId

ENVELOPE_BYTES_MAX = 32768  # NATS's usual limit is far above; a card is about 14 kB


class Kind(enum.IntEnum):
    """What a message is about."""

    ACK = 0
    WHO = 1  # who owns this address, name or node id?  body: plane.Who; carries the asker's card
    CARD = 2  # answer to WHO, and to what was sealed to a key we no longer hold; body: realm.card.Card
    PRESENCE = 3
    OPEN = 10  # stream handshake
    ACCEPT = 11
    OPEN_REFUSED = 12
    OFFER = 20  # link signalling; body: carrier.interface.Description inside link's records
    ANSWER = 21
    CANDIDATES = 22
    LINK_REFUSED = 23
    RENEW = 30  # credential renewal, to the issuer
    RENEWED = 31


class Handoff(enum.Enum):
    """What became of an envelope as far as the engine can tell; ACCEPTED is not a receipt."""

    ACCEPTED = "accepted"
    ABSENT = "absent"  # the engine knows that nobody listens for that node
    REFUSED = "refused"  # too large, over budget, not permitted
    DOWN = "down"  # no connection at all


@dataclass(frozen=True, slots=True)
class Arrival:
    """One envelope as it came in.  via: the authenticated neighbour that handed it over, if the engine has such."""

    envelope: bytes
    via: NodeId | None
    channel: str


@dataclass(frozen=True, slots=True)
class ChannelState:
    """up: messages can pass.  detail: what a person should know ("listening on port 7464, 2 neighbours")."""

    up: bool
    detail: str


class ControlChannel(Protocol):
    """One engine.  The callbacks it is given are called in the event loop's thread and do not block."""

    name: str

    async def start(
        self,
        deliver: Callable[[Arrival], None],
        changed: Callable[[NodeId, bool], None],
        bridges: Callable[[NodeId, bool], None] | None = None,
    ) -> None:
        """Come up.  Raises UserError.

        changed(node, up) reports neighbours where the engine knows such.  bridges(node, joins) reports neighbours that
        pass envelopes on to where we do not reach ourselves, perhaps more than once; one that is lost does so no more.
        """

    async def stop(self) -> None:
        """Go down; afterwards no socket of the engine is open."""

    async def send(self, node: NodeId, envelope: bytes) -> Handoff:
        """Hand an envelope to the engine for one node."""

    async def announce(self, envelope: bytes) -> Handoff:
        """Hand an envelope to the engine for every node of the area."""

    @property
    def state(self) -> ChannelState:
        """The truth, now."""
