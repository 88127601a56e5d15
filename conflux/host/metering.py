"""What a TCP connection of this process moved, as its kernel counts it: repeated segments and acknowledgements too."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Final, NamedTuple

from conflux.usage.tally import NOTHING, TALLY, TCP6_HEADER_BYTES, TCP_HEADER_BYTES, Both, Kind, Other, Tally, Who

TLS_RECORD_BYTES: Final = 22  # of TLS 1.3: 5 before, a type and a tag behind
_TCP_INFO: Final = struct.Struct("@120x QQ II 56x Q")  # linux/tcp.h, up to tcpi_bytes_sent


class _Moved(NamedTuple):
    """Of a socket, ever.  Whole IP packets, by an estimate of their headers."""

    sent: int
    received: int


def _moved(descriptor: int) -> _Moved | None:
    """Return what a connected TCP socket moved; None if it is none."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        if len(told) < _TCP_INFO.size or sock.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        _, received, segments_out, segments_in, sent = _TCP_INFO.unpack(told)
        is_mapped = sock.family == socket.AF_INET or str(sock.getsockname()[0]).startswith("::ffff:")
        header = TCP_HEADER_BYTES if is_mapped else TCP6_HEADER_BYTES
        return _Moved(sent + segments_out * header, received + segments_in * header)
    return None


class Meter:
    """Adds to the tally what one connection moves, from connect to close().

    All of it is set-up until settle(), and control afterwards, but for pings.
    """

    def __init__(self, descriptor: int, who: Who = Other.UNKNOWN, tally: Tally = TALLY) -> None:
        self.who = who  # may change
        self._descriptor = descriptor
        self._tally = tally
        self._inode = _inode(descriptor)
        self._is_settled = False
        self._before = _Moved(0, 0)
        self._pings = NOTHING
        self._has_messages = False
        self._last = Kind.SET_UP  # what late acknowledgements are counted as
        tally.watch(self.count)

    def settle(self, who: Who | None = None) -> None:
        """Take note that the handshake is over.  who: the peer, known now."""
        if who is not None:
            self.who = who
        if not self._is_settled:
            self.count()
            self._is_settled = True

    def ping(self, *, sent: int = 0, received: int = 0) -> None:
        """Take note of a ping, or the answer to one.  sent, received: its bytes in TLS."""
        more = TLS_RECORD_BYTES + TCP_HEADER_BYTES
        self._pings = self._pings.plus(Both(sent and sent + more, received and received + more))

    def message(self) -> None:
        """Take note that something else passes than pings."""
        self._has_messages = True

    def count(self) -> None:
        """Add what was moved since the last time.  No-op once the descriptor is another's."""
        now = _moved(self._descriptor) if _inode(self._descriptor) == self._inode else None
        if now is None:
            return
        new = Both(*now).less(Both(*self._before))
        self._before = now
        pings, self._pings = self._pings, NOTHING
        has_messages, self._has_messages = self._has_messages, False
        if not self._is_settled:
            self._add(Kind.SET_UP, new)
        elif has_messages:
            part = Both(min(pings.sent, new.sent), min(pings.received, new.received))
            self._add(Kind.KEEP_ALIVE, part)
            self._add(Kind.CONTROL, new.less(part))
        else:
            self._add(Kind.KEEP_ALIVE if pings.total else self._last, new)

    def close(self) -> None:
        """Count a last time, before the socket is closed.  Twice does no harm."""
        self.count()
        self._tally.unwatch(self.count)

    def _add(self, kind: Kind, both: Both) -> None:
        self._last = kind
        self._tally.add(self.who, kind, sent=both.sent, received=both.received)


def _inode(descriptor: int) -> int | None:
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return None
