"""One connection, on a transport that keeps what is written, and a clock that the test sets: pings, bounds, floods."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from conflux.control.lan.config import WRITE_BUFFER_BYTES_MAX
from conflux.control.lan.connection import Connection
from conflux.control.lan.frame import BODY_BYTES_MAX, FrameType, encode_frame
from conflux.control.lan.ration import FRAME_BURST, FRAME_RATE, HELD_S_MAX, TALK_BURST
from conflux.errors import RemoteProtocolError


class Pipe(asyncio.Transport):
    """A transport that keeps everything that is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.delivered: list[bytes] = []
        self.held = 0
        self.aborted = False
        self.paused = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.held

    def abort(self) -> None:
        self.aborted = True


class Clockwork(asyncio.SelectorEventLoop):
    """An event loop whose time the test sets: timers run when time() has come to them."""

    offset = 0.0

    def time(self) -> float:
        return self.offset


def on_clockwork(scene: Callable[[Clockwork, Connection, Pipe], Awaitable[None]]) -> None:
    """Run a scene on a connection after its handshake, in virtual time; what arrives is in pipe.delivered."""

    async def whole() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Clockwork)
        connection, pipe = Connection(), Pipe()
        connection.connection_made(pipe)
        connection.run(pipe.delivered.append)
        await scene(loop, connection, pipe)

    with asyncio.Runner(loop_factory=Clockwork) as runner:
        runner.run(whole())


async def timers() -> None:
    """Let timers that are due run."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_silent_peer_is_pinged_and_given_up_after_45_seconds() -> None:
    async def scene(loop: Clockwork, connection: Connection, pipe: Pipe) -> None:
        pings = []
        for _ in range(60):
            loop.offset += 1.0
            await timers()
            pings.append(len(pipe.written))
            if pipe.aborted:
                break
        assert pipe.written == [encode_frame(FrameType.PING)]
        assert pings.index(1) + 1 == 32
        assert (len(pings), connection.reason) == (45, "silent")

    on_clockwork(scene)


def test_talking_peer_is_not_pinged_and_a_ping_is_answered() -> None:
    async def scene(loop: Clockwork, connection: Connection, pipe: Pipe) -> None:
        for _ in range(10):
            loop.offset += 31.0
            await timers()
            connection.data_received(encode_frame(FrameType.PONG))
        assert pipe.written == []
        connection.data_received(encode_frame(FrameType.PING))
        assert pipe.written == [encode_frame(FrameType.PONG)]
        connection.abort("done")

    on_clockwork(scene)


@pytest.mark.parametrize("answers", [True, False])
def test_probed_peer_has_two_seconds_to_give_a_sign(answers: bool) -> None:
    async def scene(loop: Clockwork, connection: Connection, pipe: Pipe) -> None:
        for _ in range(3):
            connection.probe()
        assert pipe.written == [encode_frame(FrameType.PING)]
        loop.offset += 1.0
        if answers:
            connection.data_received(encode_frame(FrameType.PONG))
        loop.offset += 1.1
        await timers()
        assert pipe.aborted is not answers
        connection.abort("done")

    on_clockwork(scene)


def test_peer_that_does_not_keep_up_is_dropped() -> None:
    async def scene(loop: Clockwork, connection: Connection, pipe: Pipe) -> None:
        assert connection.send(FrameType.ENVELOPE, bytes(1000))
        pipe.held = WRITE_BUFFER_BYTES_MAX
        assert not connection.send(FrameType.ENVELOPE, bytes(1000))
        assert pipe.aborted
        assert connection.reason == "slow"
        assert not connection.send(FrameType.ENVELOPE, b"")

    on_clockwork(scene)


async def test_before_the_handshake_ends_one_frame_is_cut_and_the_rest_waits() -> None:
    connection, pipe = Connection(), Pipe()
    connection.connection_made(pipe)
    stream = encode_frame(FrameType.PING) * 20_000
    connection.data_received(stream)
    assert (len(connection._reader._buffer), pipe.paused, connection.reason) == (len(stream), True, "")
    with pytest.raises(RemoteProtocolError, match="malformed: PING instead of HELLO"):
        await connection.read(FrameType.HELLO)
    connection.abort("done")


async def test_wrong_frame_before_the_handshake_is_refused_by_its_head() -> None:
    connection, pipe = Connection(), Pipe()
    connection.connection_made(pipe)
    connection.data_received(encode_frame(FrameType.ENVELOPE, bytes(BODY_BYTES_MAX))[:3])
    with pytest.raises(RemoteProtocolError, match="malformed: ENVELOPE instead of HELLO"):
        await connection.read(FrameType.HELLO)
    connection.abort("done")


async def test_what_follows_the_handshake_at_once_is_delivered_after_it() -> None:
    connection, pipe = Connection(), Pipe()
    connection.connection_made(pipe)
    frames = [(FrameType.WELCOME, b"hello"), (FrameType.ENVELOPE, b"one"), (FrameType.ENVELOPE, b"two")]
    connection.data_received(b"".join(encode_frame(*frame) for frame in frames))
    assert await connection.read(FrameType.WELCOME) == (FrameType.WELCOME, b"hello")
    connection.run(pipe.delivered.append)
    assert (pipe.delivered, pipe.paused) == ([b"one", b"two"], False)
    connection.abort("done")


def test_no_turn_handles_more_than_sixteen_frames_and_reading_waits_meanwhile() -> None:
    async def scene(loop: Clockwork, connection: Connection, pipe: Pipe) -> None:
        connection.data_received(encode_frame(FrameType.ENVELOPE, b"x") * 40)
        assert (len(pipe.delivered), pipe.paused) == (16, True)
        connection.data_received(encode_frame(FrameType.ENVELOPE, b"y"))  # TLS had it already
        assert len(pipe.delivered) == 16
        await asyncio.sleep(0)
        assert (len(pipe.delivered), pipe.paused) == (32, True)
        await asyncio.sleep(0)
        assert (len(pipe.delivered), pipe.delivered[-1], pipe.paused) == (41, b"y", False)
        connection.abort("done")

    on_clockwork(scene)


async def turns() -> None:
    """Let everything happen that needs no time."""
    for _ in range(60):
        await asyncio.sleep(0)


def test_frames_above_a_connections_budget_wait_and_end_it_after_half_a_minute() -> None:
    async def scene(loop: Clockwork, connection: Connection, pipe: Pipe) -> None:
        connection.data_received(encode_frame(FrameType.ENVELOPE, b"x") * 8000)
        counts = []
        while not pipe.aborted and len(counts) < 400:
            await turns()
            counts.append(len(pipe.delivered))
            loop.offset += 0.1
        assert counts[0] == pytest.approx(FRAME_BURST, abs=5)
        assert counts[100] - counts[50] == pytest.approx(5 * FRAME_RATE, abs=20)
        assert connection.reason == "flood"
        assert len(counts) == pytest.approx(HELD_S_MAX * 10, abs=5)

    on_clockwork(scene)


def test_a_burst_above_the_budget_is_heard_in_full_and_ends_nothing() -> None:
    async def scene(loop: Clockwork, connection: Connection, pipe: Pipe) -> None:
        for _ in range(3):  # ten seconds of each, and ten of rest
            connection.data_received(encode_frame(FrameType.ENVELOPE, b"x") * 2800)
            assert pipe.paused
            for _ in range(200):
                await turns()
                loop.offset += 0.1
            assert not pipe.paused
        assert (len(pipe.delivered), connection.reason) == (3 * 2800, "")
        connection.abort("done")

    on_clockwork(scene)


@pytest.mark.parametrize("kind", [FrameType.PING, FrameType.PONG, FrameType.BRIDGE])
def test_small_talk_without_end_ends_the_connection(kind: FrameType) -> None:
    async def scene(loop: Clockwork, connection: Connection, pipe: Pipe) -> None:
        connection.data_received(encode_frame(kind, b"\1" if kind is FrameType.BRIDGE else b"") * 20_000)
        await turns()
        assert (pipe.aborted, connection.reason) == (True, "flood")
        assert len(pipe.written) <= TALK_BURST

    on_clockwork(scene)
