"""Requests to join, or to be renewed late, that come over the broker: which of them cost the issuer what.  Sans-IO.

    cx.join.<invite> ─► budget of the invitation ─► budget of all ─► for this issuer? ─► challenge         one HMAC
                     ─► challenge is ours ─► answered before? ─► budgets again ─► box opens ─► issuer      signatures

Who floods holds one token, or is a server that lies.  The first uses up the budget of its invitation, and other
invitations have theirs.  The second could keep silent as well.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable

from conflux.budget import BudgetTable, TokenBucket
from conflux.control.admitting import LIST_COUNT_MAX, Office, Request
from conflux.control.drop import Drop
from conflux.crypto.kdf import sha256
from conflux.crypto.sign import ED25519_PUBLIC_BYTES
from conflux.errors import RemoteProtocolError, UserError
from conflux.realm.broker.joining import (
    ANY_ISSUER,
    RENEWAL_SECRET,
    SALT_BYTES,
    Asked,
    Challenger,
    TellKind,
    Told,
    join_binding,
    seal_told,
    unseal_request_untrusted,
)
from conflux.realm.broker.users import renewal_id
from conflux.realm.join import JoinRefused, JoinRequest, RenewRequest
from conflux.realm.reason import Reason

log = logging.getLogger(__name__)

# Messages about joining that are decoded, per second and at once: of one invitation, and of all.  Chosen: thirty boards
# that are switched on together with one token send two each.
ASKED_RATE, ASKED_BURST = 10.0, 100.0
ASKED_RATE_ALL, ASKED_BURST_ALL = 200.0, 1000.0
# Requests that the issuer looks at: each may take two signatures and files flushed to the disk.
REQUEST_RATE, REQUEST_BURST = 1.0, 32.0
REQUEST_RATE_ALL, REQUEST_BURST_ALL = 10.0, 64.0
INVITE_COUNT_MAX = 256
ANSWER_COUNT_MAX = 32  # given lately, to be repeated; at most 33 kB each


class Reception:
    """An issuer's desk at the broker.  drop: counts what ends here."""

    def __init__(self, office: Office, *, entropy: Callable[[int], bytes], drop: Callable[[str], None]) -> None:
        self._office = office
        self._entropy = entropy
        self._drop = drop
        self._challenger = Challenger(entropy)
        self._asked = BudgetTable(ASKED_RATE, ASKED_BURST, INVITE_COUNT_MAX)
        self._asked_all = TokenBucket(ASKED_RATE_ALL, ASKED_BURST_ALL)
        self._requests = BudgetTable(REQUEST_RATE, REQUEST_BURST, INVITE_COUNT_MAX)
        self._requests_all = TokenBucket(REQUEST_RATE_ALL, REQUEST_BURST_ALL)
        self._answers: OrderedDict[bytes, tuple[TellKind, bytes]] = OrderedDict()  # by digest, see below

    def receive_untrusted(self, invite_id: bytes, data: bytes, *, now: float) -> list[bytes]:
        """Return what to publish in answer to a message on the subject of an invitation."""
        try:
            if not self._asked.take(invite_id, now) or not self._asked_all.take(now):
                raise RemoteProtocolError(Drop.FLOOD)
            asked = Asked.decode_untrusted(data)
            issuer = self._office.issuer()
            if issuer is None or asked.issuer not in (issuer, ANY_ISSUER):
                return []  # it is for another issuer of the realm, which hears it too
            if not asked.box:
                challenge = self._challenger.challenge(invite_id, asked.nonce, now=now)
                return [Told(asked.nonce, challenge).encode()]
            return self._answer_untrusted(invite_id, asked, now)
        except RemoteProtocolError as error:
            self._drop(f"join-{error.reason}")
            return []

    def _answer_untrusted(self, invite_id: bytes, asked: Asked, now: float) -> list[bytes]:
        self._challenger.verify(invite_id, asked.nonce, asked.challenge, now=now)
        if not self._requests.take(invite_id, now) or not self._requests_all.take(now):
            raise RemoteProtocolError(Drop.FLOOD)
        secret = RENEWAL_SECRET if asked.issuer == ANY_ISSUER else self._office.secret(invite_id)
        if secret is None:
            raise RemoteProtocolError(Reason.UNKNOWN_INVITE)
        binding = join_binding(asked.issuer, invite_id, asked.nonce, asked.challenge)
        data = unseal_request_untrusted(secret, binding, asked.box)
        digest = sha256(binding + data)  # not the nonce, which whoever passes the request on sees and could take
        answer = self._answers.get(digest)
        if answer is None:
            answer = self._decide(self._request_untrusted(invite_id, asked, data), binding)
            self._remember(digest, answer)
        parts = [answer]
        if answer[0] is TellKind.JOINED:
            lists = list(self._office.lists())[:LIST_COUNT_MAX]
            parts = [*((TellKind.LIST, signed) for signed in lists), answer]
        return [
            seal_told(secret, binding, asked.nonce, kind, body, salt=self._entropy(SALT_BYTES)).encode()
            for kind, body in parts
        ]

    def _request_untrusted(self, invite_id: bytes, asked: Asked, data: bytes) -> Request:
        if asked.issuer != ANY_ISSUER:
            return JoinRequest.decode_untrusted(data)
        request = RenewRequest.decode_untrusted(data)
        if renewal_id(request.node_public[:ED25519_PUBLIC_BYTES]) != invite_id:
            raise RemoteProtocolError(Reason.BAD_PROOF, "a renewal in the name of another node")
        return request

    def _decide(self, request: Request, binding: bytes) -> tuple[TellKind, bytes]:
        """Have the issuer answer, and return what the box of its answer holds."""
        try:
            answer = self._office.issue(request, binding)
        except RemoteProtocolError as error:
            self._drop(f"join-{error.reason}")
            level = logging.DEBUG if error.reason == Reason.WAITING else logging.INFO  # it asks every few seconds
            log.log(level, "a request to join or to be renewed over the broker was refused: %s", error)
            return TellKind.REFUSED, JoinRefused(error.reason).encode()
        except UserError as error:  # about this node's own records, which are not the joiner's business
            log.error("a request to join or to be renewed over the broker could not be answered: %s", error)
            return TellKind.REFUSED, JoinRefused(Reason.BUSY).encode()
        word = "was renewed" if isinstance(request, RenewRequest) else "joined"
        log.info("%s %s over the broker", answer.chain.credential.name, word)
        return TellKind.JOINED, answer.encode()

    def _remember(self, digest: bytes, answer: tuple[TellKind, bytes]) -> None:
        self._answers[digest] = answer
        if len(self._answers) > ANSWER_COUNT_MAX:
            self._answers.popitem(last=False)
