"""Targets in C, under libFuzzer itself: clang builds each with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cext.offloads import PLAIN, TCP, UDP, Packet

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "cext"
OPTIONS = (
    *("-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-fno-omit-frame-pointer"),
    *("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"),
)


@dataclass(frozen=True)
class Native:
    """harness: a file of this directory.  sources: files of cext/ it is linked with.  libraries: as in -lNAME."""

    harness: str
    sources: tuple[str, ...]
    libraries: tuple[str, ...] = ()
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


SCTP = (
    *("sctp.c", "sctp_send.c", "sctp_loss.c", "sctp_receive.c", "sctp_reset.c", "sctp_mtu.c"),
    *("crc32c.c", "rate.c"),
)


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


NATIVE: dict[str, Native] = {
    "c-dtls": Native("dtls_fuzz.c", ("dtls.c",), ("crypto",), seeds=records),
    "c-packet": Native("packet_fuzz.c", ("packet.c",), seeds=packets),
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
