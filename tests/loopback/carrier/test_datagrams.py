"""Sockets that can be handed over: the transport alone, and two ICE agents whose nominated pair an engine takes."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop
from kit.events import PATIENCE_S, Awaited

from conflux.carrier.ice import datagrams
from conflux.carrier.ice.agent import Ice
from conflux.carrier.ice.datagrams import WAITING_COUNT_MAX, DatagramTransport, Watch
from conflux.carrier.ice.ferry import Ferry
from conflux.carrier.ice.sockets import DATAGRAM_BYTES_PROBED_MAX, DATAGRAM_BYTES_RELAYED, mtu_towards
from conflux.carrier.interface import CarrierEnd

LOCALHOST = "127.0.0.1"
DTLS_LIKE = b"\x17\xfe\xfd" + bytes(40)
_IP_RECVERR = 11


class Ear(Awaited, asyncio.DatagramProtocol):
    """Keeps the datagrams and errors that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[bytes] = []
        self.errors: list[Exception] = []
        self.lost = 0

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.heard.append(data)
        self.changed()

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)
        self.changed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1
        self.changed()


@dataclass
class Port:
    """A socket, its transport and what it heard."""

    ear: Ear
    sock: socket.socket
    transport: DatagramTransport
    address: tuple[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.address = self.sock.getsockname()


def open_port(watch: Watch) -> Port:
    """Bind a socket on loopback and watch it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((LOCALHOST, 0))
    ear = Ear()
    return Port(ear, sock, DatagramTransport(watch, sock, ear))


def on_both_loops(test: Callable[[], Awaitable[None]]) -> Callable[..., None]:
    """Run a test on asyncio's event loop, and on uvloop's."""

    def wrapped(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test())  # every test here is a coroutine function

    wrapped.__doc__ = test.__doc__
    return pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])(wrapped)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a fact that nothing reports."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110  # the fact is not reported
            await asyncio.sleep(0)


def closed(*ports: Port) -> Awaitable[Any]:
    """Close ports and wait for each connection_lost()."""
    for port in ports:
        port.transport.close()
    return asyncio.gather(*(port.ear.until(lambda port=port: port.ear.lost == 1) for port in ports))


@on_both_loops
async def test_datagrams_pass_both_ways_and_closing_is_reported_once() -> None:
    watch = Watch()
    one, other = open_port(watch), open_port(watch)
    for number in range(200):
        one.transport.sendto(bytes([number]), other.address)
        other.transport.sendto(bytes([number]), one.address)
    for port in (one, other):
        await port.ear.until(lambda port=port: len(port.ear.heard) == 200)
    one.transport.close()
    await closed(one, other)
    assert one.sock.fileno() == other.sock.fileno() == -1
    assert (one.ear.lost, other.ear.lost) == (1, 1)
    one.transport.sendto(b"late", other.address)


@on_both_loops
async def test_icmp_error_is_reported_and_the_socket_goes_on_reading() -> None:
    watch = Watch()
    one, other, gone = open_port(watch), open_port(watch), open_port(watch)
    one.sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    await closed(gone)
    for _ in range(3):
        one.transport.sendto(b"anybody there?", gone.address)
    await one.ear.until(lambda: len(one.ear.errors) > 0)
    other.transport.sendto(b"still here", one.address)
    await one.ear.until(lambda: one.ear.heard == [b"still here"])
    one.transport.sendto(b"so am I", other.address)
    await other.ear.until(lambda: other.ear.heard == [b"so am I"])
    await closed(one, other)


@on_both_loops
async def test_released_socket_is_another_readers_and_still_sends() -> None:
    watch = Watch()
    one, other = open_port(watch), open_port(watch)
    assert one.transport.release() is one.sock
    other.transport.sendto(b"for the other reader", one.address)
    assert select.select([one.sock], [], [], PATIENCE_S)[0] == [one.sock]
    one.transport.sendto(b"answer", other.address)
    await other.ear.until(lambda: other.ear.heard == [b"answer"])
    assert one.sock.recv(100) == b"for the other reader"
    assert one.ear.heard == []
    await closed(one, other)


@on_both_loops
async def test_datagrams_for_a_full_socket_wait_within_a_bound() -> None:
    watch = Watch()
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in (left, right):
        end.setblocking(False)
    ear = Ear()
    transport = DatagramTransport(watch, left, ear)
    for number in range(10_000):
        transport.sendto(number.to_bytes(4, "big"))
    heard: list[int] = []
    while not heard or transport._waiting:
        while select.select([right], [], [], 0)[0]:
            heard.append(int.from_bytes(right.recv(4), "big"))
        await asyncio.sleep(0)
    assert WAITING_COUNT_MAX <= len(heard) < 10_000
    assert heard == list(range(len(heard)))
    transport.close()
    await ear.until(lambda: ear.lost == 1)
    right.close()


# ── two agents, and an engine that takes one's socket ────────────────────────────────────────────────────────────────


class Agents:
    """Two connected ICE agents on loopback; left is controlling."""

    def __init__(self, addresses: tuple[str, ...] = (LOCALHOST,)) -> None:
        self.lost: list[CarrierEnd] = []
        self.drops: Counter[str] = Counter()
        self.left, self.right = (
            Ice(
                controlling=controlling,
                addresses=addresses,
                refused=(),
                drop_counts=self.drops,
                lost=self.lost.append,
            )
            for controlling in (True, False)
        )

    async def __aenter__(self) -> Agents:
        for agent in (self.left, self.right):
            await agent.gather_candidates()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(self._reach(self.left, self.right), self._reach(self.right, self.left))
        return self

    @staticmethod
    async def _reach(agent: Ice, far: Ice) -> None:
        candidates = [candidate.to_sdp() for candidate in far.local_candidates]
        await agent.reach(far.local_username, far.local_password, candidates)

    async def __aexit__(self, *_: object) -> None:
        await self.left.close()
        await self.right.close()


@on_both_loops
async def test_engine_gets_datagrams_that_dtls_has_not_read_and_all_later_ones() -> None:
    async with Agents() as agents:
        await agents.right._send(DTLS_LIKE + b"read here")
        await until(lambda: len(agents.left._received) == 1)
        handed_over = agents.left.hand_over()
        await agents.right._send(DTLS_LIKE + b"read there")
        with socket.socket(fileno=handed_over.fd) as engine:
            assert [await_datagram(engine) for _ in range(2)] == [DTLS_LIKE + b"read here", DTLS_LIKE + b"read there"]
            engine.detach()
        assert handed_over.address == agents.right._nominated[1].local_addr
        assert handed_over.datagram_bytes_max == DATAGRAM_BYTES_PROBED_MAX


@on_both_loops
async def test_sockets_are_open_within_one_turn_of_the_loop() -> None:
    agent = Ice(controlling=True, addresses=(LOCALHOST,), refused=(), drop_counts=Counter(), lost=lambda why: None)
    gathering = asyncio.create_task(agent.gather_candidates())
    await asyncio.sleep(0)
    assert gathering.done()
    assert [candidate.host for candidate in agent.local_candidates] == [LOCALHOST]
    await agent.close()


class Unhurried(Ice):
    """An agent whose aioice never comes to the second pair."""

    async def connect(self) -> None:
        self._early_checks_done = True
        await asyncio.get_running_loop().create_future()


@on_both_loops
async def test_every_pair_is_checked_whatever_pace_aioice_keeps() -> None:
    agent = Unhurried(
        controlling=True, addresses=(LOCALHOST,), refused=(), drop_counts=Counter(), lost=lambda why: None
    )
    await agent.gather_candidates()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(5)]
        candidates = []
        for number, sock in enumerate(silent):
            sock.bind((LOCALHOST, 0))
            candidates.append(f"{number} 1 udp {1000 - number} {LOCALHOST} {sock.getsockname()[1]} typ host")
        reaching = asyncio.create_task(agent.reach("ufrag", "p" * 22, candidates))
        async with asyncio.timeout(PATIENCE_S):
            for sock in silent:
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_recv(sock, 2048)
        reaching.cancel()
        await asyncio.wait((reaching,))
    await agent.close()


def await_datagram(sock: socket.socket) -> bytes:
    """Return the next datagram of a socket."""
    assert select.select([sock], [], [], PATIENCE_S)[0]
    return sock.recv(2048)


@on_both_loops
async def test_connectivity_checks_go_on_through_the_engine() -> None:
    async with Agents() as agents:
        handed_over = agents.left.hand_over()
        pair = agents.right._nominated[1]
        request = agents.right.build_request(pair, nominate=False)
        assert agents.right.remote_password is not None
        key = agents.right.remote_password.encode()
        asking = asyncio.create_task(pair.protocol.request(request, pair.remote_addr, integrity_key=key))
        await asyncio.sleep(0)
        with socket.socket(fileno=handed_over.fd) as engine:
            agents.left.engine_received(await_datagram(engine), pair.local_addr)
            engine.detach()
        async with asyncio.timeout(PATIENCE_S):
            await asking


@on_both_loops
async def test_error_from_the_engine_starts_checks_and_a_dead_peer_ends_the_link() -> None:
    async with Agents() as agents:
        handed_over = agents.left.hand_over()
        for endpoint in tuple(agents.right.endpoints):
            endpoint.transport.abort()
        while CarrierEnd.UNREACHABLE not in agents.lost:
            agents.left.engine_error(handed_over.address)
            await asyncio.sleep(0)


@on_both_loops
async def test_both_sides_choose_the_same_pair_of_many() -> None:
    async with Agents(("127.0.0.1", "127.0.0.2", "127.0.0.3")) as agents:
        left, right = agents.left.hand_over(), agents.right.hand_over()
        left_pair, right_pair = agents.left._nominated[1], agents.right._nominated[1]
        assert (left_pair.local_addr, left_pair.remote_addr) == (right_pair.remote_addr, right_pair.local_addr)
        assert (left.address, right.address) == (left_pair.remote_addr, right_pair.remote_addr)
        assert len({candidate.priority for candidate in agents.left.local_candidates}) == 3


@on_both_loops
async def test_datagram_on_another_pair_reaches_the_engine_too() -> None:
    async with Agents(("127.0.0.1", "127.0.0.2")) as agents:
        handed_over = agents.left.hand_over()
        (other,) = (one for one in agents.left.endpoints if one is not agents.left._nominated[1].protocol)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.sendto(DTLS_LIKE, other.transport.get_extra_info("sockname"))
        with socket.socket(fileno=handed_over.fd) as engine:
            await until(lambda: select.select([engine], [], [], 0)[0] != [])
            assert engine.recv(100) == DTLS_LIKE
            engine.detach()


@on_both_loops
async def test_relayed_pair_is_carried_by_a_socket_pair() -> None:
    sent: list[tuple[bytes, tuple[str, int]]] = []
    transport = SimpleNamespace(sendto=lambda data, address: sent.append((data, address)))
    pair = SimpleNamespace(protocol=SimpleNamespace(transport=transport), remote_addr=("192.0.2.1", 7))
    ferry = Ferry(cast(Any, pair), Watch())
    handed_over = ferry.handed_over
    assert (handed_over.address, handed_over.datagram_bytes_max) == (None, DATAGRAM_BYTES_RELAYED)
    with socket.socket(fileno=handed_over.fd) as engine:
        ferry.received(b"from the relay")
        assert engine.recv(100) == b"from the relay"
        engine.send(b"to the relay")
        await until(lambda: sent != [])
        assert sent == [(b"to the relay", ("192.0.2.1", 7))]
        for _ in range(10_000):
            ferry.received(bytes(1200))  # an engine that reads nothing
        engine.detach()
    ferry.close()


def test_mtu_is_that_of_the_interface() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOCALHOST, 0))
        assert mtu_towards(sock, (LOCALHOST, 9)) == 65535  # its MTU is 65536, and IPv4 holds one less
        assert mtu_towards(sock, ("192.0.2.78", 9)) == 1280  # no way leads there from a loopback address
    assert datagrams.DATAGRAM_BYTES_MAX > 9216
