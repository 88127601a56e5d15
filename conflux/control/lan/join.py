"""Joining, or late renewal, over a LAN: find the issuer, ask it, verify its answer.

The issuer is looked for at the hints of the token, at the places that a person named, and by mDNS under the realm's
tag, each a little after the one before.  Any node may answer there, so a refusal does not end the search: an answer
that verifies does, or its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from conflux.control.admitting import (
    APPROVAL_S,
    LIST_COUNT_MAX,
    RETRY_S,
    SEARCH_S,
    NoAnswerError,
    approval_retry_s,
    explain_answer,
)
from conflux.control.drop import Drop
from conflux.control.lan.certificate import client_context, peer_digest
from conflux.control.lan.config import DEFAULT_PORT, DIAL_S_MAX, HANDSHAKE_S, MDNS_PORT, LanConfig, Place
from conflux.control.lan.connection import Connection
from conflux.control.lan.dial import TRIED_COUNT_MAX, Address, open_connection, race, underlay_addresses
from conflux.control.lan.frame import FrameType
from conflux.control.lan.handshake import INSTANCE_BYTES, Greeting, join_binding, realm_tag
from conflux.errors import RemoteProtocolError, UserError, printable, words_of
from conflux.host.names import NAMES
from conflux.ids import RealmId
from conflux.realm.clock import RealmClock
from conflux.realm.identity import NodeKeys
from conflux.realm.invite import Token, parse_hint
from conflux.realm.join import Joiner, JoinRefused, Renewer, explain_refusal
from conflux.realm.member import Member
from conflux.realm.reason import Reason

if TYPE_CHECKING:
    from conflux.control.lan.discovery import Discovery  # zeroconf is loaded only if mDNS is on

log = logging.getLogger(__name__)

AFTER_REFUSAL_S = 3.0  # how long the search goes on after a refusal
_ANSWERS = (FrameType.LIST, FrameType.JOINED, FrameType.JOIN_REFUSED)
FIREWALL = f"Does a firewall let in TCP {DEFAULT_PORT} there, and UDP {MDNS_PORT} at both?"
TRY_COUNT_MAX = 16  # at once: places where something answers and says nothing take 5 s each
NEXT_S = 0.25  # until the next place is asked too: one answer is 20 kB, and two signatures of the issuer
TURN_S_MAX = 2.0  # so long a place waits for those before it: most of what mDNS shows may be silent
PLACE_COUNT_MAX = 64  # that a person or the token named; and as many that mDNS shows
HOST_PLACE_COUNT_MAX = 4  # at one address that mDNS shows: one device can announce every port of its own
LEFT_COUNT_MAX = 256  # places that mDNS shows, for which there is no room yet


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How the latest try at a place ended.  text: what a person should read.

    again: another try may end differently.  telling: it tells of the invitation; otherwise the issuer may be elsewhere.
    answered: a node of Conflux is there.  waiting: a person has to approve.
    """

    text: str
    again: bool = True
    telling: bool = False
    answered: bool = True
    waiting: bool = False


async def join(
    token: Token,
    keys: NodeKeys,
    name: str,
    *,
    clock: RealmClock,
    entropy: Callable[[int], bytes],
    endpoints: Iterable[Place] = (),
    config: LanConfig | None = None,
    search_s: float = SEARCH_S,
    approval_s: float = APPROVAL_S,
    waits: Callable[[], None] = lambda: None,
    heard: Callable[[bytes], None] = lambda signed: None,
) -> Member:
    """Return us as a member of the token's realm.

    endpoints: (host, port) to try beside the token's hints.  config: its interfaces, mdns and overlay count.
    approval_s: how long a person is waited for.  waits: called when that begins.  heard: is given the signed lists that
    come with the answer, not verified.
    Raises UserError, which says what a person can do; ConfigError if name is not a name.
    """
    errand = _Errand(
        lambda: Joiner(token, keys, name, entropy=entropy),
        FrameType.JOIN,
        token.realm_id,
        "could not join",
        token.not_after,
    )
    errand.ask()  # refuses a bad name before the first connection
    search = _Search(errand, clock, entropy, config or LanConfig(), search_s, approval_s, waits, heard)
    return await search.run([*(parse_hint(hint) for hint in token.hints), *endpoints])


async def renew(
    member: Member,
    *,
    clock: RealmClock,
    entropy: Callable[[int], bytes],
    endpoints: Iterable[Place] = (),
    config: LanConfig | None = None,
    search_s: float = SEARCH_S,
) -> Member:
    """Return us with a renewed credential, from our issuer or from one in its place; ours may have ended.

    endpoints: (host, port) to try beside what mDNS finds.  Raises UserError, which says what a person can do.
    """
    errand = _Errand(
        lambda: Renewer(member, entropy=entropy), FrameType.RENEW, member.realm_id, "could not be renewed", None
    )
    return await _Search(errand, clock, entropy, config or LanConfig(), search_s).run(list(endpoints))


class _Errand(NamedTuple):
    """What the issuer is looked for for.  ends_at: unix seconds, of an invitation."""

    ask: Callable[[], Joiner | Renewer]
    frame: FrameType
    realm_id: RealmId
    failure: str
    ends_at: int | None


class _Search:
    """One search for the issuer."""

    def __init__(
        self,
        errand: _Errand,
        clock: RealmClock,
        entropy: Callable[[int], bytes],
        config: LanConfig,
        search_s: float,
        approval_s: float = APPROVAL_S,
        waits: Callable[[], None] = lambda: None,
        heard: Callable[[bytes], None] = lambda signed: None,
    ) -> None:
        self._approval_s = approval_s
        self._heard = heard
        self._waits = waits
        self._errand = errand
        self._clock = clock
        self._entropy = entropy
        self._config = config
        self._search_s = search_s
        self._context = client_context()
        self._slots = asyncio.Semaphore(TRY_COUNT_MAX)
        self._turns = asyncio.Lock()
        self._before: asyncio.Event | None = None  # the place asked last has said something, or is out of reach
        self._tries: dict[Place, asyncio.Task[None]] = {}
        self._found: dict[Place, None] = {}  # of the tries, those by mDNS
        self._left: dict[Place, None] = {}  # there was no room for them yet
        self._dropped: set[asyncio.Task[None]] = set()  # they end
        self._running = 0
        self._ended: asyncio.Queue[Member | None] = asyncio.Queue()  # None: a place was given up
        self._outcomes: dict[Place, _Outcome] = {}
        self._said: set[str] = set()  # in the log

    async def run(self, places: list[Place]) -> Member:
        """Return us as a member, or raise UserError."""
        discovery = self._discovery() if self._config.mdns else None
        if discovery is not None:
            await discovery.start()
        for place in places:
            if len(self._tries) - len(self._found) < PLACE_COUNT_MAX:
                self._try(place)
        try:
            return await self._wait()
        finally:
            tasks = [*self._tries.values(), *self._dropped]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if discovery is not None:
                await discovery.stop()

    def _discovery(self) -> Discovery:
        from conflux.control.lan.discovery import Discovery

        def found(instance: bytes, places: tuple[Place, ...]) -> None:
            for place in places:
                self._find(place)

        return Discovery(
            tag=realm_tag(self._errand.realm_id),
            instance=self._entropy(INSTANCE_BYTES),
            port=None,
            config=self._config,
            found=found,
            gone=lambda instance: None,
        )

    async def _wait(self) -> Member:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._search_s
        refused = waiting = False
        while True:
            if not self._config.mdns and self._running == 0 and self._ended.empty():
                raise self._failure()
            try:
                async with asyncio.timeout_at(ends_at):
                    member = await self._ended.get()
            except TimeoutError:
                raise self._failure() from None
            if member is not None:
                return member
            if not waiting and any(outcome.waiting for outcome in self._outcomes.values()):
                waiting = True
                ends_at = loop.time() + self._approval_s
                self._waits()
            if not refused and any(outcome.telling for outcome in self._outcomes.values()):
                refused = True
                ends_at = min(ends_at, loop.time() + AFTER_REFUSAL_S)

    def _find(self, place: Place) -> None:
        """Try a place that mDNS shows.  If there is no room, one that was tried in vain makes it, now or later."""
        if place in self._tries:
            return
        crowd = [each for each in self._found if each[0] == place[0]]
        if len(crowd) < HOST_PLACE_COUNT_MAX:
            crowd = list(self._found) if len(self._found) >= PLACE_COUNT_MAX else []
        if crowd:
            vain = {each: outcome for each in crowd if (outcome := self._outcomes.get(each)) is not None}
            if not vain:
                if len(self._left) < LEFT_COUNT_MAX:
                    self._left[place] = None
                return
            self._give_up(min(vain, key=lambda each: (vain[each].waiting, vain[each].telling, vain[each].answered)))
        self._found[place] = None
        self._try(place)

    def _give_up(self, place: Place) -> None:
        del self._found[place], self._outcomes[place]
        task = self._tries.pop(place)
        self._dropped.add(task)
        task.add_done_callback(self._dropped.discard)
        task.cancel()

    def _try(self, place: Place) -> None:
        if place not in self._tries:
            self._running += 1
            self._tries[place] = asyncio.create_task(self._ask_until_answered(place))

    async def _turn(self) -> asyncio.Event:
        """Wait for the place before this one to end, or a little; return what is to be set when this one has ended."""
        ended = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN_S_MAX), self._turns:
                before, self._before = self._before, ended
                if before is not None:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(NEXT_S):  # wait_for() may swallow a cancellation
                            await before.wait()
        return ended

    async def _ask_until_answered(self, place: Place) -> None:
        ended = None
        try:
            while True:
                await NAMES.prepare([place])  # before the slot: a resolver may not answer, and others need no names
                ended = await self._turn() if ended is None else ended
                async with self._slots:
                    member = await self._ask(place)
                ended.set()
                if member is not None:
                    self._ended.put_nowait(member)
                    return
                outcome = self._outcomes[place]
                if self._left:
                    left = next(iter(self._left))
                    del self._left[left]
                    self._find(left)  # perhaps in the place of this one
                if not outcome.again:
                    return
                self._ended.put_nowait(None)  # _wait() looks at the outcome
                await asyncio.sleep(approval_retry_s(self._entropy) if outcome.waiting else RETRY_S)
        finally:
            self._running -= 1
            self._ended.put_nowait(None)

    async def _ask(self, place: Place) -> Member | None:
        """Ask once; return us as a member, or None with the outcome noted."""
        try:
            async with asyncio.timeout(DIAL_S_MAX):
                addresses = await underlay_addresses((place,), self._config)
                return await race(addresses[:TRIED_COUNT_MAX], self._ask_at, lambda member: None)
        except (OSError, TimeoutError) as error:
            before = self._outcomes.get(place)
            if before is None or not before.answered:
                self._outcomes[place] = _Outcome(words_of(error), answered=False)
        except _Refused as error:
            self._note(place, f"refused: {printable(error.said)}")
            self._outcomes[place] = _Outcome(
                explain_refusal(error.said),
                again=error.said in (Reason.BUSY, Reason.WAITING),
                telling=error.said not in (Reason.BUSY, Reason.WAITING, Reason.WRONG_ISSUER),
                waiting=error.said == Reason.WAITING,
            )
        except RemoteProtocolError as error:
            self._note(place, str(error))
            self._outcomes[place] = _Outcome(
                explain_answer(error, self._clock),
                again=error.reason == Drop.CLOSED,
                telling=error.reason not in (Drop.CLOSED, Reason.WRONG_ISSUER),
            )
        return None

    def _note(self, place: Place, said: str) -> None:
        """Write what came of asking; the same of another address, or of another try, is no news."""
        if said not in self._said:
            self._said.add(said)
            log.info("%s port %d %s", *place, said)

    async def _ask_at(self, address: Address, answered: asyncio.Event) -> Member:
        """Ask at one address; raises OSError, RemoteProtocolError and _Refused."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                connection = await open_connection(address, self._context, answered)
                return await self._request(connection)
        finally:
            if connection is not None:
                connection.close("done")
                await connection.closed

    async def _request(self, connection: Connection) -> Member:
        asking = self._errand.ask()
        digest = peer_digest(connection.tls)
        _, greeting = await connection.read(FrameType.GREETING)
        Greeting.decode_untrusted(greeting)
        connection.send(self._errand.frame, asking.request(join_binding(digest, greeting)).encode())
        lists: list[bytes] = []
        kind, body = await connection.read(*_ANSWERS)
        while kind is FrameType.LIST and len(lists) < LIST_COUNT_MAX:
            lists.append(body)
            kind, body = await connection.read(*_ANSWERS)
        if kind is FrameType.JOIN_REFUSED:
            raise _Refused(JoinRefused.decode_untrusted(body).said)
        member = asking.accept_untrusted(body, self._clock)
        for signed in lists:
            self._heard(signed)
        return member

    def _failure(self) -> UserError:
        """Return what a person should read when the whole search has failed; NoAnswerError: later it may not."""
        kind = UserError if any(outcome.telling for outcome in self._outcomes.values()) else NoAnswerError
        return kind(self._words())

    def _words(self) -> str:
        answered = [(place, outcome) for place, outcome in self._outcomes.items() if outcome.answered]
        for (host, port), outcome in sorted(answered, key=lambda entry: not entry[1].telling)[:1]:
            return f"{self._errand.failure}: {outcome.text} (said {host} port {port})"
        tried = "; ".join(f"{host} port {port}: {outcome.text}" for (host, port), outcome in self._outcomes.items())
        where = ", ".join(filter(None, [tried, "mDNS found no node of the realm" if self._config.mdns else ""]))
        if self._errand.ends_at is not None and self._errand.ends_at <= self._clock.now_unix():
            where = ", ".join(filter(None, [where, "and the invitation has expired by this device's clock"]))
        who = "made the invitation" if self._errand.frame is FrameType.JOIN else "let this one in"
        return (
            f"{self._errand.failure}: no answer ({where or 'no address to try'}).  "
            f"Is the node that {who} up, and on this network?  {FIREWALL}"
        )


class _Refused(RemoteProtocolError):
    """The other end refused.  said: its word."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said
