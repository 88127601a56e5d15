"""What a TCP connection moved, by the kernel's count."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from conflux.host.metering import Meter
from conflux.usage.tally import TCP6_HEADER_BYTES, TCP_HEADER_BYTES, Kind, Other, Tally

SENT = 100_000


@pytest.mark.parametrize(
    ("family", "address", "header"),
    [(socket.AF_INET, "127.0.0.1", TCP_HEADER_BYTES), (socket.AF_INET6, "::1", TCP6_HEADER_BYTES)],
)
def test_a_meter_adds_payload_and_headers_once(family: int, address: str, header: int) -> None:
    tally = Tally()
    with socket.create_server((address, 0), family=family) as server:
        with socket.create_connection(server.getsockname()[:2]) as ours, server.accept()[0] as theirs:
            meter = Meter(ours.fileno(), Other.BROKER, tally)
            opened = tally.take()[Other.BROKER][Kind.SET_UP]
            assert header <= opened.sent <= 3 * header
            meter.settle()
            meter.message()
            ours.sendall(bytes(SENT))
            left = SENT
            while left:
                left -= len(theirs.recv(left))
            theirs.sendall(b"thanks")
            assert ours.recv(16) == b"thanks"
            passed = tally.take()[Other.BROKER][Kind.CONTROL]
            assert SENT < passed.sent < SENT + 120 * header
            assert 6 + header <= passed.received < 6 + 120 * header
            assert tally.take() == {}
            meter.close()
        assert tally.take() == {}


def test_pings_alone_are_keep_alive_and_beside_messages_only_their_own_bytes() -> None:
    tally = Tally()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as ours,
        server.accept()[0] as theirs,
    ):
        meter = Meter(ours.fileno(), Other.BROKER, tally)
        meter.settle()
        tally.take()
        ours.sendall(b"ping")
        meter.ping(sent=4)
        assert theirs.recv(8) == b"ping"
        assert set(tally.take()[Other.BROKER]) == {Kind.KEEP_ALIVE}
        ours.sendall(b"ping" + bytes(5000))
        meter.ping(sent=4)
        meter.message()
        theirs.recv(5004, socket.MSG_WAITALL)
        passed = tally.take()[Other.BROKER]
        assert passed[Kind.KEEP_ALIVE].sent < 100
        assert passed[Kind.CONTROL].sent > 4900


def test_what_is_no_tcp_socket_is_counted_as_nothing() -> None:
    tally = Tally()
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        meter = Meter(ours.fileno(), Other.BROKER, tally)
        assert tally.take() == {}
        meter.close()
    meter.count()
    assert tally.take() == {}


def test_a_descriptor_that_another_socket_has_now_is_not_asked() -> None:
    tally = Tally()
    with socket.create_server(("127.0.0.1", 0)) as server:
        first = socket.create_connection(server.getsockname())
        meter = Meter(first.fileno(), Other.BROKER, tally)
        tally.take()
        number = first.fileno()
        first.close()
        with socket.create_connection(server.getsockname()) as second:
            assert second.fileno() == number
            meter.count()
            assert tally.take() == {}


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_last_bytes_are_there_when_a_protocol_is_told_of_the_end(factory: type) -> None:
    tally = Tally()

    class Speaker(asyncio.Protocol):
        def __init__(self) -> None:
            self.over = asyncio.get_running_loop().create_future()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.meter = Meter(transport.get_extra_info("socket").fileno(), Other.BROKER, tally)
            transport.write(bytes(1000))  # type: ignore[attr-defined]
            transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            self.meter.close()
            self.over.set_result(None)

    async def speak() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            _, speaker = await asyncio.get_running_loop().create_connection(Speaker, *server.getsockname())
            await speaker.over

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(speak())
    assert tally.take()[Other.BROKER][Kind.SET_UP].sent > 1000
