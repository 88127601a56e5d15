"""The messages by which neighbours set routes up and take them down, on conflux.link.1.

    S                                            D            (one hop; a relay in between does the same twice)
    │  SETUP: request, tether, label back, onion │
    │ ─────────────────────────────────────────► │   the onion opens with D's hop key: stream, route key
    │  CONFIRM: request, label, sealed tag       │
    │ ◄───────────────────────────────────────── │   sealed under the stream's feedback key: only D has it
    │  frames under label  ► ◄  feedback under label back
    │  TEARDOWN: label, last frame               │
    │ ─────────────────────────────────────────► │

A request and a label mean something between two neighbours only.  Source: docs/reference/protocol.md, "Route".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, NamedTuple

from conflux.carrier.interface import TETHER_CHANNEL_COUNT_MAX
from conflux.errors import RemoteProtocolError
from conflux.ids import TETHER_ID_BYTES
from conflux.record import Record, decode_untrusted, encode, octets, uint
from conflux.route.onion import CLEAR_BYTES, ONION_BYTES

REQUEST_BYTES = 8
LABEL_BYTES = 4
SEALED_BYTES_MAX = 512
MESSAGE_BYTES_MAX = 8192
WORD_BYTES_MAX = 32
NEXT = b"next: "  # before the word of the hop behind, which had no route key to seal it with


class RefusalWord(StrEnum):
    """Why a hop refuses a set-up, as it says on the wire."""

    AUTH = "auth"  # its slot does not open, or what follows is not what the sender put there
    BUSY = "busy"
    LINK_CLOSED = "link-closed"  # let go in good order under the set-up: worth another link
    LINK_DOWN = "link-down"
    LOOP = "loop"
    MALFORMED = "malformed"
    NO_RELAY = "no-relay"
    REPLAY = "replay"
    STALE_KEY = "stale-key"  # it does not hold the key (any more)
    TIMEOUT = "timeout"
    UNKNOWN_NEXT = "unknown-next"
    UNKNOWN_STREAM = "unknown-stream"
    UNREACHABLE = "unreachable"
    OTHER = "other"  # a word that is not in this table


_WORDS = {word.value: word for word in RefusalWord}


class Refusal(NamedTuple):
    """What a hop said when it refused.

    hop: which hop the word is about, counted from 0.  of_next: the hop before it quotes it, and stands for it alone.
    said: the text as it came, printable ASCII of at most 32 characters: shown, and decides nothing.
    """

    word: RefusalWord
    hop: int
    of_next: bool
    said: str

    def is_of(self, word: RefusalWord, hop: int) -> bool:
        """Say whether the hop, counted from 0, said the word for itself."""
        return self.word is word and self.hop == hop and not self.of_next


@dataclass(frozen=True, slots=True)
class Setup(Record):
    """Asks the neighbour for a label, to pass frames under it on as the onion says; answers come under label_back."""

    TYPE: ClassVar[int] = 1
    SHAPES = (
        octets(REQUEST_BYTES),
        octets(TETHER_ID_BYTES),
        uint(TETHER_CHANNEL_COUNT_MAX),
        uint(2**32 - 1),
        octets(CLEAR_BYTES, ONION_BYTES),
    )

    request: bytes
    tether: bytes
    channel_count: int
    label_back: int
    onion: bytes


def wished_label(request: bytes) -> int:
    """Return the label that a set-up asks its last hop for; 0: none."""
    return int.from_bytes(request[:LABEL_BYTES])


@dataclass(frozen=True, slots=True)
class Confirm(Record):
    """Confirms a set-up; frames must carry label."""

    TYPE: ClassVar[int] = 2
    SHAPES = (octets(REQUEST_BYTES), uint(2**32 - 1), octets(1, SEALED_BYTES_MAX))

    request: bytes
    label: int
    sealed: bytes  # a feedback frame whose CONFIRM entry is the route tag


@dataclass(frozen=True, slots=True)
class Refuse(Record):
    """Refuses a set-up.

    sealed: the reason, under the route key that only the hop which opened the slot knows; empty from a hop that could
    not open it, and then `plain` says why.
    """

    TYPE: ClassVar[int] = 3
    SHAPES = (octets(REQUEST_BYTES), octets(0, SEALED_BYTES_MAX), octets(0, 32))

    request: bytes
    sealed: bytes
    plain: bytes  # a RefusalWord, such as "stale-key"


@dataclass(frozen=True, slots=True)
class Teardown(Record):
    """Ends a route: no more frames under label.  last: the stream's sealed END if the stream ends too, else empty."""

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
    if type(item) is not list or len(item) != 2 or type(item[0]) is not int or type(item[1]) is not bytes:
        raise RemoteProtocolError("malformed", "not a link message")
    if item[0] not in _TYPES:
        raise RemoteProtocolError("unknown-kind", f"link message {item[0]}")
    return _TYPES[item[0]].decode_untrusted(item[1])


def said_untrusted(said: bytes) -> str:
    """Return a refusal's text so that it may be logged, shown and passed on: printable ASCII, 32 characters."""
    return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in said[:WORD_BYTES_MAX])


def refusal_untrusted(hop: int, said: bytes) -> Refusal:
    """Return what the refusing hop, counted from 0, said."""
    of_next = said.startswith(NEXT)
    text = said_untrusted(said.removeprefix(NEXT))
    return Refusal(_WORDS.get(text, RefusalWord.OTHER), hop + of_next, of_next, said_untrusted(said))
