"""A connection of a LAN until the handshake is over, and a stranger at the other end: any bytes, in any pieces."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

from fuzz.machines import ALPHA, REALM
from fuzz.script import expand
from kit.builders import FIRST_BOOT, NOW_UNIX

from conflux.control.lan.connection import Connection
from conflux.control.lan.frame import BODY_BYTES_MAX, FrameType
from conflux.control.lan.handshake import Acceptor, Dialler, Ourselves
from conflux.errors import RemoteProtocolError
from conflux.realm.join import JoinRequest, RenewRequest
from conflux.realm.lists import SignedList

HEAD_BYTES = 3
WRITTEN_BYTES_MAX = 2 * BODY_BYTES_MAX  # by us, before we know who is there

_loop = asyncio.new_event_loop()


class _Wire:
    """What the connection takes for its transport."""

    def __init__(self) -> None:
        self.written_bytes = 0
        self.is_paused = self.is_closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return where the two ends are."""
        return ("192.0.2.1", 7464) if name in ("sockname", "peername") else default

    def get_write_buffer_size(self) -> int:
        """Return 0: the stranger reads."""
        return 0

    def write(self, data: bytes) -> None:
        """Count what a stranger is told."""
        self.written_bytes += len(data)

    def pause_reading(self) -> None:
        """Take no more of the stranger's bytes."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Take them again."""
        self.is_paused = False

    def close(self) -> None:
        """Take note of the end."""
        self.is_closed = True

    abort = close


async def _accept(connection: Connection, taken: list[FrameType]) -> None:
    us = Ourselves(ALPHA, FIRST_BOOT, bytes(8), lambda chain: chain.verify(REALM.anchor, now_unix=NOW_UNIX))
    acceptor = Acceptor(us, bytes(32), bytes)
    connection.send(FrameType.GREETING, acceptor.greeting)
    kind, body = await connection.read(FrameType.HELLO, FrameType.JOIN, FrameType.RENEW)
    taken.append(kind)
    if kind is FrameType.HELLO:
        peer, _ = acceptor.answer_untrusted(body)
        raise AssertionError(f"a stranger was taken for {peer.name}")
    (JoinRequest if kind is FrameType.JOIN else RenewRequest).decode_untrusted(body)


async def _dial(connection: Connection, taken: list[FrameType]) -> None:
    us = Ourselves(ALPHA, FIRST_BOOT, bytes(8), lambda chain: chain.verify(REALM.anchor, now_unix=NOW_UNIX))
    dialler = Dialler(us, bytes(32), bytes)
    kind, greeting = await connection.read(FrameType.GREETING)
    taken.append(kind)
    connection.send(FrameType.HELLO, dialler.hello_untrusted(greeting))
    kind, body = await connection.read(FrameType.WELCOME, FrameType.REVOKED)
    taken.append(kind)
    if kind is FrameType.REVOKED:
        SignedList.decode_untrusted(body)
        return
    peer = dialler.finish_untrusted(body)
    raise AssertionError(f"a stranger was taken for {peer.name}")


async def _scene(dials: bool, size: int, stream: bytes) -> list[FrameType]:
    connection, wire, taken = Connection(), _Wire(), []  # type: ignore[var-annotated]
    connection.connection_made(cast(asyncio.BaseTransport, wire))
    ours = asyncio.ensure_future((_dial if dials else _accept)(connection, taken))
    for start in range(0, len(stream), size):
        if wire.is_paused or wire.is_closed or ours.done():
            break
        connection.data_received(stream[start : start + size])
        assert len(connection._reader._buffer) <= HEAD_BYTES + BODY_BYTES_MAX + size
        await asyncio.sleep(0)
    connection.connection_lost(None)
    with contextlib.suppress(RemoteProtocolError):
        await ours
    assert len(taken) <= 1 + dials
    assert wire.written_bytes <= WRITTEN_BYTES_MAX
    return taken


def lan_stranger(data: bytes) -> bool:
    """A stranger gets as far as one frame that has its place, is taken for no node, and has nothing else raised.

    Role and size of the pieces, then the stream.
    """
    role, size = (data[0] & 1, (data[0] >> 1) * 8 + 1) if data else (0, 1)
    return bool(_loop.run_until_complete(_scene(bool(role), size, expand(data[1:]))))
