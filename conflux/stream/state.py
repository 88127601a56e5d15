"""What the streams remember of each stream, sent or received."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from conflux.crypto import kem
from conflux.crypto.sign import VerifyKey
from conflux.ids import BootId, NodeId, StreamId
from conflux.realm.listbook import DIGEST_BYTES
from conflux.stream.event import Event, Transmit
from conflux.stream.handshake import EpochKeys, Vantage
from conflux.stream.resumptions import Kept

LIFETIME_S = 86400  # of one stream; a sender that needs longer opens another


@dataclass(slots=True)
class Outgoing:
    """A stream that this node sends."""

    peer: NodeId
    peer_boot: BootId
    verify_key: VerifyKey | None  # None: opened by a resumption of the peer, so nothing is signed
    open_: bytes = b""  # empty before it is made, and once it is answered
    kem_key: kem.PrivateKey | None = None  # of the handshake, then of the rekey under way
    keys: EpochKeys | None = None  # None until accepted
    expires_at: float = 0.0
    offer: bytes = b""  # the rekey under way
    offer_retry_at: float = 0.0
    offer_since: float = 0.0
    peer_chain: bytes = b""  # SHA-256 of the chain on the peer's card
    offered: tuple[int, ...] = ()  # the entry kinds in the OPEN
    spare_until: float | None = None  # opened by a resumption of the peer; None: open() has been asked for it
    resumed: bool = False  # its keys came out of a resumption
    vantage: tuple[Vantage, ...] = ()  # of a peer whose resumption opened it

    @property
    def opened_at(self) -> float:
        """Return when it was asked for."""
        return self.expires_at - LIFETIME_S


@dataclass(slots=True)
class Incoming:
    """A stream that this node receives."""

    peer: NodeId
    keys: EpochKeys
    expires_at: float  # half-open until a frame verifies, then the stream's lifetime
    offer: bytes = b""  # the rekey last answered, and the answer: a repeated offer gets the same one
    answer: bytes = b""
    rekey_from: float = 0.0  # no key is agreed on before
    answer_from: float = 0.0  # the answer is not repeated before
    lifetime_until: float = 0.0
    kept: Kept | None = None  # the secret that was agreed on with it, until a frame shows that the peer has it
    resumed: bool = False

    @property
    def is_used(self) -> bool:
        """Say whether a frame of it verified."""
        return self.expires_at == self.lifetime_until


@dataclass(slots=True)
class Book:
    """Every stream of a node, what it sends and tells, and what both ways to open streams say of it.

    aead: the cipher this processor opens fastest.  offload_kinds: entry kinds beyond plain packets that its datapath
    sends and takes.  vantage(peer): relays it reaches well.  lists: the digest of the signed lists that it holds.
    lists_told: takes that of a peer.  chain: SHA-256 of the chain that it acts under.
    """

    aead: int
    offload_kinds: tuple[int, ...]
    entropy: Callable[[int], bytes]
    chain: bytes
    vantage: Callable[[NodeId], tuple[Vantage, ...]] = lambda peer: ()
    lists: Callable[[], bytes] = lambda: bytes(DIGEST_BYTES)
    lists_told: Callable[[NodeId, bytes, float], None] = lambda peer, digest, now: None
    outgoing: dict[StreamId, Outgoing] = field(default_factory=dict)
    incoming: dict[StreamId, Incoming] = field(default_factory=dict)  # oldest first
    openings: dict[StreamId, None] = field(default_factory=dict)  # streams whose OPEN is not made yet, oldest first
    transmits: deque[Transmit] = field(default_factory=deque)
    events: deque[Event] = field(default_factory=deque)
    keyed_links: bool = False  # the carrier takes a link's keys in the place of a handshake
    opened: Counter[str] = field(default_factory=Counter)  # how often by "signatures", and by "resumption"

    def agreed(self, kinds: tuple[int, ...]) -> tuple[int, ...]:
        """Return those entry kinds that this node has too."""
        return tuple(kind for kind in kinds if kind in self.offload_kinds)
