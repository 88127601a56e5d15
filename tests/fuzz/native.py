"""Targets in C, under libFuzzer itself: clang builds each with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kit.packets import PLAIN, TCP, UDP, Packet

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "cext"
OPTIONS = (
    *("-std=c11", "-O1", "-g", "-DCONFLUX_CHECK", "-Wall", "-Wextra", "-fno-omit-frame-pointer"),
    *("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"),
)


@dataclass(frozen=True)
class Native:
    """harness: a file of this directory.  sources: files of cext/ it is linked with.  libraries: as in -lNAME.

    included: files of cext/ that the harness itself includes, beside headers.
    """

    harness: str
    sources: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    included: tuple[str, ...] = ()
    seeds: Callable[[], list[bytes]] = field(default=list)


def packets() -> list[bytes]:
    """Return inputs of packet_fuzz.c: super-packets to be split into plain and into smaller ones."""
    super_packets = [
        Packet(bytes(1500), protocol, *addresses, tcp_options=options)
        for protocol in (TCP, UDP)
        for addresses in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2"))
        for options in (b"", bytes(12))
    ]
    found = [b"\x01\x00\x00" + PLAIN + each.pack(complete=True) for each in super_packets]
    for choices in (b"\x00", b"\x01"):
        found += [
            choices + b"\x03\x00" + each.offload(size) + each.pack(complete=False)
            for each in super_packets
            for size in (0, 200, 700)
        ]
    return found


SCTP = (*sorted(f"sctp/{path.name}" for path in (SOURCES / "sctp").glob("*.c")), "rate/rate.c")


def associations() -> list[bytes]:
    """Return scripts of sctp_fuzz.c: an association opened, messages both ways, streams reset, a goodbye."""
    opened = bytes([7])
    messages = bytes([8, 1, 40, 0, 3, 1, 9, 0, 90, 2, 0, 7, 0])
    return [
        opened + messages,
        opened + messages + bytes([10, 3, 2, 7, 0]),
        opened + messages + bytes([11, 0, 1, 7, 0]),
        opened + bytes([8, 1, 200, 0, 1, 0b101, 7, 2, 6, 20, 20, 7, 0]),
        opened + bytes([3, 0, 0, 3, 0, 1, 1, 1, 50, 3, 3, 2, 0, 0, 3, 0, 1, 0, 0]),
    ]


def records() -> list[bytes]:
    """Return inputs of dtls_fuzz.c, of every cipher: nothing of a genuine record changed, its length, its payload."""
    record = b"\x17\xfe\xfd\0\1" + bytes(6) + b"\0\x28" + bytes(40)
    changes = (b"", b"\0\x0b\xff", b"\0\x20\0\0\0\x16")
    return [bytes([cipher]) + each + b"\xff\xff\0" + record for cipher in range(3) for each in changes]


CYTHON = {path.with_suffix(".c") for path in SOURCES.rglob("*.pyx")}  # what Cython leaves beside its sources
# thread.c is a part of the harness, and the harness has a clock of its own.
IN_HARNESS = {SOURCES / "engine/thread.c", SOURCES / "engine/lock.c"}
ENGINE = tuple(sorted(str(path.relative_to(SOURCES)) for path in {*SOURCES.glob("*/*.c")} - CYTHON - IN_HARNESS))


def tables() -> list[bytes]:
    """Return scripts of map_fuzz.c: keys set until the table grows, found, replaced, removed in another order."""
    grown = b"".join(bytes([number, number % 4]) for number in range(48))
    return [b"\7" + grown + bytes([5, 1, 128 | 5, 128 | 5]) + bytes(128 | number for number in range(47, -1, -3))]


def queues() -> list[bytes]:
    """Return scripts of queue_fuzz.c: packets of several flows pushed, taken, put back, aged, cleared."""
    pushed = b"".join(bytes([0, flow, 2, flow]) for flow in (1, 2, 0x31, 1, 0x32, 17))
    taken = bytes([7, 1, 2, 0, 4, 0, 2, 0, 5, 2, 0, 6, 0, 200, 2, 0, 8, 9, 1, 6, 1, 0, 2, 0])
    return [b"\x40\x40\x40" + pushed + taken + pushed + bytes([7, 0, 6, 9, 9, 9, 1, 3]) + pushed + bytes([9, 0])]


def relays() -> list[bytes]:
    """Return scripts of relay_fuzz.c: a route added, frames both ways passed on, kept too long, and the route gone."""
    added = bytes([0, 0x10, 0x21, 0x11, 0x43])
    there, back = bytes([5, 2 << 2, 3, 0, 40]), bytes([5, 128 | 64 | 4 << 2 | 1, 0, 0, 9])
    limits = b"\x20\x20\x20\x08\x40\x00"
    return [limits + added + there * 3 + back + bytes([3, 1, 3, 0]) + there + bytes([2, 255, 255, 3, 1, 1, 0, 2])]


def engines() -> list[bytes]:
    """Return scripts of engine_fuzz.c: a packet through the stream, and a bundle and a frame of a peer that lies."""
    packet = bytes([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]) + bytes(8)
    bundle = bytes([1, 0, len(packet)]) + packet + bytes([4, 0, 0])
    through = bytes([1, 20]) + bytes(40) + bytes([7, 10]) + bytes(20)
    lie = bytes([3, len(bundle) // 2]) + bundle
    frame = bytes([4, 17, 1, 0, 0, 0, 0, 0, 0, 5]) + bytes(26)
    return [through + lie, lie + frame + through] + [through + bytes([9, 1, what, 0]) + through for what in range(12)]


NATIVE: dict[str, Native] = {
    "c-dtls": Native("dtls_fuzz.c", ("dtls/dtls.c",), ("crypto",), seeds=records),
    "c-engine": Native("engine_fuzz.c", ENGINE, ("crypto",), ("engine/thread.c",), seeds=engines),
    "c-map": Native("map_fuzz.c", ("base/map.c",), seeds=tables),
    "c-packet": Native("packet_fuzz.c", ("packet/packet.c",), seeds=packets),
    "c-queue": Native("queue_fuzz.c", ("queue/queue.c", "packet/packet.c"), seeds=queues),
    "c-relay": Native("relay_fuzz.c", ("relay/relay.c", "base/map.c"), seeds=relays),
    "c-sctp": Native("sctp_fuzz.c", SCTP, ("crypto",), seeds=associations),
}


def compiler() -> str:
    """Return a clang.  Raises SystemExit if there is none."""
    for name in ("clang", *(f"clang-{version}" for version in range(30, 13, -1))):
        if found := shutil.which(name):
            return found
    raise SystemExit("fuzzing C needs clang and its libFuzzer; on Debian: apt-get install clang libclang-rt-dev")


def build(target: str, directory: Path) -> Path:
    """Build a target below directory; return the program."""
    native = NATIVE[target]
    program = directory / target
    parts = (HERE / native.harness, *(SOURCES / name for name in native.sources))
    libraries = (f"-l{name}" for name in native.libraries)
    command = [compiler(), *OPTIONS, f"-I{SOURCES}", *map(str, parts), *libraries, "-o", str(program)]
    subprocess.run(command, check=True)
    return program
