"""A peer of an SCTP association that says what it likes."""

from __future__ import annotations

import ctypes
import struct

from kit.sctp import (
    MS,
    Association,
    chunks_of,
    data_chunk,
    packet_of,
)

DATA, INIT, INIT_ACK, SACK, HEARTBEAT, HEARTBEAT_ACK, ABORT = range(7)
ERROR, COOKIE_ECHO, COOKIE_ACK = 9, 10, 11
RECONFIG, PAD, FORWARD = 130, 132, 192
BEGIN_END, UNORDERED = 3, 7  # flags of a message in one chunk

WINDOW = 1 << 20


class Forger:
    """Speaks for b to a, packet by packet."""

    def __init__(self, library: ctypes.CDLL, a: Association, b: Association) -> None:
        self.library = library
        self.a = a
        self.b = b
        self.now = 100 * MS

    def say(self, *chunks: bytes) -> list[list[tuple[int, int, bytes]]]:
        """Send one packet; return the chunks of each that comes back now."""
        self.a.receive(packet_of(self.library, self.a.tag, *chunks), self.now)
        return self.hear()

    def hear(self) -> list[list[tuple[int, int, bytes]]]:
        return [chunks_of(packet) for packet in self.a.packets(self.now)]

    def wait(self, until: int) -> list[list[tuple[int, int, bytes]]]:
        """Let time pass for a alone; return all that it sent."""
        said = []
        while (at := self.a.next_timeout) <= until:
            self.now = max(self.now + 1, at)
            self.a.handle_timeout(self.now)
            said += self.hear()
        self.now = until
        return said

    def data(self, offset: int, data: bytes = b"x", **how: int) -> bytes:
        return data_chunk(self.b.first_tsn + offset, data, **how)


def of_kind(said: list[list[tuple[int, int, bytes]]], kind: int) -> list[tuple[int, bytes]]:
    return [(flags, body) for packet in said for found, flags, body in packet if found == kind]


def sack_of(said: list[list[tuple[int, int, bytes]]]) -> tuple[int, int, list[tuple[int, int]], list[int]]:
    ((_, body),) = of_kind(said, SACK)
    tsn, window, gap_count, duplicate_count = struct.unpack_from("!IIHH", body)
    gaps = [struct.unpack_from("!HH", body, 12 + 4 * index) for index in range(gap_count)]
    duplicates = struct.unpack_from(f"!{duplicate_count}I", body, 12 + 4 * gap_count)
    return tsn, window, [(first, last) for first, last in gaps], list(duplicates)
