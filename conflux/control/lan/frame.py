"""Frames in the TLS stream.

+--------+--------+--------+------------------+
| length of body  |  type  |  body            |      length: 16 bits, network byte order
+--------+--------+--------+------------------+
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from conflux.control.drop import Drop
from conflux.errors import LocalProtocolError, RemoteProtocolError

BODY_BYTES_MAX = 33 * 1024  # an envelope is at most 32 kB
_HEADER_BYTES = 3


class FrameType(enum.IntEnum):
    """What a frame is.  Types below ENVELOPE belong to the handshake, the others follow it."""

    GREETING = 1
    HELLO = 2
    WELCOME = 3
    JOIN = 4
    JOINED = 5
    JOIN_REFUSED = 6
    RENEW = 7  # answered like JOIN: of a member whose issuer no other member reaches, or whose credential has ended
    REVOKED = 8  # in the place of WELCOME: a signed list that denies the dialler, for it to read
    LIST = 9  # before JOINED: a signed list that a new member should know
    CHAIN_ASK = 10  # one byte: what the sender wants of the other's chain
    CHAIN = 11
    HELLO_AGAIN = 12  # in the place of HELLO, to a node that was met
    WELCOME_AGAIN = 13
    HELLO_ASK = 14  # in the place of WELCOME_AGAIN: say HELLO, it is not known here that we met
    ENVELOPE = 16
    PING = 17
    PONG = 18
    BRIDGE = 19  # one byte, 1: the sender joins LANs and passes envelopes on; 0: it does not, or no longer

    # On a large LAN, to a peer that says "tree" in its handshake.
    NEAR = 20  # one byte, a circle.Role: what the sender wants this connection for
    SPREAD = 21  # how often it was passed on (1 byte), the instance that began (8), an envelope for all
    NOTICE = 22  # 8 bytes each: messages that the sender has
    GRAFT = 23  # 8 bytes: the sender lacks this message; it, and all that come after it, are to be sent
    PRUNE = 24  # empty: the sender has all of this peer's messages from another


TREE_FRAMES = frozenset({FrameType.NEAR, FrameType.SPREAD, FrameType.NOTICE, FrameType.GRAFT, FrameType.PRUNE})


def encode_frame(kind: FrameType, body: bytes = b"") -> bytes:
    """Return the bytes of one frame.  Raises LocalProtocolError if the body is too large."""
    if len(body) > BODY_BYTES_MAX:
        raise LocalProtocolError(f"frame of {len(body)} bytes, at most {BODY_BYTES_MAX}")
    return len(body).to_bytes(2, "big") + bytes((kind,)) + body


class Head(NamedTuple):
    """The head of a frame.  size: of its body, in bytes.  is_whole: whether all of the body is here."""

    kind: FrameType
    size: int
    is_whole: bool


class FrameReader:
    """Cuts a stream into frames, one at a time: what a frame costs can be charged before anything is done with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take bytes of the stream."""
        self._buffer += data

    def head_untrusted(self) -> Head | None:
        """Return the head of the next frame; None: not here yet.

        Raises RemoteProtocolError; the stream is of no use afterwards.
        """
        if len(self._buffer) < _HEADER_BYTES:
            return None
        size = int.from_bytes(self._buffer[:2], "big")
        if size > BODY_BYTES_MAX:
            raise RemoteProtocolError(Drop.OVERSIZED, f"frame of {size} bytes")
        try:
            kind = FrameType(self._buffer[2])
        except ValueError:
            raise RemoteProtocolError(Drop.MALFORMED, f"frame of type {self._buffer[2]}") from None
        return Head(kind, size, len(self._buffer) >= _HEADER_BYTES + size)

    def take_untrusted(self) -> tuple[FrameType, bytes] | None:
        """Return the next frame; None: not all of it is here yet.  Raises what head_untrusted() raises."""
        head = self.head_untrusted()
        if head is None or not head.is_whole:
            return None
        end = _HEADER_BYTES + head.size
        body = bytes(self._buffer[_HEADER_BYTES:end])
        del self._buffer[:end]
        return head.kind, body
