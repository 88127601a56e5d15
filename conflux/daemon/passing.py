"""Requests to join, or to be renewed, that a member passes on to the issuer, which the asking node does not reach.

    joiner ── JOIN ──► member ── ADMIT: binding, request ──► issuer       sealed and signed, as every control message
           ◄─ JOINED ─        ◄─ ADMITTED: the answer ──────

Both are bound to the joiner's connection with the member.  So the member can hold them back, and nothing else: it
cannot make a request, change one, or give a joiner another's answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from conflux.budget import BudgetTable, TokenBucket
from conflux.control.admitting import Issue, Request
from conflux.control.drop import Drop
from conflux.control.envelope import Kind
from conflux.control.event import Message
from conflux.control.lan.admission import ONE_JOIN_S
from conflux.control.lan.lately import Lately
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId, format_node_id
from conflux.realm.join import BINDING_BYTES, REFUSALS, JoinRequest, RenewRequest
from conflux.realm.reason import Reason
from conflux.record import Record, flag, octets

log = logging.getLogger(__name__)

CARRY_S = 4.0  # chosen: a joiner waits for five
CARRIED_COUNT_MAX = 8  # at once
ANSWER_BYTES_MAX = 26_000  # of control message; an answer has 22,000
# What one member, and all of them, may have this issuer look at, per second and at once.
ADMIT_RATE, ADMIT_BURST = 1.0, 8.0
ADMIT_RATE_ALL, ADMIT_BURST_ALL = 4.0, 32.0
MEMBER_COUNT_MAX = 1024


@dataclass(frozen=True, slots=True)
class Admit(Record):
    """Body of ADMIT.  renews: the request is a RenewRequest, else a JoinRequest."""

    BYTES_MAX = RenewRequest.BYTES_MAX + 128
    SHAPES = (flag(), octets(BINDING_BYTES), octets(1, RenewRequest.BYTES_MAX))

    renews: bool
    binding: bytes  # of the joiner's connection with the member
    request: bytes


@dataclass(frozen=True, slots=True)
class Admitted(Record):
    """Body of ADMITTED.  answer: a JoinAnswer; said: why there is none."""

    BYTES_MAX = ANSWER_BYTES_MAX + 128
    SHAPES = (octets(0, ANSWER_BYTES_MAX), octets(0, 32))

    answer: bytes
    said: bytes


class Passing:
    """A member's part, and an issuer's.

    is_issuer: whether a node is known to be one.  own: whether this node itself decides on a request.  issue: decides.
    ask: sends a control message that wants an answer, and returns its token.  answer: answers one.  drop: counts what
    this issuer refused.
    """

    def __init__(
        self,
        *,
        is_issuer: Callable[[NodeId], bool],
        own: Callable[[Request], bool],
        issue: Issue,
        ask: Callable[[NodeId, Kind, bytes], int],
        answer: Callable[[Message, Kind, bytes], object],
        drop: Callable[[str], object],
    ) -> None:
        self._is_issuer = is_issuer
        self._own = own
        self._issue = issue
        self._ask = ask
        self._answer = answer
        self._drop = drop
        self.lately = Lately(ONE_JOIN_S)
        self._carried: dict[int, tuple[NodeId, asyncio.Future[Admitted]]] = {}  # by the token of the ADMIT
        self._members = BudgetTable(ADMIT_RATE, ADMIT_BURST, MEMBER_COUNT_MAX)
        self._all = TokenBucket(ADMIT_RATE_ALL, ADMIT_BURST_ALL)

    # ── the member in the middle ──

    def passes(self, request: Request) -> bool:
        """Say whether a request is for another issuer, one that is known here: strangers make nobody search."""
        return not self._own(request) and self._is_issuer(issuer_of(request))

    async def carry(self, request: Request, binding: bytes) -> bytes:
        """Return the issuer's answer, a JoinAnswer.  Raises RemoteProtocolError with its reason; busy: none came."""
        if len(self._carried) >= CARRIED_COUNT_MAX:
            raise RemoteProtocolError(Reason.BUSY, "too many requests are passed on")
        issuer = issuer_of(request)
        body = Admit(isinstance(request, RenewRequest), binding, request.encode()).encode()
        token = self._ask(issuer, Kind.ADMIT, body)
        future: asyncio.Future[Admitted] = asyncio.get_running_loop().create_future()
        self._carried[token] = issuer, future
        try:
            async with asyncio.timeout(CARRY_S):
                admitted = await future
        except TimeoutError:
            raise RemoteProtocolError(Reason.BUSY, "the issuer does not answer") from None
        finally:
            del self._carried[token]
        if not admitted.answer:
            said = admitted.said.decode("ascii", "replace")
            raise RemoteProtocolError(said if said in REFUSALS else Reason.REFUSED)  # no word of its own is counted
        return admitted.answer

    # ── messages ──

    def receive(self, message: Message, *, now: float) -> None:
        """Take an ADMIT or ADMITTED.  Raises RemoteProtocolError."""
        if message.kind is Kind.ADMIT:
            self._admit_untrusted(message, now)
            return
        issuer, future = self._carried.get(message.re, (None, None))
        if future is None or issuer != message.peer or future.done():
            raise RemoteProtocolError(Drop.LATE, "an answer to nothing that was passed on")
        future.set_result(Admitted.decode_untrusted(message.body))

    def _admit_untrusted(self, message: Message, now: float) -> None:
        if not self._members.take(message.peer, now) or not self._all.take(now):
            raise RemoteProtocolError(Drop.FLOOD)
        admit = Admit.decode_untrusted(message.body)
        kind: type[RenewRequest] | type[JoinRequest] = RenewRequest if admit.renews else JoinRequest
        node: NodeId | None = None
        try:
            request = kind.decode_untrusted(admit.request)
            node = request.node_id
            issued = self._issue(request, admit.binding)
            answer = issued.encode()
            if len(answer) > ANSWER_BYTES_MAX:
                raise RemoteProtocolError(Reason.BUSY, "the answer is too long to be passed on")
        except RemoteProtocolError as error:
            self._tell_refusal(node, message.peer, error, now)
            said = error.reason.encode()[:32]
            self._answer(message, Kind.ADMITTED, Admitted(b"", said).encode())
            return
        done = "was renewed" if admit.renews else "joined"
        if self.lately.is_new((node, done), now):
            log.info("%s %s by way of %s", issued.chain.credential.name, done, format_node_id(message.peer))
        self._answer(message, Kind.ADMITTED, Admitted(answer, b"").encode())

    def _tell_refusal(self, node: NodeId | None, peer: NodeId, error: RemoteProtocolError, now: float) -> None:
        """Count and write a refusal, once for what the same node asks by several members."""
        if node is None or self.lately.is_new((node, error.reason), now):
            self._drop(f"join-{error.reason}")
            level = logging.DEBUG if error.reason == Reason.WAITING else logging.INFO  # it asks every few seconds
            log.log(level, "a request to join that %s passed on was refused: %s", format_node_id(peer), error)


def issuer_of(request: Request) -> NodeId:
    """Return the issuer that a request is for."""
    return request.issuer if isinstance(request, JoinRequest) else request.chain.credential.issuer
