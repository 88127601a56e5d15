"""The daemon: starts what build.py made, runs until something ends it, and takes it down again in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any

from conflux.api.server import NoRoomError
from conflux.control.lan.channel import LanChannel
from conflux.daemon import rest, roaming
from conflux.daemon.build import Running
from conflux.daemon.ending import EXIT_DONE, Ending
from conflux.daemon.renewal import CHECK_S
from conflux.errors import StateError
from conflux.host.systemd import Notifier
from conflux.ids import format_node_id
from conflux.shell.pump import Pump

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0  # per part; a part that takes longer ends with the process
PACKAGE = "conflux"
# Code of ours that bytes of peers can make raise: an exception there is counted, and the link ends.
UNTRUSTED = (
    "conflux.carrier",  # drives aiortc and aioice, whose exceptions come out of its frames
    "conflux.datapath.native._engine",  # raises on a call for what is gone, as a link's task may make while it ends
)


class Daemon:
    """One running node with its shells."""

    def __init__(self, running: Running, ending: Ending, notifier: Notifier) -> None:
        self._running = running
        self._ending = ending
        self._notifier = notifier

    async def run(self) -> int:
        """Come up, stay until something ends the daemon, go down.  Returns the exit code."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._loop_exception)
        try:
            await self._start()
            await self._ending.wait()
        finally:
            self._notifier.stopping()
            await self._stop()
        return self._ending.exit_code

    def _loop_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End the daemon for an exception that escaped in our code; count and log one of a library."""
        error = context.get("exception")
        if error is not None and is_ours(error):
            self._ending.fail(error)
            return
        self._running.pump.drops["library-exception"] += 1
        log.warning("%s", context.get("message", "a library failed"), exc_info=error)

    # ── up and down ──

    async def _start(self) -> None:
        running, pump = self._running, self._running.pump
        for channel in running.channels:
            await channel.start(pump.inputs(channel))
        try:
            await running.api.start()
        except NoRoomError as error:  # a node that passes packets is worth more than one that can be asked
            log.error("%s: no command reaches this daemon; set api.socket to a path in /run", error)
        running.mover.start()
        pump.touch()
        pump.start(self._tend(), "membership")
        pump.start(running.usage.run(), "usage")
        pump.start(running.brokering.run(), "broker")
        pump.start(running.health.run(), "health")
        pump.start(running.twins.watch(), "twins")
        pump.start(roaming.watch(self._run_from_addresses), "addresses")
        if running.late is not None:
            pump.start(running.late.run(), "late renewal")
        if self._notifier.watchdog_s is not None:
            pump.start(self._feed_watchdog(self._notifier.watchdog_s), "watchdog")
        rest.freeze()
        member = running.node.member
        text = f"{member.name} in realm {member.anchor.name} at {', '.join(map(str, running.node.own))}"
        log.info("up: %s (%s)", text, format_node_id(member.node_id))
        for channel in running.channels:
            log.info("%s: %s", channel.name, channel.state.detail)
        self._notifier.ready(text)

    async def _stop(self) -> None:
        running = self._running
        try:
            if self._ending.exit_code == EXIT_DONE:
                await self._within(running.pump.close(), "streams")
            await self._within(running.mover.carrier.close(), "links")
            for channel in running.channels:
                await self._within(channel.stop(), channel.name)
        finally:  # also if this task is cancelled
            self._erase()
        await self._within(running.api.stop(), "api")  # last: `conflux down` waits for its connection to end
        log.info("down")

    def _erase(self) -> None:
        """Let go of all that does not have to be waited for.  The disk comes after the keys, as it may fail or hang."""
        running = self._running
        steps = (
            running.usage.look,  # while the engine is there to be asked
            running.node.plane.erase,
            running.mover.stop,
            running.tun.close,
            running.usage.keep,
            running.state.close,
        )
        for step in steps:
            try:
                step()
            except Exception as error:  # noqa: BLE001  # as in _within()
                self._ending.fail(error)

    async def _within(self, work: Awaitable[None], what: str) -> None:
        """Give one part its time to stop; whether or not it fails, the next parts are stopped too."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await work
        except TimeoutError:
            log.warning("%s did not end within %g s", what, STOP_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001  # the parts after this one must go down too
            self._ending.fail(error)

    # ── tasks ──

    def _run_from_addresses(self) -> Iterator[Callable[[], None]]:
        """Yield how to tell each part that runs from addresses of this host that one of them changed."""
        yield self._running.mover.carrier.address_changed
        for channel in self._running.channels:
            if isinstance(channel, LanChannel):
                yield channel.address_changed

    async def _feed_watchdog(self, interval_s: float) -> None:
        while True:
            self._notifier.alive()
            await asyncio.sleep(interval_s)

    async def _tend(self) -> None:
        while True:
            self._running.renewal.check(now=Pump.now())
            self._running.revocation.settle()  # a person may have signed for a board in the place of another
            self._hand_due()
            await asyncio.sleep(CHECK_S)

    def _hand_due(self) -> None:
        try:
            self._running.issuing.hand_due(now=Pump.now())
        except StateError as error:
            log.error("what was changed for members is not handed over: %s", error)


def is_ours(error: BaseException) -> bool:
    """Say whether an exception that escaped is a bug of ours: it was raised in this package, outside UNTRUSTED."""
    module = _module_of(error.__traceback__)
    return _within_package(module, PACKAGE) and not any(_within_package(module, package) for package in UNTRUSTED)


def _module_of(traceback: TracebackType | None) -> str:
    """Return the module whose code raised: that of the innermost frame; "" if there is none."""
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return str(traceback.tb_frame.f_globals.get("__name__", ""))


def _within_package(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")
