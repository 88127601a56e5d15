"""The signed lists that a node holds, and what follows from all of them together.

Who denies whom.  The root may deny every node.  It denies an issuer together with its grant: what that issuer signed,
its lists included, counts no longer.  An issuer may deny every node but an issuer.  So a thief of one issuer's key
cannot cut off those who can end that, and two issuers cannot shut each other out: the root decides between them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from conflux import record
from conflux.crypto.kdf import sha256
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import ISSUER, Chain
from conflux.realm.lists import BrokerNotice, Denial, ListKey, ListKind, SignedList
from conflux.realm.reason import Reason

LIST_COUNT_MAX = 64  # up to 24 kB each; a realm has a few issuers, and each of them a list of each kind
ENDED_COUNT_MAX = 64  # lists whose grant has ended and that peers may still offer; the oldest goes first
ISSUER_COUNT_MAX = 256  # nodes known to be issuers, 16 bytes each
DIGEST_BYTES = 8
NEVER = 2**63


class Row(NamedTuple):
    """One list as a node holds it, for a peer to compare: equal rows are equal lists."""

    key: ListKey
    number: int
    check: bytes  # DIGEST_BYTES of the list, for two states that one key signed under one number


class DeniedBy(NamedTuple):
    """One denial, and who signed it."""

    signer: NodeId  # the realm id for the root
    denial: Denial


@dataclass(frozen=True, slots=True)
class Change:
    """What a new list changed.

    denied: nodes that a list names now, and none did before.  voided: an issuer may have lost its grant, so nodes that
    no list names may be no members any more either, or those be members again whom that issuer had denied.
    """

    key: ListKey
    denied: frozenset[NodeId]
    voided: bool


@dataclass(frozen=True, slots=True)
class _Held:
    signed: SignedList
    row: Row
    denials: tuple[Denial, ...]

    @property
    def ends_at(self) -> int:
        """Unix seconds; NEVER for what the root signed."""
        return NEVER if self.signed.grant is None else self.signed.grant.not_after


class ListBook:
    """Every list, by kind and signer: of each the newest state that this node has seen.

    clock: unix seconds.  save: keeps a list over a restart; called before the list has any effect, and may raise.
    forget: drops a list that is void.
    """

    def __init__(
        self,
        anchor: RealmAnchor,
        clock: Callable[[], int],
        *,
        save: Callable[[SignedList], None] = lambda signed: None,
        forget: Callable[[ListKey], None] = lambda key: None,
    ) -> None:
        self.anchor = anchor
        self._clock = clock
        self._save = save
        self._forget = forget
        self._root = NodeId(anchor.realm_id)
        self._held: dict[ListKey, _Held] = {}
        # Lists that hold no more, and since when, in unix seconds; a clock that is set back before that makes one news
        # again.  By exact row: a high number under a grant that has ended says nothing of a list under the next one.
        self._ended: dict[Row, int] = {}
        self._next_end = NEVER  # unix seconds: when the first grant of a held list ends
        self._issuers: dict[NodeId, None] = {}
        self._by_root: frozenset[NodeId] = frozenset()
        self._by_issuers: frozenset[NodeId] = frozenset()
        self._digest = b""
        self._sum_up()

    @property
    def digest(self) -> bytes:
        """digest_of() what is held."""
        self._drop_ended()
        return self._digest

    # ── lists ──

    def load(self, kept: Iterable[SignedList]) -> None:
        """Take the lists that were kept over a restart; one that does not hold (any more) is left out."""
        for signed in sorted(kept, key=lambda each: each.signer != self._root):  # the root's first: it may void others
            with contextlib.suppress(RemoteProtocolError):
                self._judge(signed)
                self._take(signed)

    def is_news(self, row: Row) -> bool:
        """Say whether a list is newer than what is held, and may count; costs nothing."""
        self._drop_ended()
        held, ends_at = self._held.get(row.key), self._ended.get(row)
        if ends_at is not None and self._clock() >= ends_at:
            return False
        return row.key.signer not in self._by_root and (held is None or row[1:] > held.row[1:])

    def may_be_news(self, signed: SignedList) -> bool:
        """Say whether a list is worth verifying; costs a hash."""
        return self.is_news(_row(signed))

    def learn(self, signed: SignedList) -> Change | None:
        """Take one list; None: it is no news.  Raises RemoteProtocolError; nothing has then changed.

        Reasons: those of SignedList.verify(), revoked for a list of an issuer that the root denies, list-count.
        """
        self._drop_ended()
        held = self._held.get(signed.key)
        if held is not None and held.row[1:] >= _row(signed)[1:]:
            return None
        try:
            self._judge(signed)
        except RemoteProtocolError as error:
            if error.reason == Reason.EXPIRED and signed.grant is not None:  # peers are not asked for it once more
                signed.verify(self.anchor, now_unix=signed.grant.not_before)
                self._note_ended(_row(signed), signed.grant.not_after)
            raise
        self._save(signed)
        return self._take(signed)

    def _judge(self, signed: SignedList) -> None:
        """Raise RemoteProtocolError unless a list that is news counts."""
        if signed.signer in self._by_root:
            raise RemoteProtocolError(Reason.REVOKED, "the list of an issuer whom the root denies")
        if signed.key not in self._held and len(self._held) >= LIST_COUNT_MAX and signed.signer != self._root:
            raise RemoteProtocolError(Reason.LIST_COUNT)
        signed.verify(self.anchor, now_unix=self._clock())

    def _take(self, signed: SignedList) -> Change:
        denied_before, by_root_before = self._denied, self._by_root
        if signed.grant is not None:
            self._note_issuer(signed.grant.issuer)
        self._held[signed.key] = _Held(signed, _row(signed), signed.denials())
        self._sum_up()
        voided = self._by_root - by_root_before
        if voided:
            for void in [key for key in self._held if key.signer in voided]:
                del self._held[void]
                self._forget(void)
            self._sum_up()
        return Change(signed.key, self._denied - denied_before, voided=bool(voided))

    def _drop_ended(self) -> None:
        """Drop the lists whose grant has ended: who joined since does not have them, and could not take them.

        What is kept on the disk stays there, for a clock that is wrong.
        """
        now_unix = self._clock()
        if now_unix < self._next_end:
            return
        for held in list(self._held.values()):
            if held.ends_at <= now_unix:
                del self._held[held.row.key]
                self._note_ended(held.row, held.ends_at)
        self._sum_up()

    def _note_ended(self, row: Row, ends_at: int) -> None:
        self._ended.pop(row, None)
        self._ended[row] = ends_at
        if len(self._ended) > ENDED_COUNT_MAX:
            del self._ended[next(iter(self._ended))]

    def find(self, kind: ListKind, signer: NodeId) -> SignedList | None:
        """Return the newest state of a list, or None."""
        self._drop_ended()
        held = self._held.get(ListKey(kind, signer))
        return None if held is None else held.signed

    def rows(self) -> tuple[Row, ...]:
        """Return what is held, for a peer to compare."""
        self._drop_ended()
        return tuple(held.row for held in self._held.values())

    def newer_than(self, rows: Iterable[Row]) -> list[SignedList]:
        """Return the lists that a peer with these rows lacks, those that the root signed first."""
        self._drop_ended()
        theirs = {row.key: row for row in rows}
        newer = [held.signed for key, held in self._held.items() if key not in theirs or held.row[1:] > theirs[key][1:]]
        return sorted(newer, key=lambda each: each.signer != self._root)

    def older_than(self, rows: Iterable[Row]) -> bool:
        """Say whether a peer with these rows has something newer that may count here."""
        return any(self.is_news(row) for row in rows)

    # ── what follows ──

    def note(self, chain: Chain) -> None:
        """Learn from a chain whose signatures verified who is an issuer."""
        if chain.grant is not None:
            self._note_issuer(chain.grant.issuer)
        if ISSUER in chain.credential.capabilities:
            self._note_issuer(chain.credential.node_id)

    @property
    def _denied(self) -> frozenset[NodeId]:
        return self._by_root | (self._by_issuers - self._issuers.keys())

    def denies(self, node: NodeId, issuer: NodeId | None = None) -> bool:
        """Say whether a node is no member any more, by its own id or by that of the issuer of its credential."""
        self._drop_ended()
        if node in self._by_root or issuer in self._by_root:
            return True
        return node in self._by_issuers and node not in self._issuers

    def judge(self, chain: Chain) -> None:
        """Raise RemoteProtocolError("revoked") for the chain of a node that is denied; its signatures have verified."""
        self.note(chain)
        credential = chain.credential
        if self.denies(credential.node_id, credential.issuer):
            raise RemoteProtocolError(Reason.REVOKED, credential.name)

    def is_issuer(self, node: NodeId) -> bool:
        """Say whether a node is known to be an issuer, so that only the root may deny it."""
        return node in self._issuers

    def denials(self) -> list[DeniedBy]:
        """Return every denial that counts, the oldest first."""
        self._drop_ended()
        found = [
            DeniedBy(key.signer, denial)
            for key, held in self._held.items()
            for denial in held.denials
            if key.signer == self._root or denial.node not in self._issuers
        ]
        return sorted(found, key=lambda each: (each.denial.since, each.denial.node))

    def denials_of(self, node: NodeId, issuer: NodeId | None = None) -> list[DeniedBy]:
        """Return why a node is denied; nothing if it is not."""
        return [
            each
            for each in self.denials()
            if each.denial.node == node or (each.signer == self._root and each.denial.node == issuer)
        ]

    def lists_against(self, node: NodeId, issuer: NodeId | None = None) -> list[SignedList]:
        """Return the lists by which a node is denied, for the node itself to read."""
        signers = {each.signer for each in self.denials_of(node, issuer)}
        return [held.signed for key, held in self._held.items() if key.kind == ListKind.DENY and key.signer in signers]

    def broker(self) -> BrokerNotice | None:
        """Return the broker notice that holds: the root's, else the one with the highest number."""
        self._drop_ended()
        notices = [held.signed for key, held in self._held.items() if key.kind == ListKind.BROKER]
        best = max(notices, key=lambda each: (each.signer == self._root, each.number, each.digest), default=None)
        return None if best is None else best.broker()

    def _note_issuer(self, node: NodeId) -> None:
        if len(self._issuers) < ISSUER_COUNT_MAX:
            self._issuers[node] = None

    def _sum_up(self) -> None:
        of_root = self._held.get(ListKey(ListKind.DENY, self._root))
        self._by_root = frozenset(denial.node for denial in of_root.denials) if of_root is not None else frozenset()
        self._by_issuers = frozenset(
            denial.node for key, held in self._held.items() if key.signer != self._root for denial in held.denials
        )
        self._next_end = min((held.ends_at for held in self._held.values()), default=NEVER)
        self._digest = digest_of(held.row for held in self._held.values())


def digest_of(rows: Iterable[Row]) -> bytes:
    """Return DIGEST_BYTES over rows: two nodes with the same lists have the same."""
    sorted_rows = sorted(rows, key=lambda row: row.key)
    items = [[row.key.kind, row.key.signer, row.number, row.check] for row in sorted_rows]
    return sha256(b"conflux/1/lists\0", record.encode(items))[:DIGEST_BYTES]


def _row(signed: SignedList) -> Row:
    return Row(signed.key, signed.number, signed.digest[:DIGEST_BYTES])
