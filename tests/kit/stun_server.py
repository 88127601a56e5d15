"""A STUN server for tests and labs: answers Binding requests (RFC 8489), and nothing else.

python stun_server.py ADDRESS PORT      says "ready" on standard output and serves until it is ended
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct
import sys
from typing import cast

COOKIE = 0x2112A442
PORT = 3478
_HEADER = struct.Struct("!HHI12s")  # type, length of what follows, cookie, transaction
_REQUEST, _SUCCESS = 0x0001, 0x0101
_XOR_MAPPED_ADDRESS = 0x0020


def answer(request: bytes, address: str, port: int) -> bytes | None:
    """Return the answer to a datagram that came from address and port; None: it is no Binding request."""
    if len(request) < _HEADER.size:
        return None
    kind, length, cookie, transaction = _HEADER.unpack_from(request)
    if kind != _REQUEST or cookie != COOKIE or length != len(request) - _HEADER.size or length % 4:
        return None
    packed = ipaddress.ip_address(address).packed
    mask = (struct.pack("!I", COOKIE) + transaction)[: len(packed)]
    mapped = bytes(byte ^ key for byte, key in zip(packed, mask, strict=True))
    value = struct.pack("!BBH", 0, 1 if len(packed) == 4 else 2, port ^ COOKIE >> 16) + mapped
    attribute = struct.pack("!HH", _XOR_MAPPED_ADDRESS, len(value)) + value
    return _HEADER.pack(_SUCCESS, len(attribute), COOKIE, transaction) + attribute


class StunServer(asyncio.DatagramProtocol):
    """Tells each client the address that its request came from.  mapped: told to everybody instead."""

    def __init__(self, mapped: tuple[str, int] | None = None) -> None:
        self.closed = asyncio.Event()
        self.asked_count = 0
        self._mapped = mapped

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the socket's end."""
        self.closed.set()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a request; anything else is ignored."""
        reply = answer(data, *(self._mapped or addr[:2]))
        if reply is not None:
            self.asked_count += 1
            self._transport.sendto(reply, addr)


async def _serve(address: str, port: int) -> None:
    _, server = await asyncio.get_running_loop().create_datagram_endpoint(StunServer, local_addr=(address, port))
    print("ready", flush=True)
    await server.closed.wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
