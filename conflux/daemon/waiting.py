"""A daemon that waits: for a realm to be in, or for the one who can let it in.  Meanwhile its socket answers.

It holds no lock of the state directory, so that `conflux join`, `conflux realm create` and others can make this node a
member, and takes note of that by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from conflux.api.server import ApiServer, Arguments, Operation
from conflux.config.settings import Config
from conflux.daemon.ending import Ending
from conflux.errors import StateError, UserError
from conflux.host.lookers import looking_group
from conflux.host.systemd import Notifier
from conflux.state.directory import StateDir

log = logging.getLogger(__name__)

LOOK_S = 1.0  # between two looks for a membership: each is one call of the kernel
NO_REALM = "waiting for a realm: conflux join TOKEN, or conflux realm create NAME"

T = TypeVar("T")


def for_realm(config: Config, notifier: Notifier) -> bool:
    """Return True once this node is a member, or has a token to become one; False if it was told to stop before.

    It is of a module of its own, so that a board that waits for months loads little.
    """
    state = StateDir.open(config.node.state_dir, create=True)
    require_owner(state)
    if state.has_realm() or config.realm.token is not None:
        return True
    log.info("%s", NO_REALM)
    return meanwhile(config, NO_REALM, _membership(state, notifier), notifier) is not None


async def _membership(state: StateDir, notifier: Notifier) -> bool:
    notifier.waiting(NO_REALM)
    while True:
        if state.has_realm():
            with contextlib.suppress(StateError):  # the command that writes it is not done yet
                state.lock()
                state.close()
                return True
        await asyncio.sleep(LOOK_S)


def require_owner(state: StateDir) -> None:
    """Raise StateError unless the state directory is ours.

    Root without capabilities may not write the files of another user: without this check the daemon would fail at its
    first renewal.
    """
    owner = state.path.stat().st_uid
    if owner != os.geteuid():
        raise StateError(f"{state.path}: belongs to user {owner}, not {os.geteuid()}; run as its owner, or chown it")


def meanwhile(config: Config, text: str, work: Coroutine[Any, Any, T], notifier: Notifier) -> T | None:
    """Return what work comes to, or None if the daemon was told to stop; until then its socket answers with text."""
    return asyncio.run(_meanwhile(config, text, work, notifier))


async def _meanwhile(config: Config, text: str, work: Coroutine[Any, Any, T], notifier: Notifier) -> T | None:
    ending = Ending()
    ending.stop_on_signals()

    async def down(arguments: Arguments) -> AsyncIterator[object]:
        ending.stop()
        await asyncio.Event().wait()  # until the socket closes with this daemon
        yield None

    async def refuse(arguments: Arguments) -> object:
        raise UserError(text)

    server = ApiServer(
        config.socket,
        {"down": Operation(stream=down)},
        ending.fail,
        Counter(),
        otherwise=Operation(call=refuse, looks=True),
        group=looking_group(),
    )
    try:
        await server.start()
    except BaseException:
        work.close()
        raise
    tasks = [asyncio.ensure_future(each) for each in (ending.wait(), _feed(notifier))]
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait((working, tasks[0]), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, *tasks):
            task.cancel()
        await asyncio.gather(working, *tasks, return_exceptions=True)
        await server.stop()


async def _feed(notifier: Notifier) -> None:
    while notifier.watchdog_s is not None:
        notifier.alive()
        await asyncio.sleep(notifier.watchdog_s)
