"""The issuer's part of a running daemon: it lets nodes in, renews them, and hands them what was changed for them.

    issuer                                member
      │ ◄─ RENEW: its chain ─────────────── │  answered by RENEWED; see renewal.py
      │ ── RENEWED: a fresh chain ────────► │  a person changed its name or rights: it need not ask
      │ ◄─ ACK ──────────────────────────── │  it uses the chain
      │ ── GRANT ─────────────────────────► │  before that chain, if the root lets it issue
      │ ◄─ ACK ──────────────────────────── │

What a member has not acknowledged stays due on the records: it is handed over again, later and later, and is part of
its next renewal in any case.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from conflux.budget import BudgetTable
from conflux.control.envelope import Kind
from conflux.control.event import Message
from conflux.errors import RemoteProtocolError, StateError
from conflux.ids import NodeId, format_node_id
from conflux.realm.clock import RealmClock
from conflux.realm.credential import Chain, Grant
from conflux.realm.issued import End
from conflux.realm.issuer import Issuer
from conflux.realm.join import JoinAnswer, JoinRequest, RenewRequest
from conflux.realm.reason import Reason

log = logging.getLogger(__name__)

RENEW_S_MIN = 60  # between two renewals of one node: each takes two signatures and a file flushed to the disk
RENEWED_COUNT_MAX = 1024  # nodes whose last renewal is remembered; the oldest is forgotten
HAND_S_MIN = 60.0  # until what was not acknowledged is handed over again; twice as long each time
HAND_S_MAX = 3600.0
# Grants taken of one member: each takes a verification and a file flushed to the disk.
GRANT_RATE, GRANT_BURST, GRANTOR_COUNT_MAX = 1 / 60, 3.0, 256
HAND_OVER_S = 8.0  # chosen: a request is repeated for five seconds
HANDED_COUNT_MAX = 64  # chains under way; the oldest is forgotten, and its node gets another one later


class _Handed(NamedTuple):
    """serial: of the chain; 0: it is a grant."""

    node: NodeId
    serial: int


@dataclass(slots=True)
class _Wait:
    """When a node is handed its chain again."""

    at: float
    wait_s: float


class Issuing:
    """issuer: None while this node is none.

    late_s: for how long an expired credential is still renewed.
    grant_of: what the root gave a member that is to issue, where the root's key is.
    take: check and keep a grant of this node, and return it as an issuer; None if the grant was known.
    look: return this node as an issuer, if it is one by now.
    ask: send a control message that wants an answer, and return its token.  answer: answer one.
    adopt: use a chain of this node itself.  denies: says of a node and its issuer whether it is revoked.
    """

    def __init__(
        self,
        issuer: Issuer | None,
        clock: RealmClock,
        *,
        late_s: int,
        grant_of: Callable[[NodeId], Grant | None],
        take: Callable[[Grant], Issuer | None],
        look: Callable[[], Issuer | None],
        ask: Callable[[NodeId, Kind, bytes], int],
        answer: Callable[[Message, Kind, bytes], object],
        adopt: Callable[[Chain], None],
        denies: Callable[[NodeId, NodeId | None], bool] = lambda node, issuer: False,
    ) -> None:
        self.issuer = issuer
        self._clock = clock
        self.late_s = late_s
        self._grant_of = grant_of
        self._take = take
        self._look = look
        self._grants = BudgetTable(GRANT_RATE, GRANT_BURST, GRANTOR_COUNT_MAX)
        self._ask = ask
        self._answer = answer
        self._adopt = adopt
        self._denies = denies
        self._renewed: dict[NodeId, int] = {}  # when each node was last renewed, in Unix seconds
        self._handed: dict[int, _Handed] = {}  # by the token of the message
        self._waits: dict[NodeId, _Wait] = {}
        self._awaited: dict[NodeId, asyncio.Event] = {}

    # ── nodes that ask ──

    def admit(self, request: JoinRequest | RenewRequest, binding: bytes) -> JoinAnswer:
        """Return the answer to a request to join or to be renewed.  Raises RemoteProtocolError: the reason to tell."""
        if self.issuer is None:
            raise RemoteProtocolError(Reason.WRONG_ISSUER, "this node issues nothing")
        self._require_not_revoked(request.node_id, None if isinstance(request, JoinRequest) else request.chain)
        try:
            now_unix = self._clock.now_unix()
            if isinstance(request, JoinRequest):
                return self.issuer.join(request, binding=binding, now_unix=now_unix)
            self._require_time(request.node_id, now_unix)
            answer = self.issuer.renew_at(request, binding=binding, now_unix=now_unix, late_s=self.late_s)
            self._note_time(request.node_id, now_unix)
            return answer
        except StateError as error:
            # The disk is full, or somebody changed the directory: not the joining node's fault.
            log.error("a node cannot be let in: %s", error)
            raise RemoteProtocolError(Reason.BUSY, "the issuer cannot record it") from None

    def secret_of(self, invite_id: bytes) -> bytes | None:
        """Return the secret of an invitation of this node; None if it knows none."""
        try:
            return None if self.issuer is None else self.issuer.secret_of(invite_id)
        except StateError as error:
            log.error("an invitation cannot be read: %s", error)
            return None

    def look_for_key(self) -> Issuer | None:
        """Return this node as an issuer if it has a key that signs admissions to the broker, perhaps since now.

        Raises StateError.
        """
        if self.issuer is None or self.issuer.mints:
            return self.issuer
        found = self._look()
        if found is None or not found.mints:
            return None
        self.issuer = found
        return found

    def receive(self, message: Message, *, now: float) -> None:
        """Take a RENEW, LEAVE or ACK.  Raises RemoteProtocolError if it breaks a rule, StateError: the disk is full."""
        if message.kind is Kind.RENEW:
            self._renew_untrusted(message)
        elif message.kind is Kind.GRANT:
            self._granted_untrusted(message, now)
        elif message.kind is Kind.LEAVE:
            self._leave(message)
        elif message.kind is Kind.ACK:
            self._acknowledged(message)

    def _renew_untrusted(self, message: Message) -> None:
        if self.issuer is None:
            raise RemoteProtocolError("not-issuer")
        chain = Chain.decode_untrusted(message.body)
        if chain.credential.node_id != message.peer:
            raise RemoteProtocolError("not-yours", "a credential may be renewed by its own node only")
        self._require_not_revoked(message.peer, chain)
        now_unix = self._clock.now_unix()
        self._require_time(message.peer, now_unix)
        fresh = self.issuer.renew(chain, now_unix=now_unix, late_s=self.late_s)
        self._note_time(message.peer, now_unix)
        if (grant := self._grant_of(message.peer)) is not None:  # perhaps it was off when it was given
            self._send(message.peer, 0, Kind.GRANT, grant.encode())
        log.info("renewed the credential of %s", fresh.credential.name)
        self._answer(message, Kind.RENEWED, fresh.encode())

    def _leave(self, message: Message) -> None:
        if self.issuer is None:
            raise RemoteProtocolError("not-issuer")
        entry = self.issuer.end(message.peer, End.LEFT, now_unix=self._clock.now_unix())
        log.info("%s left: it is no member any more", entry.name)
        self._answer(message, Kind.ACK, b"")

    def _require_not_revoked(self, node: NodeId, chain: Chain | None) -> None:
        """Raise RemoteProtocolError("revoked") for a node that is denied, or whose credential proves nothing.

        A member of a revoked issuer may have been made by the thief of its key.  One on record here was not.
        """
        if self._denies(node, None):
            raise RemoteProtocolError(Reason.REVOKED)
        if chain is not None and self._denies(node, chain.credential.issuer):
            assert self.issuer is not None
            if not self.issuer.has_member(node):
                raise RemoteProtocolError(Reason.REVOKED, "its issuer")

    def _require_time(self, node: NodeId, now_unix: int) -> None:
        last = self._renewed.get(node)
        if last is not None and abs(now_unix - last) < RENEW_S_MIN:
            raise RemoteProtocolError(Reason.TOO_SOON, "renewed a moment ago")

    def _note_time(self, node: NodeId, now_unix: int) -> None:
        self._renewed.pop(node, None)
        self._renewed[node] = now_unix
        if len(self._renewed) > RENEWED_COUNT_MAX:
            del self._renewed[next(iter(self._renewed))]

    # ── nodes that are told ──

    async def hand_over(self, node: NodeId, *, now: float) -> bool:
        """Hand a member a fresh chain, and say whether it uses it within HAND_OVER_S.

        Raises RemoteProtocolError if it cannot have one now, StateError if the disk is full.
        """
        used = self._awaited[node] = asyncio.Event()
        try:
            self._hand(node, now)
            async with asyncio.timeout(HAND_OVER_S):
                await used.wait()
        except TimeoutError:
            return False
        finally:
            if self._awaited.get(node) is used:
                del self._awaited[node]
        return True

    def _hand(self, node: NodeId, now: float) -> None:
        if self.issuer is None:
            raise RemoteProtocolError("not-issuer")
        before = self._waits.get(node)
        wait_s = HAND_S_MIN if before is None else min(2 * before.wait_s, HAND_S_MAX)
        self._waits[node] = _Wait(now + wait_s, wait_s)
        chain = self.issuer.reissue(node, now_unix=self._clock.now_unix())
        if node == self.issuer.issuer_id:
            self._adopt(chain)
            self._used(node, chain.credential.serial)
            return
        grant = self._grant_of(node)
        if grant is not None:  # first: the chain, which is due until it is acknowledged, says that it may issue
            self._send(node, 0, Kind.GRANT, grant.encode())
        self._send(node, chain.credential.serial, Kind.RENEWED, chain.encode())

    def _send(self, node: NodeId, serial: int, kind: Kind, body: bytes) -> None:
        self._handed[self._ask(node, kind, body)] = _Handed(node, serial)
        if len(self._handed) > HANDED_COUNT_MAX:
            del self._handed[next(iter(self._handed))]

    def _granted_untrusted(self, message: Message, now: float) -> None:
        """Take a grant, whoever brings it: the root signed it."""
        if not self._grants.take(message.peer, now):
            raise RemoteProtocolError(Reason.TOO_SOON, "granted a moment ago")
        issuer = self._take(Grant.decode_untrusted(message.body))
        if issuer is not None:
            self.issuer = issuer
            log.info("this node may let nodes in now, by the realm's root")
        self._answer(message, Kind.ACK, b"")

    def hand_due(self, *, now: float) -> None:
        """Hand every member what it has not got yet, if it is time.  Called now and then."""
        if self.issuer is None:
            self.issuer = self._look()  # a person may have carried a grant here
        if self.issuer is None:
            return
        due = self.issuer.due()
        self._waits = {node: wait for node, wait in self._waits.items() if node in due}
        for node in due:
            wait = self._waits.get(node)
            if wait is None or wait.at <= now:
                try:
                    self._hand(node, now)
                except RemoteProtocolError as error:
                    log.debug("a changed credential is not handed over: %s", error)

    def _acknowledged(self, message: Message) -> None:
        handed = self._handed.pop(message.re, None)
        if handed is None or handed.node != message.peer or self.issuer is None:
            raise RemoteProtocolError("unexpected", "an acknowledgement of nothing")
        if handed.serial:
            self._used(handed.node, handed.serial)

    def _used(self, node: NodeId, serial: int) -> None:
        """Take note that a member uses what it was handed."""
        assert self.issuer is not None
        self.issuer.delivered(node, serial)
        self._waits.pop(node, None)
        log.info("%s uses its changed credential now", format_node_id(node))
        if (used := self._awaited.get(node)) is not None:
            used.set()
