"""How messages lie in the TLS stream.

+--------+--------+--------+------------------+
| length of body  |  type  |  body            |      length: 16 bits, network byte order
+--------+--------+--------+------------------+
"""

from __future__ import annotations

import enum

from conflux.errors import LocalProtocolError, RemoteProtocolError

BODY_BYTES_MAX = 33 * 1024  # an envelope is at most 32 kB
_HEADER_BYTES = 3


class FrameType(enum.IntEnum):
    """The first five make a connection, the rest is what neighbours say, and they say nothing else."""

    GREETING = 1
    HELLO = 2
    WELCOME = 3
    JOIN = 4
    JOINED = 5
    JOIN_REFUSED = 6
    ENVELOPE = 16
    PING = 17
    PONG = 18
    STANDING = 19  # one byte, 1: the sender joins LANs and passes envelopes on; 0: not any more


def encode_frame(kind: FrameType, body: bytes = b"") -> bytes:
    """Return the bytes of one frame."""
    if len(body) > BODY_BYTES_MAX:
        raise LocalProtocolError(f"frame of {len(body)} bytes, at most {BODY_BYTES_MAX}")
    return len(body).to_bytes(2, "big") + bytes((kind,)) + body


class FrameReader:
    """Cuts a stream into frames; holds at most one unfinished frame and what came with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed_untrusted(self, data: bytes) -> list[tuple[FrameType, bytes]]:
        """Return the frames that are complete now.  Raises RemoteProtocolError: the stream is then beyond repair."""
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= _HEADER_BYTES:
            size = int.from_bytes(self._buffer[start : start + 2], "big")
            if size > BODY_BYTES_MAX:
                raise RemoteProtocolError("oversized", f"frame of {size} bytes")
            try:
                kind = FrameType(self._buffer[start + 2])
            except ValueError:
                raise RemoteProtocolError("malformed", f"frame of type {self._buffer[start + 2]}") from None
            end = start + _HEADER_BYTES + size
            if end > len(self._buffer):
                break
            frames.append((kind, bytes(self._buffer[start + _HEADER_BYTES : end])))
            start = end
        del self._buffer[:start]
        return frames
