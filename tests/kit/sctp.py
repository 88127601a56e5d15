"""The SCTP association of cext/, compiled for tests and called through ctypes."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Sequence
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_int32, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64
from dataclasses import dataclass
from typing import Any

from kit.compile import UNDEFINED, build
from kit.tree import CEXT, DRIVERS

SOURCES = (*sorted(f"sctp/{path.name}" for path in CEXT.glob("sctp/*.c")), "rate/rate.c")

NEVER = 2**64 - 1
MS = 1_000_000
SECOND = 1_000_000_000
PORT = 5000
PACKET_BYTES_MIN = 1200 - 48
PACKET_BYTES_MAX = 9216
PPID_BINARY = 53
ENDS = ("none", "asked", "shutdown", "aborted", "timeout", "malformed", "memory")


def fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    """Return ctypes fields of one type, by their names."""
    return [(name, kind) for name in names.split()]


class Config(ctypes.Structure):
    _fields_ = [
        ("port_local", c_uint16),
        ("port_remote", c_uint16),
        ("packet_bytes_max", c_uint32),
        ("window_bytes", c_uint32),
        ("send_bytes_max", c_uint32),
        ("entropy", c_uint8 * 48),
    ]


class Message(ctypes.Structure):
    _fields_ = [("data", POINTER(c_uint8)), ("size", c_uint32), ("room", c_uint32)]


class Sending(ctypes.Structure):
    _fields_ = [
        ("stream", c_uint16),
        ("unordered", c_bool),
        ("ppid", c_uint32),
        ("reliability", c_int),
        ("reliability_value", c_uint32),
    ]


class Arrival(ctypes.Structure):
    _fields_ = [("stream", c_uint16), ("unordered", c_bool), ("ppid", c_uint32), ("message", POINTER(Message))]


ON_OPENED = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
ON_MESSAGE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, POINTER(Arrival))
ON_RESET = ctypes.CFUNCTYPE(None, ctypes.c_void_p, c_bool, c_bool, POINTER(c_uint16), c_size_t)
ON_CLOSED = ctypes.CFUNCTYPE(None, ctypes.c_void_p, c_int)


class Handler(ctypes.Structure):
    _fields_ = [
        ("opened", ON_OPENED),
        ("message", ON_MESSAGE),
        ("streams_reset", ON_RESET),
        ("closed", ON_CLOSED),
    ]


class Counts(ctypes.Structure):
    _fields_ = fields(
        c_uint64,
        "packets_sent packets_received bytes_sent bytes_received messages_sent messages_received "
        "messages_abandoned chunks_retransmitted chunks_lost probes_tail timeouts dropped_malformed dropped_tag "
        "dropped_checksum dropped_window dropped_duplicate dropped_other",
    )


class State(ctypes.Structure):
    _fields_ = [
        ("open", c_bool),
        ("searching", c_bool),
        ("packet_bytes", c_uint32),
        *fields(
            c_uint64,
            "unsent_bytes inflight_bytes held_bytes rtt_ns rtt_min_ns rate_bytes_s window_bytes peer_window_bytes",
        ),
    ]


class Wire(ctypes.Structure):
    """One direction of a simulated network; sctp_world.h says what each field means."""

    _fields_ = [
        ("delay_ns", c_uint64),
        ("jitter_ns", c_uint64),
        ("loss_ppm", c_uint32),
        ("duplicate_ppm", c_uint32),
        ("flip_ppm", c_uint32),
        ("rate_bytes_s", c_uint64),
        ("queue_bytes", c_uint64),
        ("packet_bytes_max", c_uint32),
        ("cut_from_ns", c_uint64),
        ("cut_until_ns", c_uint64),
        ("narrow_from_ns", c_uint64),
        ("packet_bytes_narrow", c_uint32),
    ]


class Load(ctypes.Structure):
    _fields_ = [
        ("messages", c_uint32),
        ("size_min", c_uint32),
        ("size_max", c_uint32),
        ("streams", c_uint16),
        ("unordered", c_uint8),
        ("reliability", c_int32),
        ("reliability_value", c_uint32),
        ("gap_ns", c_uint64),
        ("pings", c_uint32),
        ("ping_bytes", c_uint32),
        ("ping_gap_ns", c_uint64),
    ]


class WorldConfig(ctypes.Structure):
    _fields_ = [
        ("seed", c_uint64),
        ("until_ns", c_uint64),
        ("packet_bytes_max", c_uint32),
        ("window_bytes", c_uint32),
        ("send_bytes_max", c_uint32),
        ("connect", c_uint8),
        ("close_at_end", c_uint8),
        ("reset_at_end", c_uint8),
        ("stop_when_done", c_uint8),
        ("stall_from_ns", c_uint64),
        ("stall_until_ns", c_uint64),
        ("turn_ns", c_uint64 * 2),
        ("wire", Wire * 2),
        ("load", Load * 2),
    ]


class Side(ctypes.Structure):
    _fields_ = [
        *fields(
            c_uint32, "opened closed end resets_in resets_out resets_refused sent delivered twice misordered corrupted"
        ),
        *fields(
            c_uint64,
            "delivered_bytes delivered_last_ns opened_ns latency_sum_ns latency_max_ns held_bytes_max "
            "unsent_bytes_max wire_packets wire_dropped",
        ),
        ("counts", Counts),
        ("state", State),
    ]

    @property
    def why(self) -> str:
        return ENDS[self.end]


class WorldResult(ctypes.Structure):
    _fields_ = [("now_ns", c_uint64), ("events", c_uint64), ("side", Side * 2)]


def load() -> ctypes.CDLL:
    """Compile the association and the simulated world around it, and load both."""
    sources = (DRIVERS / "sctp/sctp_world.c", *(CEXT / name for name in SOURCES))
    library = ctypes.CDLL(str(build(*sources, shared=True, options=UNDEFINED, libraries=("crypto",))))
    pointer = ctypes.c_void_p
    prototypes: dict[str, tuple[object, list[object]]] = {
        "sctp_new": (pointer, [POINTER(Config), POINTER(Handler), pointer]),
        "sctp_delete": (None, [pointer]),
        "sctp_connect": (None, [pointer, c_uint64]),
        "sctp_start": (None, [pointer, c_char_p, c_uint64]),
        "sctp_receive_untrusted": (None, [pointer, c_char_p, c_size_t, c_uint64]),
        "sctp_receive_done": (None, [pointer, c_uint64]),
        "sctp_next_packet": (c_size_t, [pointer, c_char_p, c_size_t, c_uint64]),
        "sctp_next_timeout": (c_uint64, [pointer]),
        "sctp_handle_timeout": (None, [pointer, c_uint64]),
        "sctp_room": (c_size_t, [pointer, c_uint64]),
        "sctp_message_new": (POINTER(Message), [c_size_t]),
        "sctp_send": (c_bool, [pointer, POINTER(Message), POINTER(Sending), c_uint64]),
        "sctp_reset_streams": (c_bool, [pointer, POINTER(c_uint16), c_size_t, c_uint64]),
        "sctp_close": (None, [pointer, c_bool, c_uint64]),
        "sctp_state": (State, [pointer]),
        "sctp_counts": (POINTER(Counts), [pointer]),
        "world_run": (c_bool, [POINTER(WorldConfig), POINTER(WorldResult)]),
        "crc32c_portable": (c_uint32, [c_uint32, c_char_p, c_size_t]),
        "crc32c_best": (ctypes.CFUNCTYPE(c_uint32, c_uint32, c_char_p, c_size_t), []),
    }
    for name, (returns, takes) in prototypes.items():
        function = getattr(library, name)
        function.restype = returns
        function.argtypes = takes
    return library


def run_world(library: ctypes.CDLL, config: WorldConfig) -> WorldResult:
    result = WorldResult()
    assert library.world_run(byref(config), byref(result)), f"the world stood still; seed {config.seed}"
    return result


@dataclass(frozen=True, slots=True)
class Received:
    stream: int
    unordered: bool
    ppid: int
    data: bytes


class Association:
    """One association; it collects the events."""

    def __init__(self, library: ctypes.CDLL, seed: int, **config: int) -> None:
        self.opened = 0
        self.messages: list[Received] = []
        self.resets: list[tuple[bool, bool, list[int]]] = []
        self.closed: list[str] = []
        self._library = library
        # ctypes frees a callback without a reference
        self._handler = Handler(
            ON_OPENED(self._on_opened),
            ON_MESSAGE(self._on_message),
            ON_RESET(self._on_reset),
            ON_CLOSED(self._on_closed),
        )
        fields = {"packet_bytes_max": 1400, "window_bytes": 1 << 20, "send_bytes_max": 4 << 20} | config
        self.config = Config(port_local=PORT, port_remote=PORT, **fields)
        self.config.entropy[:] = [(seed * 101 + index * 37) % 256 for index in range(48)]
        self._self = library.sctp_new(byref(self.config), byref(self._handler), None)
        assert self._self

    def delete(self) -> None:
        self._library.sctp_delete(self._self)
        self._self = None

    def __enter__(self) -> Association:
        return self

    def __exit__(self, *_: object) -> None:
        self.delete()

    def _on_opened(self, _: object) -> None:
        self.opened += 1

    def _on_message(self, _: object, arrival: ctypes._Pointer[Arrival]) -> None:
        came = arrival.contents
        message = came.message.contents
        data = ctypes.string_at(message.data, message.size)
        self.messages.append(Received(came.stream, came.unordered, came.ppid, data))

    def _on_reset(
        self, _: object, incoming: bool, accepted: bool, streams: ctypes._Pointer[c_uint16], count: int
    ) -> None:
        self.resets.append((incoming, accepted, [streams[index] for index in range(count)]))

    def _on_closed(self, _: object, why: int) -> None:
        self.closed.append(ENDS[why])

    @property
    def tag(self) -> int:
        return int.from_bytes(bytes(self.config.entropy[:4]), "big") or 1

    @property
    def own_start(self) -> bytes:
        return bytes(self.config.entropy[:8])

    @property
    def first_tsn(self) -> int:
        return int.from_bytes(bytes(self.config.entropy[4:8]), "big")

    @property
    def state(self) -> State:
        state: State = self._library.sctp_state(self._self)
        return state

    @property
    def counts(self) -> Counts:
        counts: Counts = self._library.sctp_counts(self._self).contents
        return counts

    @property
    def next_timeout(self) -> int:
        return int(self._library.sctp_next_timeout(self._self))

    def connect(self, now: int) -> None:
        self._library.sctp_connect(self._self, now)

    def start(self, remote: bytes, now: int) -> None:
        self._library.sctp_start(self._self, remote, now)

    def receive(self, packet: bytes, now: int, *, done: bool = True) -> None:
        # A copy of exactly this size: a sanitizer sees a read beyond it.
        self._library.sctp_receive_untrusted(
            self._self, ctypes.create_string_buffer(packet, len(packet)), len(packet), now
        )
        if done:
            self._library.sctp_receive_done(self._self, now)

    def packets(self, now: int, room: int = PACKET_BYTES_MAX) -> Iterator[bytes]:
        buffer = ctypes.create_string_buffer(room)
        while size := self._library.sctp_next_packet(self._self, buffer, room, now):
            yield buffer.raw[:size]

    def handle_timeout(self, now: int) -> None:
        self._library.sctp_handle_timeout(self._self, now)

    def room(self, now: int) -> int:
        return int(self._library.sctp_room(self._self, now))

    def send(self, data: bytes, now: int, **how: int) -> bool:
        message = self._library.sctp_message_new(len(data))
        assert message
        ctypes.memmove(message.contents.data, data, len(data))
        sending = Sending(**({"ppid": PPID_BINARY} | how))
        return bool(self._library.sctp_send(self._self, message, byref(sending), now))

    def reset_streams(self, streams: Sequence[int], now: int) -> bool:
        numbers = (c_uint16 * len(streams))(*streams)
        return bool(self._library.sctp_reset_streams(self._self, numbers, len(streams), now))

    def close(self, now: int, *, abort: bool = False) -> None:
        self._library.sctp_close(self._self, abort, now)


def exchange(a: Association, b: Association, now: int) -> int:
    """Carry packets both ways, without delay, until neither end has one to send; return how many were sent."""
    count = 0
    while True:
        moved = 0
        for source, target in ((a, b), (b, a)):
            if source.next_timeout <= now:
                source.handle_timeout(now)
            for packet in list(source.packets(now)):
                target.receive(packet, now, done=False)
                moved += 1
            target._library.sctp_receive_done(target._self, now)
        count += moved
        if moved == 0:
            return count


def run_until(a: Association, b: Association, now: int, until: int) -> int:
    """Carry packets as time passes; return the time of the last event."""
    exchange(a, b, now)
    while (at := min(a.next_timeout, b.next_timeout)) <= until:
        now = max(now + 1, at)
        exchange(a, b, now)
    return now


def opened_pair(library: ctypes.CDLL, **config: int) -> tuple[Association, Association]:
    a, b = Association(library, 1, **config), Association(library, 2, **config)
    a.connect(0)
    b.connect(0)
    exchange(a, b, 0)
    assert (a.opened, b.opened) == (1, 1)
    return a, b


# --- packets by hand -------------------------------------------------------------------------------------------------


def chunk(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    data = struct.pack("!BBH", kind, flags, 4 + len(body)) + body
    return data + bytes(-len(data) % 4)


def data_chunk(tsn: int, data: bytes, *, stream: int = 0, ssn: int = 0, flags: int = 7) -> bytes:
    return chunk(0, struct.pack("!IHHI", tsn % 2**32, stream, ssn, PPID_BINARY) + data, flags)


def sack_chunk(
    tsn: int, window: int = 1 << 20, gaps: Sequence[tuple[int, int]] = (), duplicates: Sequence[int] = ()
) -> bytes:
    body = struct.pack("!IIHH", tsn % 2**32, window, len(gaps), len(duplicates))
    body += b"".join(struct.pack("!HH", *gap) for gap in gaps)
    return chunk(3, body + b"".join(struct.pack("!I", duplicate) for duplicate in duplicates))


def sealed(library: ctypes.CDLL, packet: bytes) -> bytes:
    """Return the packet with a right checksum."""
    bare = packet[:8] + bytes(4) + packet[12:]
    crc = library.crc32c_portable(0xFFFFFFFF, bare, len(bare)) ^ 0xFFFFFFFF
    return bare[:8] + struct.pack("<I", crc) + bare[12:]


def packet_of(library: ctypes.CDLL, tag: int, *chunks: bytes) -> bytes:
    return sealed(library, struct.pack("!HHII", PORT, PORT, tag, 0) + b"".join(chunks))


def chunks_of(packet: bytes) -> list[tuple[int, int, bytes]]:
    """Return (type, flags, body) of each chunk."""
    found = []
    at = 12
    while at + 4 <= len(packet):
        kind, flags, size = struct.unpack_from("!BBH", packet, at)
        found.append((kind, flags, packet[at + 4 : at + size]))
        at += size + -size % 4
    return found
