"""Signed lists: what the realm tells every node, and changes while credentials live.

    Grant of the signer | kind | number | content | hybrid signature         no grant: the root itself signed

Of one kind and one signer the highest number holds, so nobody can bring an old list back.  A list proves itself: it may
come from any node, by any way.
"""

from __future__ import annotations

import enum
import itertools
import re
from dataclasses import dataclass
from typing import Any, Self

from conflux.crypto.kdf import sha256
from conflux.crypto.sign import SigningKey, VerifyKey
from conflux.errors import ConfigError, RemoteProtocolError
from conflux.ids import NODE_ID_BYTES, REALM_ID_BYTES, NodeId, RealmId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import UNIX_S_MAX, Grant
from conflux.realm.dates import span
from conflux.realm.name import label
from conflux.realm.reason import Reason
from conflux.realm.signed import SIGNATURE, UNSIGNED, Signed
from conflux.record import Record, Shape, nested, octets, optional, sequence, uint

KIND_MAX = 15  # a kind that this version does not know is kept and passed on: newer nodes may be behind this one
CONTENT_BYTES_MAX = 15 * 1024  # with grant and signatures a list fits one control message
DENIED_COUNT_MAX = 320  # of one signer; an entry is at most 45 bytes
REASON_CHARS_MAX = 16
SERVER_COUNT_MAX = 8
SERVER_CHARS_MAX = 128
CA_BYTES_MAX = 8192

_REASON = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,14}[a-z0-9])?")
_SERVER = re.compile(r"tls://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")


class ListKind(enum.IntEnum):
    """What a list is about."""

    DENY = 1  # a DenyList
    BROKER = 2  # a BrokerNotice


def _matching(pattern: re.Pattern[str], chars_max: int, what: str) -> Shape:
    def load(item: Any) -> str:
        if type(item) is not str or len(item) > chars_max or pattern.fullmatch(item) is None:
            raise RemoteProtocolError(Reason.MALFORMED, f"expected {what}")
        return item

    return Shape(load)


def parse_reason(text: str) -> str:
    """Return text if it can stand in a deny list as the reason.  Raises ConfigError."""
    if _REASON.fullmatch(text) is None:
        raise ConfigError(f"reason {text!r}: one word of 1 to {REASON_CHARS_MAX} of a-z, 0-9 and '-'")
    return text


@dataclass(frozen=True, slots=True)
class Denial(Record):
    """One node is a member no more."""

    SHAPES = (octets(NODE_ID_BYTES), uint(UNIX_S_MAX), _matching(_REASON, REASON_CHARS_MAX, "a reason"))

    node: NodeId
    since: int  # unix seconds, by the signer's clock
    reason: str  # one word for people: "stolen"


@dataclass(frozen=True, slots=True)
class DenyList(Record):
    """Everybody whom one signer denies, sorted by node id."""

    BYTES_MAX = CONTENT_BYTES_MAX
    SHAPES = (sequence(nested(Denial), DENIED_COUNT_MAX),)

    denials: tuple[Denial, ...]

    @classmethod
    def _from_item(cls, item: Any) -> Self:
        found = super(DenyList, cls)._from_item(item)
        nodes = [denial.node for denial in found.denials]
        if any(before >= after for before, after in itertools.pairwise(nodes)):
            raise RemoteProtocolError(Reason.MALFORMED, "a deny list names each node once, in order")
        return found


@dataclass(frozen=True, slots=True)
class BrokerNotice(Record):
    """Where the realm's broker is; every node without one in its configuration uses it.  No servers: there is none."""

    BYTES_MAX = CONTENT_BYTES_MAX
    SHAPES = (
        sequence(_matching(_SERVER, SERVER_CHARS_MAX, "tls://HOST:PORT"), SERVER_COUNT_MAX),
        octets(0, CA_BYTES_MAX),
        label(),
    )

    servers: tuple[str, ...]
    ca: bytes  # the certificate, in DER, that signed those of the servers
    area: str


@dataclass(frozen=True, slots=True, order=True)
class ListKey:
    """Which list: every other one of the same kind and signer is an older or a newer state of it."""

    kind: int
    signer: NodeId  # the realm id for the root


@dataclass(frozen=True, slots=True)
class SignedList(Signed):
    """One state of one list."""

    BYTES_MAX = 24 * 1024
    PURPOSE = "list"
    SHAPES = (
        octets(REALM_ID_BYTES),
        optional(nested(Grant)),
        uint(KIND_MAX),
        uint(),
        octets(1, CONTENT_BYTES_MAX),
        SIGNATURE,
    )

    realm_id: RealmId
    grant: Grant | None  # of the signing issuer; None: the root signed
    kind: int
    number: int  # grows with every state
    content: bytes
    signature: bytes

    @classmethod
    def make(
        cls, key: SigningKey, anchor: RealmAnchor, grant: Grant | None, number: int, content: DenyList | BrokerNotice
    ) -> Self:
        """Return a new state of a list, signed.  key: the root's if grant is None, else the grant's."""
        kind = ListKind.DENY if isinstance(content, DenyList) else ListKind.BROKER
        unsigned = cls(anchor.realm_id, grant, kind, number, content.encode(), UNSIGNED)
        return unsigned.sign(key, anchor.realm_id)

    def verify(self, anchor: RealmAnchor, *, now_unix: int) -> None:
        """Raise RemoteProtocolError unless the root, or an issuer with a grant that lasts, says this to the realm.

        Reasons: foreign-realm, malformed, expired, bad-signature.  What is cheap comes first.
        """
        realm_id, grant = anchor.realm_id, self.grant
        if self.realm_id != realm_id or (grant is not None and grant.realm_id != realm_id):
            raise RemoteProtocolError(Reason.FOREIGN_REALM)
        if self.kind == ListKind.DENY and any(each.node == self.signer for each in self.denials()):
            raise RemoteProtocolError(Reason.MALFORMED, "the signer denies itself")
        self.broker()
        if grant is None:
            self.verify_signature(anchor.root_key(), realm_id)
            return
        if now_unix >= grant.not_after:
            raise RemoteProtocolError(Reason.EXPIRED, f"grant ended {span(now_unix - grant.not_after)} ago")
        grant.verify_signature(anchor.root_key(), realm_id)
        self.verify_signature(VerifyKey.decode_untrusted(grant.issuer_public), realm_id)

    def denials(self) -> tuple[Denial, ...]:
        """Return whom the list denies; nobody, if it is of another kind.  Raises RemoteProtocolError: malformed."""
        return DenyList.decode_untrusted(self.content).denials if self.kind == ListKind.DENY else ()

    def broker(self) -> BrokerNotice | None:
        """Return the broker notice in the list, if it is one.  Raises RemoteProtocolError: malformed."""
        return BrokerNotice.decode_untrusted(self.content) if self.kind == ListKind.BROKER else None

    @property
    def signer(self) -> NodeId:
        """The issuer that signed, or the realm id for the root."""
        return NodeId(self.realm_id) if self.grant is None else self.grant.issuer

    @property
    def key(self) -> ListKey:
        """Which list this is a state of."""
        return ListKey(self.kind, self.signer)

    @property
    def digest(self) -> bytes:
        """32 bytes for exactly this state."""
        return sha256(self.encode())
