"""Joining over a LAN: find the issuer, ask, believe the answer.

The issuer is looked for in the token's hints, at the places a person named, and by mDNS under the realm's tag, all at
once.  Anybody may answer there, so a refusal ends nothing: an answer that verifies does, or the end of the search.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from conflux.control.lan.certificate import client_context, peer_digest
from conflux.control.lan.config import HANDSHAKE_S, LanConfig
from conflux.control.lan.connection import Connection
from conflux.control.lan.dial import open_connection, underlay_addresses
from conflux.control.lan.frame import FrameType
from conflux.control.lan.handshake import INSTANCE_BYTES, Greeting, join_binding, realm_tag
from conflux.errors import RemoteProtocolError, UserError
from conflux.realm.clock import RealmClock
from conflux.realm.identity import NodeKeys
from conflux.realm.invite import Token, parse_hint
from conflux.realm.join import Joiner, JoinRefused, explain_refusal
from conflux.realm.member import Member

log = logging.getLogger(__name__)

SEARCH_S = 15.0
AFTER_REFUSAL_S = 3.0  # how long to go on looking once somebody has said no
RETRY_S = 1.0
TRY_COUNT_MAX = 4  # at once
PLACE_COUNT_MAX = 64

PASSING = frozenset({"busy", "closed"})  # worth another try
ELSEWHERE = frozenset({"wrong-issuer", "closed", "busy"})  # says little: the issuer may be somewhere else


async def join(
    token: Token,
    keys: NodeKeys,
    name: str,
    *,
    clock: RealmClock,
    entropy: Callable[[int], bytes],
    endpoints: Iterable[tuple[str, int]] = (),
    config: LanConfig | None = None,
    search_s: float = SEARCH_S,
) -> Member:
    """Return us as a member of the token's realm.

    endpoints: (host, port) to try beside the token's hints.  config: its interfaces, mdns and overlay count.
    Raises UserError that says what a person can do; ConfigError if name is no name.
    """
    search = _Search(token, keys, name, clock, entropy, config or LanConfig(), search_s)
    return await search.run([*(parse_hint(hint) for hint in token.hints), *endpoints])


class _Search:
    """One search for the issuer."""

    def __init__(
        self,
        token: Token,
        keys: NodeKeys,
        name: str,
        clock: RealmClock,
        entropy: Callable[[int], bytes],
        config: LanConfig,
        search_s: float,
    ) -> None:
        self._token = token
        self._keys = keys
        self._name = name
        self._clock = clock
        self._entropy = entropy
        self._config = config
        self._search_s = search_s
        Joiner(token, keys, name, entropy=entropy)  # refuses a bad name before anybody is bothered
        self._context = client_context()
        self._slots = asyncio.Semaphore(TRY_COUNT_MAX)
        self._tries: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._running = 0
        self._outcomes: asyncio.Queue[Member | None] = asyncio.Queue()
        self._refusals: dict[tuple[str, int], str] = {}  # what a person should read, by place
        self._said: dict[tuple[str, int], str] = {}  # reasons, by place
        self._silent: dict[tuple[str, int], str] = {}  # places without an answer, and why

    async def run(self, places: list[tuple[str, int]]) -> Member:
        """Return us as a member, or raise UserError."""
        discovery = self._discovery() if self._config.mdns else None
        if discovery is not None:
            await discovery.start()
        for place in places:
            self._try(place)
        try:
            return await self._wait()
        finally:
            for task in self._tries.values():
                task.cancel()
            await asyncio.gather(*self._tries.values(), return_exceptions=True)
            if discovery is not None:
                await discovery.stop()

    def _discovery(self) -> Any:
        from conflux.control.lan.discovery import Discovery  # zeroconf: not where mDNS is switched off

        def found(instance: bytes, places: tuple[tuple[str, int], ...]) -> None:
            for place in places:
                self._try(place)

        return Discovery(
            tag=realm_tag(self._token.realm_id),
            instance=self._entropy(INSTANCE_BYTES),
            port=None,
            config=self._config,
            found=found,
            gone=lambda instance: None,
        )

    async def _wait(self) -> Member:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._search_s
        refused = False
        while True:
            if not self._config.mdns and self._running == 0 and self._outcomes.empty():
                raise UserError(self._failure())
            try:
                async with asyncio.timeout_at(ends_at):
                    member = await self._outcomes.get()
            except TimeoutError:
                raise UserError(self._failure()) from None
            if member is not None:
                return member
            if not refused and any(reason not in ELSEWHERE for reason in self._said.values()):
                refused = True
                ends_at = min(ends_at, loop.time() + AFTER_REFUSAL_S)

    def _try(self, place: tuple[str, int]) -> None:
        if place not in self._tries and len(self._tries) < PLACE_COUNT_MAX:
            self._running += 1
            self._tries[place] = asyncio.create_task(self._ask_until_answered(place))

    async def _ask_until_answered(self, place: tuple[str, int]) -> None:
        try:
            while True:
                async with self._slots:
                    reason = await self._ask(place)
                if reason is not None and reason not in PASSING:
                    return
                await asyncio.sleep(RETRY_S)
        finally:
            self._running -= 1
            self._outcomes.put_nowait(None)

    async def _ask(self, place: tuple[str, int]) -> str | None:
        """Ask once; return the reason if we were refused, None if nobody answered."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                addresses = await underlay_addresses((place,), self._config)
                connection, _ = await open_connection(addresses, self._context)
                member = await self._request(connection)
        except (OSError, TimeoutError) as error:
            self._silent[place] = str(error) or "no answer"
            return None
        except RemoteProtocolError as error:
            log.info("%s:%d: %s", *place, error)
            self._said[place] = error.reason
            self._refusals[place] = self._explain(error)
            return error.reason
        finally:
            if connection is not None:
                connection.close("done")
                await connection.closed
        self._outcomes.put_nowait(member)
        return "joined"

    async def _request(self, connection: Connection) -> Member:
        joiner = Joiner(self._token, self._keys, self._name, entropy=self._entropy)
        digest = peer_digest(connection.tls)
        _, greeting = await connection.read(FrameType.GREETING)
        Greeting.decode_untrusted(greeting)
        connection.send(FrameType.JOIN, joiner.request(join_binding(digest, greeting)).encode())
        kind, body = await connection.read(FrameType.JOINED, FrameType.JOIN_REFUSED)
        if kind is FrameType.JOIN_REFUSED:
            raise _Refusal(JoinRefused.decode_untrusted(body).reason)
        return joiner.accept_untrusted(body, self._clock)

    def _explain(self, error: RemoteProtocolError) -> str:
        """Return what a person should read."""
        if isinstance(error, _Refusal):
            return explain_refusal(error.reason)
        if error.reason in ("expired", "not-yet-valid"):
            now = datetime.fromtimestamp(self._clock.now_unix(), UTC)
            return f"this device's clock is wrong, or the issuer's: here it is {now:%Y-%m-%d %H:%M} UTC ({error})"
        if error.reason == "foreign-realm":
            return "the node that answered is of another realm than the invitation"
        if error.reason == "closed":
            return "the node that answered closed the connection"
        return f"the answer does not verify ({error})"

    def _failure(self) -> str:
        """Return what the whole search came to."""
        telling = [place for place, reason in self._said.items() if reason not in ELSEWHERE]
        for place in [*telling, *self._said]:
            return f"could not join: {self._refusals[place]} (said {place[0]} port {place[1]})"
        tried = "; ".join(f"{host} port {port}: {why}" for (host, port), why in self._silent.items())
        where = ", ".join(filter(None, [tried, "mDNS found nobody of the realm" if self._config.mdns else ""]))
        if self._token.not_after <= self._clock.now_unix():
            where = ", ".join(filter(None, [where, "and the invitation has expired by this device's clock"]))
        return (
            f"could not join: nobody answered ({where or 'no address to try'}).  "
            "Is the node that made the invitation up, and on this network?"
        )


class _Refusal(RemoteProtocolError):
    """The other side said no; reason is its word for it."""
