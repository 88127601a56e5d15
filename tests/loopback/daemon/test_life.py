"""A daemon's life: its parts come up in order, and go down in order whatever becomes of one of them."""

from __future__ import annotations

import asyncio
import os
import signal
from types import SimpleNamespace

import pytest

from conflux.control.channel import ChannelState
from conflux.daemon import daemon, ending
from conflux.daemon.daemon import Daemon
from conflux.daemon.ending import EXIT_BUG, EXIT_DONE, Ending
from conflux.host.systemd import Notifier


class Life:
    """A daemon of parts that only note what is done with them.  broken: a part that fails when it is stopped."""

    def __init__(self, broken: str = "", hangs: str = "", refuses: str = "") -> None:
        self.noted: list[str] = []
        self.ending = Ending()
        self.started, self.stopping = asyncio.Event(), asyncio.Event()
        self._broken, self._hangs, self._refuses = broken, hangs, refuses
        self._tasks: list[asyncio.Task] = []
        note = self._noting
        carrier = SimpleNamespace(close=note("links closed", "links"))
        self.pump = SimpleNamespace(
            inputs=lambda channel: None,
            drops={},
            touch=lambda: None,
            start=self._start_task,
            close=note("streams closed", "streams"),
        )
        member = SimpleNamespace(
            name="gate", anchor=SimpleNamespace(name="home"), addresses=("fd00::1",), node_id=bytes(16)
        )
        channel = SimpleNamespace(
            name="lan",
            state=ChannelState(True, "listening"),
            start=note("channel up", "lan up"),
            stop=note("channel down", "lan"),
        )
        self.daemon = Daemon(
            SimpleNamespace(
                pump=self.pump,
                node=SimpleNamespace(
                    member=member, own=member.addresses, plane=SimpleNamespace(erase=self._plain("keys erased"))
                ),
                channels=[channel],
                mover=SimpleNamespace(
                    carrier=carrier, start=self._plain("mover started"), stop=self._plain("mover stopped")
                ),
                api=SimpleNamespace(start=note("api up", "api up"), stop=note("api down", "api")),
                renewal=SimpleNamespace(check=lambda now: self.started.set()),
                issuing=SimpleNamespace(hand_due=lambda now: None),
                brokering=SimpleNamespace(run=asyncio.Event().wait),
                twins=SimpleNamespace(watch=asyncio.Event().wait),
                late=None,
                usage=SimpleNamespace(
                    run=asyncio.Event().wait, look=self._plain("bytes counted"), keep=self._plain("bytes kept")
                ),
                health=SimpleNamespace(run=asyncio.Event().wait),
                tun=SimpleNamespace(close=self._plain("device removed")),
                state=SimpleNamespace(close=self._plain("state released")),
            ),
            self.ending,
            Notifier({}),
        )

    def _plain(self, text: str):
        def note() -> None:
            self.noted.append(text)
            if text == self._broken:
                raise OSError(text)

        return note

    def _noting(self, text: str, part: str):
        async def note(*_: object) -> None:
            if part == self._refuses:
                raise OSError(f"{part} is refused")
            if part == self._hangs:
                self.stopping.set()
                await asyncio.Event().wait()
            self.noted.append(text)
            if part == self._broken:
                raise KeyError(part)

        return note

    def _start_task(self, coroutine, name: str) -> None:
        self._tasks.append(asyncio.create_task(coroutine, name=name))

    async def run(self) -> int:
        """Run the daemon to its end, and return the exit code."""
        try:
            return await self.daemon.run()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


UP = ["channel up", "api up", "mover started"]
DOWN = [
    "streams closed",
    "links closed",
    "channel down",
    "bytes counted",
    "keys erased",
    "mover stopped",
    "device removed",
    "bytes kept",
    "state released",
    "api down",
]


@pytest.fixture(autouse=True)
def _heap_as_it_is(monkeypatch):
    """Leave the collector of the test run alone."""
    monkeypatch.setattr(daemon.rest, "freeze", lambda: None)  # type: ignore[attr-defined]


async def ended(life: Life, end=lambda life: life.ending.stop()) -> int:
    """Return the exit code of a daemon that is ended once it is up."""
    running = asyncio.create_task(life.run())
    await life.started.wait()
    end(life)
    return await running


async def test_parts_come_up_and_go_down_in_order() -> None:
    life = Life()
    assert await ended(life) == EXIT_DONE
    assert life.noted == UP + DOWN


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_daemon_cleanly(number: signal.Signals) -> None:
    life = Life()
    life.ending.stop_on_signals()
    assert await ended(life, lambda life: os.kill(os.getpid(), number)) == EXIT_DONE
    assert life.noted == UP + DOWN


def test_a_hangup_between_a_daemon_that_waits_and_one_that_runs_ends_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait() -> None:
        Ending().stop_on_signals()

    monkeypatch.setattr(ending, "has_terminal", lambda: False)
    before = signal.getsignal(signal.SIGHUP)
    try:
        asyncio.run(wait())
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("part", ["streams", "links", "lan", *DOWN[3:-1], "api"])
async def test_a_part_that_fails_to_stop_keeps_no_other_up_and_is_a_bug(part: str) -> None:
    life = Life(broken=part)
    assert await ended(life) == EXIT_BUG
    assert life.noted == UP + DOWN


@pytest.mark.parametrize("part", ["streams", "links", "lan", "api"])
async def test_a_part_that_hangs_keeps_no_other_up(part: str, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(daemon, "STOP_TIMEOUT_S", 0.01)
    life = Life(hangs=part)
    assert await ended(life) == EXIT_DONE
    assert len(life.noted) == len(UP + DOWN) - 1
    assert f"{part} did not end within 0.01 s" in caplog.text


async def test_an_end_that_is_cancelled_erases_the_keys() -> None:
    life = Life(hangs="streams")
    running = asyncio.create_task(life.run())
    await life.started.wait()
    life.ending.stop()
    await life.stopping.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert life.noted == UP + DOWN[3:-1]


async def test_after_a_bug_the_streams_are_not_asked_to_say_goodbye() -> None:
    life = Life()
    assert await ended(life, lambda life: life.ending.fail(KeyError("a bug"))) == EXIT_BUG
    assert life.noted == UP + DOWN[1:]


@pytest.mark.parametrize(("part", "up"), [("lan up", []), ("api up", UP[:1])])
async def test_a_part_that_cannot_start_takes_down_what_is_up(part: str, up: list[str]) -> None:
    life = Life(refuses=part)
    with pytest.raises(OSError, match="is refused"):
        await life.run()
    assert life.noted == up + DOWN
