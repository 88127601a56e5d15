"""U-Boot and its script alone: which slot starts, how tries are counted, and what a torn record costs.

The kernels here are 80 bytes: they restart the board at once, as one that panics does.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from image.disk import MIB, Disk, Image, command, partitions
from image.vm import Machine
from kit.tree import TREE

CHOSEN = r"conflux: slot ([AB]), (\d) tries left after this one"
SLOT_S = 60  # U-Boot is there within 10 s on a machine that does nothing else
RECORD_BYTES = 0x4000
COPY_AT = 0x8000
PARTS = {"bootconfig": 16, "bootstate": 1, "boot_a": 16, "boot_b": 16}  # MiB


def kernel() -> bytes:
    """Return an arm64 Image (Documentation/arch/arm64/booting.rst) that asks PSCI for a restart."""
    size = 80
    header = struct.pack("<II6Q4sI", 0x14000010, 0, 0, size, 0, 0, 0, 0, b"ARM\x64", 0)
    code = (0xD2800120, 0xF2B08000, 0xD4000002, 0x14000000)  # x0 = 0x84000009, SYSTEM_RESET; hvc #0; b .
    return header + struct.pack("<4I", *code)


def record(order: str, a: int, b: int) -> bytes:
    """Return the state as libubootenv writes it."""
    text = f"BOOT_ORDER={order}\0BOOT_A_LEFT={a}\0BOOT_B_LEFT={b}\0\0".encode().ljust(RECORD_BYTES - 4, b"\0")
    return struct.pack("<I", zlib.crc32(text)) + text


def fat(place: Path, mib: int, files: dict[str, bytes]) -> Path:
    """Make a FAT file system with files."""
    with place.open("wb") as file:
        file.truncate(mib * MIB)
    command("mkfs.vfat", "-n", "SLOT", place)
    for name, content in files.items():
        command("mcopy", "-i", place, "-", f"::{name}", given=content)
    return place


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("boot-script")
    script = folder / "boot.scr"
    command("mkimage", "-A", "arm64", "-T", "script", "-C", "none", "-d", TREE / "images/boot/boot.cmd", script)
    environment = (TREE / "images/boards/qemu-virt/boot.env").read_bytes()
    slot = {"vmlinuz": kernel(), "initrd.img": b"initrd"}
    files: dict[str, dict[str, bytes]] = {
        "bootconfig": {"boot.scr": script.read_bytes(), "boot.env": environment},
        "boot_a": slot,
        "boot_b": slot,
    }
    disk = folder / "disk.img"
    with disk.open("wb") as file:
        file.truncate((sum(PARTS.values()) + 2) * MIB)
    table = "".join(f"name={name}, size={mib}MiB\n" for name, mib in PARTS.items())
    command("sfdisk", "-q", disk, given=f"label: gpt\n{table}".encode())
    found = partitions(disk)
    with disk.open("r+b") as out:
        for name, content in files.items():
            out.seek(found[name].start)
            out.write(fat(folder / name, PARTS[name], content).read_bytes())
    return Image("none", disk, found)


@pytest.fixture
def board(image: Image, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine("board", Disk(image, tmp_path / "board.qcow2"), folder=tmp_path, memory_mb=256)
    yield machine
    machine.cut_power()


def chosen(board: Machine, count: int, *, never: str | None = None) -> list[tuple[str, int]]:
    """Return the next slots that are tried, each with the tries that it has left.  never: what may not be said."""
    found = (board.expect(CHOSEN, within_s=SLOT_S, never=never) for _ in range(count))
    return [(match[1], int(match[2])) for match in found]


def empty(board: Machine, slot: str) -> None:
    """Make a slot one that nothing was ever written to."""
    board.disk.overwrite(slot, bytes(MIB))


def test_each_slot_has_three_tries_and_then_all_begin_anew(board: Machine) -> None:
    board.power_on()
    assert chosen(board, 6) == [("A", 2), ("A", 1), ("A", 0), ("B", 2), ("B", 1), ("B", 0)]
    board.expect("no slot is left to try: all begin anew", within_s=SLOT_S)
    assert chosen(board, 1) == [("A", 2)]


def test_a_slot_that_does_not_load_is_passed_at_once(board: Machine) -> None:
    empty(board, "boot_b")
    board.disk.overwrite("bootstate", record("B A", 3, 3))
    board.power_on()
    assert chosen(board, 1) == [("B", 2)]
    board.expect("conflux: slot B does not load", within_s=SLOT_S)
    assert chosen(board, 1, never="U-Boot 20|begin anew") == [("A", 2)]
    assert chosen(board, 1) == [("A", 1)]


def test_a_flashed_board_stays_with_a_however_often_its_power_is_cut(board: Machine) -> None:
    empty(board, "boot_b")
    board.power_on()
    assert chosen(board, 4) == [("A", 2), ("A", 1), ("A", 0), ("B", 2)]
    board.expect("all begin anew", within_s=SLOT_S)
    assert chosen(board, 1) == [("A", 2)]


def test_the_order_that_an_update_wrote_counts(board: Machine) -> None:
    board.disk.overwrite("bootstate", record("B A", 3, 2))
    board.power_on()
    assert chosen(board, 3) == [("B", 1), ("B", 0), ("A", 2)]


def test_a_record_that_was_torn_costs_nothing(board: Machine) -> None:
    board.disk.overwrite("bootstate", record("B A", 3, 3))
    board.power_on()
    assert chosen(board, 1) == [("B", 2)]
    board.expect("U-Boot 20", within_s=SLOT_S)  # it was written, and the kernel ran
    board.cut_power()
    board.disk.overwrite("bootstate", b"torn" * 256, at=512)
    board.power_on()
    assert chosen(board, 2) == [("B", 1), ("B", 0)]


def test_two_torn_records_begin_anew(board: Machine) -> None:
    for at in (0, COPY_AT):
        board.disk.overwrite("bootstate", b"torn" * 4096, at=at)
    board.power_on()
    assert chosen(board, 1) == [("A", 2)]


@pytest.mark.parametrize("left", ["", "x", "-1", "0x", "99999999999999999999"])
def test_a_count_that_is_none_does_not_stop_the_board(board: Machine, left: str) -> None:
    text = f"BOOT_ORDER=C A {left} B\0BOOT_A_LEFT={left}\0BOOT_B_LEFT=2\0\0".encode().ljust(RECORD_BYTES - 4, b"\0")
    board.disk.overwrite("bootstate", struct.pack("<I", zlib.crc32(text)) + text)
    board.power_on()
    assert chosen(board, 1)[0][0] in "AB"
