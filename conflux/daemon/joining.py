"""Joining a realm with a token: find the issuer, ask it, save its answer.  For `conflux join` and `conflux up`.

The LAN and the broker that the token names are tried side by side; the first answer that holds is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import Awaitable, Callable, Sequence

from conflux.config.settings import Config
from conflux.control.admitting import NoAnswerError, RefusedByIssuer
from conflux.errors import ConfigError, RemoteProtocolError, UserError
from conflux.host.systemd import Notifier
from conflux.ids import format_node_id
from conflux.realm.invite import Token
from conflux.realm.listbook import ListBook
from conflux.realm.lists import SignedList
from conflux.realm.member import Member
from conflux.realm.name import new_node_name
from conflux.state.clock import realm_clock
from conflux.state.directory import StateDir
from conflux.state.list_files import ListFiles

log = logging.getLogger(__name__)

RETRY_S_MIN = 2.0  # between two searches, each of which listens for 15 s
RETRY_S_MAX = 60.0
START_S = 300.0  # chosen: far longer than the first search, which listens for 15 s
JOINING = "joining with the token of the configuration: no issuer has let this node in yet"
SAY_S = 600.0  # between two lines of the log about that


def wanted_name(config: Config, name: str | None) -> str:
    """Return the name to ask for: the one given, else the configured one, else this host's.  Raises ConfigError."""
    return new_node_name(name or config.node.name or host_label())


def configured_token(config: Config) -> Token | None:
    """Return the invitation in the configuration, or None if there is none.  Raises ConfigError."""
    if config.realm.token is None:
        return None
    try:
        return Token.parse(config.realm.token)
    except ConfigError as error:
        raise ConfigError(f"realm.token: {error}") from None


def host_label() -> str:
    """Return this host's name as a node name: "Pi_4.local" is "pi-4"."""
    first = socket.gethostname().split(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", first)[:63].strip("-") or "node"


def renew_late(config: Config, state: StateDir, member: Member) -> Member:
    """Return us with a credential of our issuer, or of one in its place, saved in state.  Raises UserError."""
    lan = config.control.lan
    if not lan.enabled:
        raise UserError("no control channel is enabled on which the issuer could be looked for")
    from conflux.control.lan.config import LanConfig
    from conflux.control.lan.join import renew  # TLS and, with mDNS, zeroconf: not needed before

    renewed = asyncio.run(
        renew(
            member,
            clock=realm_clock(state),
            entropy=os.urandom,
            endpoints=lan.peers,
            config=LanConfig(interfaces=lan.interfaces, mdns=lan.mdns),
        )
    )
    state.save_member(renewed)
    return renewed


async def join_with_token(
    config: Config,
    state: StateDir,
    token: Token,
    name: str,
    peers: tuple[tuple[str, int], ...] = (),
    waits: Callable[[], None] = lambda: None,
) -> Member:
    """Join, save the membership in state, and return it.  Raises UserError with what a person can do.

    peers: where on the LAN to ask, as (host, port), besides the hints in the token and the configured peers.
    waits: called once if a person has to approve, which can take an hour.
    """
    keys, clock, lists = state.make_node_keys(), realm_clock(state), list[bytes]()
    waits = _once(waits)

    def over_lan() -> Awaitable[Member]:
        from conflux.control.lan.config import LanConfig
        from conflux.control.lan.join import join  # TLS and, with mDNS, zeroconf: not needed by a member

        lan = config.control.lan
        where = LanConfig(interfaces=lan.interfaces, mdns=lan.mdns)
        places = (*peers, *lan.peers)
        return join(
            token,
            keys,
            name,
            clock=clock,
            entropy=os.urandom,
            endpoints=places,
            config=where,
            waits=waits,
            heard=lists.append,
        )

    def over_broker() -> Awaitable[Member]:
        from conflux.control.nats.join import join  # 2 MB and 50 ms that LANs do without

        return join(token, keys, name, clock=clock, entropy=os.urandom, waits=waits, heard=lists.append)

    by_broker = token.broker is not None and config.control.nats.enabled
    by_lan = config.control.lan.enabled or not by_broker
    member = await first_of([over_lan] * by_lan + [over_broker] * by_broker)
    state.save_member(member)
    _keep(state, member, lists, clock.now_unix)
    return member


async def join_when_answered(
    config: Config,
    state: StateDir,
    token: Token,
    notifier: Notifier,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Member:
    """Join as join_with_token() does, and try again as long as no issuer answers: it may start later than this board.

    A service manager is told that the start is done as soon as it takes a late issuer or a person to go on: else an
    installation or a boot, which waits for the start, would hang.

    pause: waits so many seconds.  Raises UserError once the issuer, or an answer, says that there is no use in it.
    """
    name, pause_s, said_at = wanted_name(config, None), RETRY_S_MIN, -SAY_S

    def approval() -> None:
        node = format_node_id(state.make_node_keys().node_id)
        text = f"waiting for approval as {name}, {node}; at the issuer: conflux realm approve {name}"
        log.info("%s", text)
        notifier.waiting(text)

    notifier.starting(START_S, "joining the realm")
    while True:
        try:
            return await join_with_token(config, state, token, name, waits=approval)
        except NoAnswerError as error:
            if time.monotonic() >= said_at + SAY_S:
                said_at = time.monotonic()
                log.warning("%s  This daemon stays up, and tries again until it answers.", error)
            notifier.waiting(JOINING)
        await pause(pause_s)
        pause_s = min(2 * pause_s, RETRY_S_MAX)


async def first_of(ways: Sequence[Callable[[], Awaitable[Member]]]) -> Member:
    """Return us as a member by the way that succeeds first.  Raises UserError with what every way says."""
    tasks = [asyncio.ensure_future(way()) for way in ways]
    said: list[UserError] = []
    try:
        for ended in asyncio.as_completed(tasks):
            try:
                return await ended
            except RefusedByIssuer:
                raise  # it would say so on every way
            except UserError as error:
                said.append(error)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if len(said) == 1:
        raise said[0]
    kind = NoAnswerError if all(isinstance(error, NoAnswerError) for error in said) else UserError
    raise kind("; ".join(dict.fromkeys(str(error) for error in said)))


def _once(waits: Callable[[], None]) -> Callable[[], None]:
    """Return what calls waits the first time only: both ways may find that a person has to approve."""
    calls = iter((waits,))

    def call() -> None:
        next(calls, lambda: None)()

    return call


def _keep(state: StateDir, member: Member, lists: Sequence[bytes], clock: Callable[[], int]) -> None:
    """Keep the signed lists that came with the answer and hold; the others, members have too."""
    book = ListBook(member.anchor, clock, save=ListFiles(state).save)
    for data in lists:
        with contextlib.suppress(RemoteProtocolError):
            book.learn(SignedList.decode_untrusted(data))
