"""A late renewal over the broker: reach a server, ask every issuer of the realm there, verify the answers.

    member                                                          issuers
      │ ── any issuer, nonce ──────────────────────────────────────► │
      │ ◄─ challenge, from each of them ──────────────────────────── │
      │ ── one challenge after the other, RenewRequest ────────────► │  whose challenge it is answers

The node is admitted by the pass of its credential, which is good for this alone, and longer than the credential.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from conflux.control.admitting import SEARCH_S, explain_answer
from conflux.control.nats.config import ROUND_S, NatsConfig, Server
from conflux.control.nats.connection import Connection, Credentials, Listener
from conflux.control.nats.end import ConnectError, End, connect_error
from conflux.control.nats.exchange import HEARD_COUNT_MAX, Exchange, Silence, told_untrusted
from conflux.control.nats.protocol import Message
from conflux.control.nats.staggered import first_connection
from conflux.control.nats.supervisor import shown
from conflux.control.nats.tls import Trust
from conflux.crypto import nkey
from conflux.crypto.sign import ED25519_PUBLIC_BYTES
from conflux.errors import RemoteProtocolError, UserError
from conflux.realm.broker import subjects
from conflux.realm.broker.joining import (
    ANY_ISSUER,
    NONCE_BYTES,
    RENEWAL_SECRET,
    Asked,
    TellKind,
    Told,
    join_binding,
    seal_request,
    unseal_told_untrusted,
)
from conflux.realm.broker.users import late_jwt_of, renewal_id
from conflux.realm.clock import RealmClock
from conflux.realm.join import JoinRefused, Renewer, explain_refusal
from conflux.realm.member import Member

ISSUER_COUNT_MAX = 8  # whose challenges are taken; a server that lies can invent as many as it likes
OTHERS_S = 0.5  # how long other issuers are waited for after the first


async def renew(
    member: Member,
    *,
    config: NatsConfig,
    clock: RealmClock,
    entropy: Callable[[int], bytes],
    search_s: float = SEARCH_S,
) -> Member:
    """Return us with a renewed credential, from our issuer or from one in its place; ours may have ended.

    Raises UserError, which says what a person can do.
    """
    search = _Search(member, config, clock, entropy)
    try:
        async with asyncio.timeout(search_s):
            return await search.run()
    except TimeoutError:
        raise search.failed() from None


class _Search:
    """One search for an issuer at the broker."""

    def __init__(self, member: Member, config: NatsConfig, clock: RealmClock, entropy: Callable[[int], bytes]) -> None:
        try:
            jwt = late_jwt_of(member.chain.credential.nats_jwt)
        except RemoteProtocolError as error:
            raise UserError(f"could not be renewed over the broker: its admission is damaged ({error})") from None
        if jwt is None:
            raise UserError("could not be renewed over the broker: the credential has no admission for that")
        self._credentials = Credentials(jwt, lambda nonce: nkey.sign_nonce(member.keys.signing, nonce))
        self._renewer = Renewer(member, entropy=entropy)
        self._id = renewal_id(member.keys.public.encode()[:ED25519_PUBLIC_BYTES])
        self._config = config
        self._trust = Trust(config.ca, floor_unix=lambda: clock.floor_unix)
        self._clock = clock
        self._entropy = entropy
        self._messages: asyncio.Queue[Message] = asyncio.Queue(HEARD_COUNT_MAX)
        self._trouble = "no server of it was reached"

    def failed(self) -> UserError:
        """Return why we are not renewed."""
        return UserError(f"could not be renewed over the broker: {self._trouble}")

    async def run(self) -> Member:
        """Return us with a renewed credential.  Raises UserError."""
        connection = await self._connect_first()
        try:
            return await self._ask_all(connection)
        except Silence:
            self._trouble = (
                f"{shown(connection.server)} let us in, but no issuer answered: is one up, and on the broker?"
            )
            raise self.failed() from None
        finally:
            connection.close(End.STOPPED)
            await connection.gone()

    # ── a server ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _connect_first(self) -> Connection:
        failed: list[str] = []

        def note(server: Server, error: ConnectError) -> None:
            failed.append(f"{shown(server)}: {error}")
            self._trouble = "; ".join(failed)

        servers = random.sample(self._config.servers, len(self._config.servers))
        connection = await first_connection(servers, self._connect, note)
        if connection is None:
            raise self.failed()
        return connection

    async def _connect(self, server: Server) -> Connection:
        try:
            async with asyncio.timeout(ROUND_S):
                return await Connection.open(
                    server,
                    trust=self._trust,
                    credentials=self._credentials,
                    listener=Listener(self._take, lambda reason: None, lambda: None),
                    subjects=[subjects.joined(self._id)],
                    allows=lambda host: True,
                )
        except (OSError, TimeoutError, ConnectError) as error:
            raise connect_error(error) from None

    def _take(self, message: Message) -> None:
        if not self._messages.full():
            self._messages.put_nowait(message)

    # ── the issuers ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask_all(self, connection: Connection) -> Member:
        """Ask one issuer after the other.  Raises Silence if none is there, UserError with what the last one said."""
        exchange, nonce = Exchange(connection, self._messages, subjects.join(self._id)), self._entropy(NONCE_BYTES)
        for challenge in await self._challenges(exchange, nonce):
            with contextlib.suppress(Silence):
                return await self._ask(exchange, nonce, challenge)
        raise self.failed()

    async def _challenges(self, exchange: Exchange, nonce: bytes) -> list[bytes]:
        """Return the challenges of all issuers that answer, at least one.  Raises Silence."""

        def challenge_of(told: Told | None) -> bytes | None:
            return told.salt if told is not None and told.nonce == nonce and not told.box else None

        found = dict.fromkeys([await exchange.ask(Asked(ANY_ISSUER, nonce), challenge_of)])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OTHERS_S):
                while len(found) < ISSUER_COUNT_MAX:
                    challenge = challenge_of(told_untrusted(await self._messages.get()))
                    if challenge is not None:
                        found[challenge] = None
        self._trouble = "no issuer answered"
        return list(found)

    async def _ask(self, exchange: Exchange, nonce: bytes, challenge: bytes) -> Member:
        """Ask the issuer whose challenge that is.  Raises Silence if it does not answer, or does not renew us."""
        binding = join_binding(ANY_ISSUER, self._id, nonce, challenge)
        box = seal_request(RENEWAL_SECRET, binding, self._renewer.request(binding).encode())

        def answer_of(told: Told) -> Member | str | None:
            """Return us, or a refusal; what anybody made up is neither, and the true answer may still come."""
            if told.nonce != nonce or not told.box:
                return None
            try:
                kind, body = unseal_told_untrusted(RENEWAL_SECRET, binding, told)
                if kind is TellKind.REFUSED:
                    return JoinRefused.decode_untrusted(body).said
                return self._renewer.accept_untrusted(body, self._clock) if kind is TellKind.JOINED else None
            except RemoteProtocolError as error:
                self._trouble = explain_answer(error, self._clock)
                return None

        found: Member | str = await exchange.ask(Asked(ANY_ISSUER, nonce, challenge, box), answer_of)
        if isinstance(found, Member):
            return found
        self._trouble = explain_refusal(found)
        raise Silence
