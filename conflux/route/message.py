"""What neighbours say to each other on conflux.link.1 about routes.

    S                                            D            (one hop; a relay in between does the same twice)
    │  SETUP: request, tether, label back, onion │
    │ ─────────────────────────────────────────► │   the onion opens with D's hop key: stream, route key
    │  CONFIRM: request, label, sealed tag       │
    │ ◄───────────────────────────────────────── │   sealed under the stream's feedback key: D, and nobody else
    │  frames under label  ► ◄  feedback under label back
    │  TEARDOWN: label, last frame               │
    │ ─────────────────────────────────────────► │

Request and labels mean something between two neighbours only.  Source: docs/protocol.md, "Route".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from conflux.errors import RemoteProtocolError
from conflux.ids import TETHER_ID_BYTES
from conflux.route.onion import ONION_BYTES
from conflux.wire import Record, decode_untrusted, encode, octets, uint

REQUEST_BYTES = 8
SEALED_BYTES_MAX = 512
MESSAGE_BYTES_MAX = 8192
CHANNEL_COUNT_MAX = 16


@dataclass(frozen=True, slots=True)
class Setup(Record):
    """Let frames under a label of your choice go where the onion says; send what comes back under label_back."""

    TYPE: ClassVar[int] = 1
    SHAPES = (
        octets(REQUEST_BYTES),
        octets(TETHER_ID_BYTES),
        uint(CHANNEL_COUNT_MAX),
        uint(2**32 - 1),
        octets(ONION_BYTES),
    )

    request: bytes
    tether: bytes
    channel_count: int
    label_back: int
    onion: bytes


@dataclass(frozen=True, slots=True)
class Confirm(Record):
    """The route is there; label is what your frames must carry."""

    TYPE: ClassVar[int] = 2
    SHAPES = (octets(REQUEST_BYTES), uint(2**32 - 1), octets(1, SEALED_BYTES_MAX))

    request: bytes
    label: int
    sealed: bytes  # a feedback frame whose CONFIRM entry is the route tag


@dataclass(frozen=True, slots=True)
class Refuse(Record):
    """The route is not to be had.

    sealed: the reason, under the route key that only the hop who opened the slot knows; empty from a hop that could
    not open it, and then `plain` says why.
    """

    TYPE: ClassVar[int] = 3
    SHAPES = (octets(REQUEST_BYTES), octets(0, SEALED_BYTES_MAX), octets(0, 32))

    request: bytes
    sealed: bytes
    plain: bytes  # "stale-key" or "malformed"


@dataclass(frozen=True, slots=True)
class Teardown(Record):
    """No more frames under label.  last: the stream's sealed END if the stream ends too, else empty."""

    TYPE: ClassVar[int] = 4
    SHAPES = (uint(2**32 - 1), octets(0, SEALED_BYTES_MAX))

    label: int
    last: bytes


Message = Setup | Confirm | Refuse | Teardown
_TYPES: dict[int, type[Setup] | type[Confirm] | type[Refuse] | type[Teardown]] = {
    message.TYPE: message for message in (Setup, Confirm, Refuse, Teardown)
}


def encode_message(message: Message) -> bytes:
    """Return one link message: [type, record]."""
    return encode([message.TYPE, message.encode()])


def decode_message_untrusted(data: bytes) -> Message:
    """Return the message, or raise RemoteProtocolError."""
    item = decode_untrusted(data, bytes_max=MESSAGE_BYTES_MAX)
    if type(item) is not list or len(item) != 2 or type(item[1]) is not bytes:
        raise RemoteProtocolError("malformed", "not a link message")
    if type(item[0]) is not int or item[0] not in _TYPES:
        raise RemoteProtocolError("unknown-kind", f"link message {item[0]!r}")
    return _TYPES[item[0]].decode_untrusted(item[1])


def reason_untrusted(said: bytes) -> str:
    """Return a refusal's word as text that may be logged, shown and passed on: printable ASCII, 32 characters."""
    return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in said[:32])
