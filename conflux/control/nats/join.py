"""Joining over the broker: reach a server that the token names, ask the issuer there, verify its answer.

The servers are tried one after the other, a while apart; the first that lets the invitation in is asked.  What a server
makes up opens no box, so nothing of it counts but silence: then another one is tried, until the search ends.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from conflux.control.admitting import (
    APPROVAL_S,
    LIST_COUNT_MAX,
    RETRY_S,
    SEARCH_S,
    NoAnswerError,
    RefusedByIssuer,
    approval_retry_s,
    explain_answer,
)
from conflux.control.nats.authority import fetch_authority
from conflux.control.nats.config import ROUND_S, Server
from conflux.control.nats.connection import Connection, Credentials, Listener
from conflux.control.nats.end import ConnectError, End, connect_error
from conflux.control.nats.exchange import HEARD_COUNT_MAX, Exchange, Silence
from conflux.control.nats.protocol import Message
from conflux.control.nats.staggered import first_connection
from conflux.control.nats.supervisor import shown
from conflux.control.nats.tls import Trust
from conflux.errors import RemoteProtocolError, UserError
from conflux.realm.broker import subjects
from conflux.realm.broker.joining import (
    NONCE_BYTES,
    Asked,
    TellKind,
    Told,
    join_binding,
    seal_request,
    unseal_told_untrusted,
)
from conflux.realm.clock import RealmClock
from conflux.realm.identity import NodeKeys
from conflux.realm.invite import BrokerWay, Token, parse_hint
from conflux.realm.join import Joiner, JoinRefused, explain_refusal
from conflux.realm.member import Member
from conflux.realm.reason import Reason

log = logging.getLogger(__name__)


async def join(
    token: Token,
    keys: NodeKeys,
    name: str,
    *,
    clock: RealmClock,
    entropy: Callable[[int], bytes],
    search_s: float = SEARCH_S,
    approval_s: float = APPROVAL_S,
    waits: Callable[[], None] = lambda: None,
    heard: Callable[[bytes], None] = lambda signed: None,
) -> Member:
    """Return us as a member of the token's realm, over the broker that the token names.

    approval_s: how long a person is waited for.  waits: called when that begins.  heard: is given the signed lists that
    come with the answer, not verified.  Raises UserError, which says what a person can do: RefusedByIssuer if it was
    the issuer that refused; ConfigError if name is not a name.
    """
    assert token.broker is not None
    search = _Search(token, token.broker, keys, name, clock=clock, entropy=entropy, waits=waits, heard=heard)
    return await search.run(search_s, approval_s)


class _Waiting(Exception):
    """The issuer wants to be asked again: a person has to approve, or it is busy."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class _Search:
    """One search for the issuer at the broker."""

    def __init__(
        self,
        token: Token,
        way: BrokerWay,
        keys: NodeKeys,
        name: str,
        *,
        clock: RealmClock,
        entropy: Callable[[int], bytes],
        waits: Callable[[], None],
        heard: Callable[[bytes], None],
    ) -> None:
        self._token = token
        self._way = way
        self._joiner = Joiner(token, keys, name, entropy=entropy)
        try:
            jwt, key = way.admission.rebuild(token.invite_id, token.secret)
        except RemoteProtocolError:
            raise UserError("the invitation is damaged: the admission to the broker in it is not its own") from None
        self._credentials = Credentials(jwt, key.sign)
        self._clock = clock
        self._entropy = entropy
        self._waits = waits
        self._heard = heard
        self._authority: str | None = None
        self._servers = [parse_hint(server) for server in way.servers]
        self._silent: set[Server] = set()  # they let us in, and no answer came
        self._trouble = "no server of it was reached"

    async def run(self, search_s: float, approval_s: float) -> Member:
        """Return us as a member.  Raises UserError."""
        loop = asyncio.get_running_loop()
        ends_at, waiting = loop.time() + search_s, False
        while True:
            wait_s = RETRY_S
            try:
                async with asyncio.timeout_at(ends_at):
                    return await self._try()
            except TimeoutError:
                raise NoAnswerError(f"could not join over the broker: {self._trouble}") from None
            except ConnectError:
                pass  # self._trouble says why
            except _Waiting as error:
                self._trouble = explain_refusal(error.said)
                if error.said == Reason.WAITING:
                    wait_s = approval_retry_s(self._entropy)
                    if not waiting:
                        waiting, ends_at = True, loop.time() + approval_s
                        self._waits()
            if loop.time() + wait_s > ends_at:
                raise NoAnswerError(f"could not join over the broker: {self._trouble}")
            await asyncio.sleep(wait_s)

    def _floor_unix(self) -> int:
        """Return the newest date that the realm has signed: at first it is that of the invitation's admission."""
        return max(self._clock.floor_unix, self._way.admission.issued_at)

    # ── a server ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _try(self) -> Member:
        """Ask at the first server that lets us in.  Raises ConnectError, _Waiting, RefusedByIssuer."""
        messages: asyncio.Queue[Message] = asyncio.Queue(HEARD_COUNT_MAX)
        connection = await self._connect_first(messages)
        try:
            return await self._ask(connection, messages)
        finally:
            connection.close(End.STOPPED)
            await connection.gone()

    async def _connect_first(self, messages: asyncio.Queue[Message]) -> Connection:
        """Return a connection to the server that lets us in first.  Raises ConnectError if none does."""
        random.shuffle(self._servers)
        failed: list[str] = []

        def note(server: Server, error: ConnectError) -> None:
            failed.append(f"{shown(server)}: {_words(error)}")
            self._trouble = "; ".join(failed)

        order = sorted(self._servers, key=lambda server: server in self._silent)
        connection = await first_connection(order, lambda server: self._connect(server, messages), note)
        if connection is None:
            raise ConnectError(End.UNREACHABLE)
        return connection

    async def _connect(self, server: Server, messages: asyncio.Queue[Message]) -> Connection:
        def take(message: Message) -> None:
            if not messages.full():
                messages.put_nowait(message)

        try:
            async with asyncio.timeout(ROUND_S):
                if self._authority is None:
                    self._authority = await fetch_authority(server, self._way.ca_fingerprint)
                return await Connection.open(
                    server,
                    trust=Trust(self._authority, floor_unix=self._floor_unix),
                    credentials=self._credentials,
                    listener=Listener(take, lambda reason: None, lambda: None),
                    subjects=[subjects.joined(self._token.invite_id)],
                    allows=lambda host: True,
                )
        except (OSError, TimeoutError, ConnectError) as error:
            raise connect_error(error) from None

    # ── the issuer ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, connection: Connection, messages: asyncio.Queue[Message]) -> Member:
        """Ask once.  Raises ConnectError if no answer comes, _Waiting, RefusedByIssuer."""
        try:
            return await self._converse(Exchange(connection, messages, subjects.join(self._token.invite_id)))
        except Silence:
            self._silent.add(connection.server)
            self._trouble = (
                f"{shown(connection.server)} let us in, but the node that made the invitation did not answer: is it "
                "up, and on the broker?  Or was the invitation withdrawn?"
            )
            raise ConnectError(End.SILENT) from None

    async def _converse(self, exchange: Exchange) -> Member:
        token, nonce = self._token, self._entropy(NONCE_BYTES)

        def challenge_of(told: Told) -> bytes | None:
            return told.salt if told.nonce == nonce and not told.box else None

        challenge = await exchange.ask(Asked(token.issuer, nonce), challenge_of)
        binding = join_binding(token.issuer, token.invite_id, nonce, challenge)
        box = seal_request(token.secret, binding, self._joiner.request(binding).encode())
        lists: list[bytes] = []

        def answer_of(told: Told) -> tuple[TellKind, bytes] | None:
            if told.nonce != nonce or not told.box:
                return None  # for another node that joins with this invitation
            try:
                kind, body = unseal_told_untrusted(token.secret, binding, told)
            except RemoteProtocolError as error:
                log.info("an answer that is not the issuer's: %s", error)
                return None
            if kind is not TellKind.LIST:
                return kind, body
            if len(lists) < LIST_COUNT_MAX:
                lists.append(body)
            return None

        member = self._accept(*await exchange.ask(Asked(token.issuer, nonce, challenge, box), answer_of))
        for signed in lists:
            self._heard(signed)
        return member

    def _accept(self, kind: TellKind, body: bytes) -> Member:
        """Return us as a member by an answer whose box opened: whoever sealed it has the invitation's secret."""
        try:
            if kind is TellKind.REFUSED:
                said = JoinRefused.decode_untrusted(body).said
                if said in (Reason.BUSY, Reason.WAITING):
                    raise _Waiting(said)
                raise RefusedByIssuer(f"could not join over the broker: {explain_refusal(said)}")
            return self._joiner.accept_untrusted(body, self._clock)
        except RemoteProtocolError as error:
            raise UserError(f"could not join over the broker: {explain_answer(error, self._clock)}") from None


def _words(error: ConnectError) -> str:
    if error.end.is_refusal:
        return f"{error}: the invitation has expired, or the broker is another one by now"
    return str(error)
