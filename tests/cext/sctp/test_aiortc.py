"""Our association against an unmodified aiortc, with packets passed in memory."""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport
from kit.sctp import PORT, Association

DEADLINE_S = 20
SIZES = (1, 2, 3, 4, 1131, 1132, 1133, 1160, 1200, 5000, 16384, 65535, 65536)
DCEP = 50


class Dtls:
    """As much of a DTLS transport as aiortc's SCTP needs."""

    state = "connected"
    _role = "server"

    def __init__(self, link: Link) -> None:
        self._link = link

    def _register_data_receiver(self, _: RTCSctpTransport) -> None: ...

    def _unregister_data_receiver(self, _: RTCSctpTransport) -> None: ...

    async def _send_data(self, data: bytes) -> None:
        self._link.receive(data)


class Link:
    """Our end, aiortc's end, and the loop's clock.  drop(packet): whether a packet of ours is lost."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.ours = Association(library, 1)
        self.drop: Callable[[bytes], bool] = lambda _: False
        self.changed = asyncio.Event()
        self._dtls: Any = Dtls(self)
        self.theirs = RTCSctpTransport(self._dtls, PORT)
        self._wire: asyncio.Queue[bytes] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = [asyncio.create_task(self._carry())]

    def receive(self, packet: bytes) -> None:
        self.ours.receive(packet, time.monotonic_ns())
        self.push()
        self.changed.set()

    def push(self) -> None:
        """Send what may go now, and wake up for the rest."""
        now = time.monotonic_ns()
        if self.ours.next_timeout <= now:
            self.ours.handle_timeout(now)
        for packet in self.ours.packets(now):
            if not self.drop(packet):
                self._wire.put_nowait(packet)
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(self.ours.next_timeout - now, 0) / 1e9
        self._timer = asyncio.get_running_loop().call_later(min(delay_s, 1), self.push)

    async def _carry(self) -> None:
        while True:
            await self.theirs._handle_data(await self._wire.get())
            self.changed.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not true():
                self.changed.clear()
                await self.changed.wait()

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.theirs.stop()
        if self._timer is not None:
            self._timer.cancel()
        self.ours.delete()


@asynccontextmanager
async def opened(library: ctypes.CDLL, *, begin: str = "both") -> AsyncIterator[Link]:
    link = Link(library)
    try:
        if begin != "theirs":
            link.ours.connect(time.monotonic_ns())
            link.push()
        if begin != "ours":
            await link.theirs.start(RTCSctpCapabilities(65536), PORT)
        else:
            link.theirs._remote_port = PORT
        await link.until(lambda: link.ours.opened == 1 and link.theirs.state == "connected")
        yield link
    finally:
        await link.stop()


def run(coroutine: Awaitable[None]) -> None:
    async def main() -> None:
        await coroutine

    asyncio.run(main())


def channel_of(link: Link, number: int, *, ordered: bool = True) -> tuple[RTCDataChannel, list[bytes]]:
    came: list[bytes] = []
    channel = RTCDataChannel(
        link.theirs, RTCDataChannelParameters(label="x", negotiated=True, id=number, ordered=ordered), False
    )
    link.theirs._data_channels[number] = channel
    channel._setReadyState("open")
    channel.on("message", came.append)
    return channel, came


def body(size: int, seed: int) -> bytes:
    return bytes((seed + at * 7 + (at >> 8)) % 256 for at in range(size))


@pytest.mark.parametrize("begin", ["both", "ours", "theirs"])
def test_either_side_or_both_begin(sctp: ctypes.CDLL, begin: str) -> None:
    async def scenario() -> None:
        async with opened(sctp, begin=begin) as link:
            assert link.ours.state.open

    run(scenario())


@pytest.mark.parametrize("unordered", [False, True])
@pytest.mark.parametrize("lost", [0, 10])
def test_messages_of_every_size_pass_both_ways(sctp: ctypes.CDLL, unordered: bool, lost: int) -> None:
    async def scenario() -> None:
        async with opened(sctp) as link:
            channel, came = channel_of(link, 4, ordered=not unordered)
            count = 0

            def drop(_: bytes) -> bool:
                nonlocal count
                count += 1
                return lost != 0 and count % lost == 0

            link.drop = drop
            sent = [body(size, index) for index, size in enumerate(SIZES)]
            for data in sent:
                assert link.ours.send(data, time.monotonic_ns(), stream=4, unordered=unordered)
                channel.send(data)
            link.push()
            await link.until(lambda: len(came) == len(sent) and len(link.ours.messages) == len(sent))
            arrived = [message.data for message in link.ours.messages]
            if unordered:
                assert sorted(came) == sorted(arrived) == sorted(sent)
            else:
                assert came == arrived == sent
            assert {message.unordered for message in link.ours.messages} == {unordered}
            assert link.ours.counts.dropped_malformed == 0

    run(scenario())


def test_the_largest_packet_is_probed_for(sctp: ctypes.CDLL) -> None:
    async def scenario() -> None:
        async with opened(sctp) as link:
            _, came = channel_of(link, 4)
            assert link.ours.send(bytes(20_000), time.monotonic_ns(), stream=4)
            link.push()
            await link.until(lambda: link.ours.state.packet_bytes == 1400)
            await link.until(lambda: came == [bytes(20_000)])

    run(scenario())


def test_channels_are_closed_from_both_sides(sctp: ctypes.CDLL) -> None:
    async def scenario() -> None:
        async with opened(sctp) as link:
            first, came = channel_of(link, 4)
            second, _ = channel_of(link, 6)
            assert link.ours.send(b"before", time.monotonic_ns(), stream=4)
            assert link.ours.reset_streams([4], time.monotonic_ns())
            link.push()
            await link.until(lambda: (False, True, [4]) in link.ours.resets and (True, True, [4]) in link.ours.resets)
            assert came == [b"before"]
            await link.until(lambda: first.readyState == "closed")

            second.send(b"last")
            second.close()
            await link.until(lambda: (True, True, [6]) in link.ours.resets)
            assert [message.data for message in link.ours.messages] == [b"last"]
            assert link.ours.reset_streams([6], time.monotonic_ns())
            link.push()
            await link.until(lambda: second.readyState == "closed")

            # The stream begins again on both ends, with SSN 0.
            _, again = channel_of(link, 4)
            assert link.ours.send(b"anew", time.monotonic_ns(), stream=4)
            link.push()
            await link.until(lambda: again == [b"anew"])

    run(scenario())


def test_an_expired_message_is_skipped_by_forward_tsn(sctp: ctypes.CDLL) -> None:
    async def scenario() -> None:
        async with opened(sctp) as link:
            _, came = channel_of(link, 4)
            link.drop = lambda packet: packet[12] == 0 and len(packet) > 500
            for index in range(20):
                data = body(900 if index % 2 else 20, index)
                assert link.ours.send(data, time.monotonic_ns(), stream=4, reliability=1, reliability_value=1)
            link.push()
            await link.until(lambda: link.ours.state.inflight_bytes == 0 and link.ours.state.unsent_bytes == 0)
            link.drop = lambda _: False
            assert link.ours.send(b"end", time.monotonic_ns(), stream=4)
            link.push()
            await link.until(lambda: came[-1:] == [b"end"])
            assert link.ours.counts.messages_abandoned > 0

    run(scenario())


def test_theirs_aborts_and_ours_says_goodbye(sctp: ctypes.CDLL) -> None:
    async def theirs_aborts() -> None:
        async with opened(sctp) as link:
            await link.theirs.stop()
            await link.until(lambda: link.ours.closed == ["aborted"])

    async def ours_shuts_down() -> None:
        async with opened(sctp) as link:
            _, came = channel_of(link, 2)
            assert link.ours.send(b"x" * 30000, time.monotonic_ns(), stream=2)
            link.ours.close(time.monotonic_ns())
            link.push()
            await link.until(lambda: link.ours.closed == ["asked"] and link.theirs.state == "closed")
            assert len(came) == 1

    run(theirs_aborts())
    run(ours_shuts_down())
