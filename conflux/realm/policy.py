"""The signed policy: the rule file of a realm, as a member with the capability `policy` published it.

    PolicyHead   signer's chain | number | bytes of text | SHA-256 of each piece | hybrid signature
    pieces       the rule file, exactly as it was written, deflated, in parts of PIECE_BYTES

A head with its signer's chain nearly fills a control message, so the pieces travel apart, and each proves itself by its
digest.  Of two policies the one with the higher number holds; of two with one number, the one whose head has the higher
SHA-256.  So every node picks the same one, in whatever order it hears of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from conflux.crypto.kdf import sha256
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import NodeId, RealmId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import POLICY, SKEW_S, UNIX_S_MAX, Chain
from conflux.realm.dates import span, utc
from conflux.realm.member import Member
from conflux.realm.reason import Reason
from conflux.realm.signed import SIGNATURE, UNSIGNED, Signed
from conflux.record import nested, octets, sequence, uint

TEXT_BYTES_MAX = 256 * 1024  # a reader of rule files takes no more either
PIECE_BYTES = 16 * 1024  # with what is around it, a piece fits one control message
PIECE_COUNT_MAX = 16  # deflated, a rule file has a tenth of its size: this bounds what a node has to fetch and keep
DIGEST_BYTES = 32


class Rank(NamedTuple):
    """Which policy: of two, the greater one holds."""

    number: int
    digest: bytes  # of the head


@dataclass(frozen=True, slots=True)
class PolicyHead(Signed):
    """Who published which rule file, and when."""

    BYTES_MAX = 25 * 1024  # the longest chain, PIECE_COUNT_MAX digests and a signature
    PURPOSE = "policy"
    SHAPES = (
        nested(Chain),
        uint(UNIX_S_MAX),
        uint(TEXT_BYTES_MAX),
        sequence(octets(DIGEST_BYTES), PIECE_COUNT_MAX),
        SIGNATURE,
    )

    chain: Chain  # of the signer, as it was then
    number: int  # the second in which it was signed; larger than that of the policy before
    text_bytes: int
    pieces: tuple[bytes, ...]
    signature: bytes

    @classmethod
    def _from_item(cls, item: Any) -> Self:
        found = super(PolicyHead, cls)._from_item(item)
        if not found.pieces or found.text_bytes == 0:
            raise RemoteProtocolError(Reason.MALFORMED, "a policy without a text")
        return found

    @property
    def realm_id(self) -> RealmId:
        """The realm that the policy is of."""
        return self.chain.credential.realm_id

    @property
    def signer(self) -> NodeId:
        """The node that signed."""
        return self.chain.credential.node_id

    @property
    def rank(self) -> Rank:
        """What decides between this and another policy."""
        return Rank(self.number, sha256(self.encode()))

    def verify(self, anchor: RealmAnchor) -> None:
        """Raise RemoteProtocolError unless a member that was allowed to published this when it says.

        Reasons: foreign-realm, not-granted, expired, not-yet-valid, and those of Chain.verify_signatures().  What is
        cheap comes first.  The credential may have ended since: the policy stays, as nobody is left without rules
        because an administrator's laptop was not renewed.
        """
        if self.realm_id != anchor.realm_id:
            raise RemoteProtocolError(Reason.FOREIGN_REALM)
        if POLICY not in self.chain.credential.capabilities:
            raise RemoteProtocolError(Reason.NOT_GRANTED, f"{self.chain.credential.name} may not publish a policy")
        if self.number >= self.chain.not_after:
            raise RemoteProtocolError(Reason.EXPIRED, f"{self.chain.credential.name}'s credential had ended by then")
        if self.number < self.chain.newest_date:
            raise RemoteProtocolError(Reason.NOT_YET_VALID, f"{self.chain.credential.name}'s credential begins later")
        self.chain.verify_signatures(anchor)
        self.verify_signature(self.chain.credential.verify_key(), anchor.realm_id)

    def verify_date(self, now_unix: int) -> None:
        """Raise RemoteProtocolError("not-yet-valid") for a policy of the future.

        Else a signer could use numbers up that are years away.  Clocks of boards differ by SKEW_S.
        """
        if self.number > now_unix + SKEW_S:
            ahead = span(self.number - now_unix)
            raise RemoteProtocolError(
                Reason.NOT_YET_VALID, f"the policy is of a date {ahead} ahead of this device's clock ({utc(now_unix)})"
            )

    def is_piece(self, place: int, data: bytes) -> bool:
        """Say whether data is the piece at a place."""
        return 0 <= place < len(self.pieces) and len(data) <= PIECE_BYTES and sha256(data) == self.pieces[place]


class SignedPolicy(NamedTuple):
    """A head with all its pieces.  text: the rule file, as its author wrote it."""

    head: PolicyHead
    pieces: tuple[bytes, ...]
    text: bytes

    @classmethod
    def make(cls, member: Member, number: int, text: bytes) -> Self:
        """Return a policy that a member signs.  Raises LocalProtocolError for a text that no node would take."""
        if not 0 < len(text) <= TEXT_BYTES_MAX:
            raise LocalProtocolError(f"a rule file of {len(text)} bytes; at least 1, at most {TEXT_BYTES_MAX}")
        packed = zlib.compress(text, 9)
        pieces = tuple(packed[at : at + PIECE_BYTES] for at in range(0, len(packed), PIECE_BYTES))
        if len(pieces) > PIECE_COUNT_MAX:
            raise LocalProtocolError(f"a rule file of {len(packed)} bytes when deflated, at most {PIECE_BYTES_SUM_MAX}")
        head = PolicyHead(member.chain, number, len(text), tuple(map(sha256, pieces)), UNSIGNED)
        return cls(head.sign(member.keys.signing, member.realm_id), pieces, text)

    @classmethod
    def join_untrusted(cls, head: PolicyHead, pieces: Sequence[bytes]) -> Self:
        """Return the policy of a head.  Raises RemoteProtocolError("malformed") unless these are its pieces."""
        if len(pieces) != len(head.pieces) or not all(head.is_piece(place, each) for place, each in enumerate(pieces)):
            raise RemoteProtocolError(Reason.MALFORMED, "not the pieces of that policy")
        return cls(head, tuple(pieces), _inflated_untrusted(b"".join(pieces), head.text_bytes))


PIECE_BYTES_SUM_MAX = PIECE_BYTES * PIECE_COUNT_MAX


def _inflated_untrusted(packed: bytes, size: int) -> bytes:
    """Return the text; a signer's slip must not make a board without memory of every reader."""
    inflating = zlib.decompressobj()
    try:
        text = inflating.decompress(packed, size)
        over = inflating.decompress(inflating.unconsumed_tail, 1)
    except zlib.error:
        raise RemoteProtocolError(Reason.MALFORMED, "the text of a policy does not inflate") from None
    if len(text) != size or over or not inflating.eof or inflating.unused_data:
        raise RemoteProtocolError(Reason.MALFORMED, "the text of a policy has another size than its head says")
    return text
