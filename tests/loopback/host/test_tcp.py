"""Segments of TCP that fit paths which lose large packets without a word."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import pytest
from kit.lan import lan

import conflux
from conflux.control.nats import connection
from conflux.control.nats.config import Server
from conflux.control.nats.connection import Connection, Credentials, Listener
from conflux.control.nats.tls import Trust
from conflux.host.tcp import SEGMENT_BYTES_MAX, LossyPaths, connect

# Of these, Unix sockets and probes that carry nothing; every other one is told of below.
MAKES_STREAMS = {
    "api/client.py",
    "api/server.py",
    "control/lan/dial.py",
    "control/lan/listener.py",
    "doctor/firewall.py",
    "host/tcp.py",
    "web/server.py",
}


def segment_bytes(sock: socket.socket) -> int:
    size: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    return size


async def test_both_ends_of_a_neighbours_connection_send_small_segments() -> None:
    async with lan("alice", "bob") as nodes:
        for node in nodes:
            (neighbour,) = node.channel._neighbours.all()
            sock = neighbour.connection._transport.get_extra_info("socket")
            assert 500 < segment_bytes(sock) <= SEGMENT_BYTES_MAX


async def test_a_broker_gets_small_segments_once_a_handshake_with_it_stood_still(monkeypatch) -> None:
    monkeypatch.setattr(connection, "STALL_S", 0.0)
    monkeypatch.setattr(connection, "LOSSY_PATHS", LossyPaths())
    with socket.create_server(("127.0.0.1", 0)) as server:
        at: Server = server.getsockname()
        says = Listener(print, print, lambda: None)
        sizes = []
        server.setblocking(False)
        for _ in range(2):
            opening = asyncio.create_task(
                Connection.open(
                    at,
                    trust=Trust(None, floor_unix=lambda: 0),
                    credentials=Credentials("", bytes),
                    listener=says,
                    subjects=(),
                    allows=bool,
                )
            )
            accepted, _ = await asyncio.get_running_loop().sock_accept(server)
            with accepted:
                await asyncio.get_running_loop().sock_recv(accepted, 1)  # of the ClientHello, which stays unanswered
                opening.cancel()
                await asyncio.gather(opening, return_exceptions=True)
                sizes.append(segment_bytes(accepted))
    assert sizes[1] <= SEGMENT_BYTES_MAX < sizes[0]


def test_hosts_on_lossy_paths_are_bounded() -> None:
    paths = LossyPaths()
    for number in range(LossyPaths.HOST_COUNT_MAX + 1):
        paths.note(str(number))
    assert ("0" in paths, "1" in paths) == (False, True)


def test_commands_that_ask_a_broker_send_small_segments() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        with connect(host, port, timeout_s=5) as sock, server.accept()[0] as accepted:
            assert 500 < segment_bytes(sock) <= SEGMENT_BYTES_MAX
            assert 500 < segment_bytes(accepted) <= SEGMENT_BYTES_MAX
    with pytest.raises(ConnectionRefusedError):
        connect(host, port, timeout_s=5)


def test_no_other_part_makes_a_tcp_socket_of_its_own() -> None:
    root = Path(conflux.__file__).parent
    makes = re.compile(r"socket\.create_connection|socket\.socket\((?![^)]*DGRAM)(family|[^)]*SOCK_STREAM)")
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if makes.search(path.read_text())}
    assert found - {path for path in found if "bench/" in path} == MAKES_STREAMS
