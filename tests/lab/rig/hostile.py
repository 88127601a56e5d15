"""What a hostile device on a LAN does, one thing per run, until it is killed: hostile.py WHAT ARGUMENT...

announce SOURCE TAG ADDRESS PORT COUNT   announce COUNT nodes at that place, again and again
add SOURCE ADDRESS                       add the address to the name of every node that it hears of
listen ADDRESS PORT                      take connections, and tell of each; say nothing
lie ADDRESS PORT                         answer every HELLO with a WELCOME of 28 kB of rubbish
flood STATE ADDRESS KIND                 be a member with that state directory, and send the smallest frames there are
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import struct
import sys
import time
from pathlib import Path

from conflux import record
from conflux.control.lan.certificate import Certificate, client_context, peer_digest
from conflux.control.lan.config import DEFAULT_PORT
from conflux.control.lan.dial import open_connection, resolve
from conflux.control.lan.frame import FrameType, encode_frame
from conflux.control.lan.handshake import SEED_BYTES, Dialler, Greeting, Ourselves
from conflux.control.lan.interfaces import MDNS_IPV4
from conflux.ids import BootId
from conflux.state.directory import StateDir

PAUSE_S = 0.02
RUBBISH = record.encode([b"\xff" * 28_000])
SERVICE = (b"_conflux", b"_tcp", b"local")
PTR, TXT, SRV, A = 12, 16, 33, 1
MDNS = (MDNS_IPV4, 5353)


def name(*labels: bytes) -> bytes:
    """Return a name as DNS has it on the wire."""
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def response(*records: tuple[bytes, int, bytes]) -> bytes:
    """Return an mDNS response with these records: name, type, data."""
    bodies = [owner + struct.pack("!HHIH", kind, 1, 4500, len(data)) + data for owner, kind, data in records]
    return struct.pack("!6H", 0, 0x8400, 0, len(records), 0, 0) + b"".join(bodies)


def multicast(source: str) -> socket.socket:
    """Return a socket that speaks mDNS from an address and hears it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", 5353))
    own = socket.inet_aton(source)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(MDNS_IPV4) + own)
    sock.settimeout(PAUSE_S)
    return sock


def announce(source: str, tag: str, address: str, port: str, count: str) -> None:
    """Announce nodes that are not there."""
    sock = multicast(source)
    text = b"r=" + tag.encode()
    instances = [os.urandom(8).hex().encode() for _ in range(int(count))]
    while True:
        for instance in instances:
            node, host = name(instance, *SERVICE), name(instance, b"local")
            sock.sendto(
                response(
                    (name(*SERVICE), PTR, node),
                    (node, SRV, struct.pack("!HHH", 0, 0, int(port)) + host),
                    (node, TXT, bytes((len(text),)) + text + b"\x03v=1"),
                    (host, A, socket.inet_aton(address)),
                ),
                MDNS,
            )
            time.sleep(PAUSE_S)


def add(source: str, address: str) -> None:
    """Add an address to what other devices announce."""
    sock = multicast(source)
    known: set[bytes] = set()
    print("ready", flush=True)
    while True:
        with contextlib.suppress(TimeoutError):
            data, (host, _) = sock.recvfrom(9000)
            if host != source:
                known |= set(re.findall(rb"\x10([0-9a-f]{16})", data))
        for instance in known:
            sock.sendto(response((name(instance, b"local"), A, socket.inet_aton(address))), MDNS)


async def serve(address: str, port: str, *, lies: bool) -> None:
    """Take connections; lies: over TLS, and answer with rubbish; otherwise say nothing."""
    held = []

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        print("knock", flush=True)
        if lies:
            writer.write(encode_frame(FrameType.GREETING, Greeting(os.urandom(32)).encode()))
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await reader.readexactly(3)
                writer.write(encode_frame(FrameType.WELCOME, RUBBISH))

    context = Certificate.make(meets=False).context if lies else None
    server = await asyncio.start_server(lie, address, int(port), ssl=context)
    print("ready", flush=True)
    await server.serve_forever()


async def flood(state: str, address: str, kind: str) -> None:
    """Be a neighbour, and send frames without end; tell when the connection ends."""
    member = StateDir.open(Path(state)).member()
    assert member is not None
    boot = BootId((int(time.time()) + 1000).to_bytes(5, "big") + os.urandom(3))
    (place,) = await resolve(address, DEFAULT_PORT)
    connection = await open_connection(place, client_context(), asyncio.Event())
    us = Ourselves(member, boot, os.urandom(SEED_BYTES), lambda chain: chain.verify_signatures(member.anchor))
    dialler = Dialler(us, peer_digest(connection.tls), os.urandom)
    _, greeting = await connection.read(FrameType.GREETING)
    connection.send(FrameType.HELLO, dialler.hello_untrusted(greeting))
    _, welcome = await connection.read(FrameType.WELCOME)
    print("neighbour of", dialler.finish_untrusted(welcome).name, flush=True)
    connection.run(lambda data: None)
    frames = encode_frame(FrameType[kind.upper()], b"\1" if kind == "bridge" else b"") * 8192
    while connection._transport is not None:
        if connection.backlog_bytes < 1 << 20:
            connection._transport.write(frames)
        await asyncio.sleep(0.001)
    print("ended:", connection.reason, flush=True)


def main(what: str, *arguments: str) -> None:
    """Do one thing."""
    match what:
        case "announce":
            announce(*arguments)
        case "add":
            add(*arguments)
        case "listen" | "lie":
            address, port = arguments
            asyncio.run(serve(address, port, lies=what == "lie"))
        case "flood":
            asyncio.run(flood(*arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
