"""The last partition of a disk grows to its end, also beside an old table that a boot ROM reads."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path

import pytest

from conflux.board.files import System
from conflux.board.partition import grow_partition

MIB = 1 << 20
SECTOR = 512
TABLE = "label: gpt\nsize=10M,name=bootconfig,type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\nsize=20M,name=data\n"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, 64 * MIB)
    subprocess.run(["/usr/sbin/sfdisk", "-q", disk], input=TABLE, text=True, check=True, capture_output=True)
    return disk


def partitions(disk: Path) -> dict[str, dict[str, int]]:
    """Return the partitions by name, as the table says them."""
    told = subprocess.run(["/usr/sbin/sfdisk", "--json", disk], check=True, capture_output=True, text=True).stdout
    return {each["name"]: each for each in json.loads(told)["partitiontable"]["partitions"]}


def old_table(disk: Path) -> bytes:
    with disk.open("rb") as file:
        return file.read(SECTOR)[446:]


def test_it_takes_all_of_a_larger_card_and_begins_where_it_did(disk):
    before = partitions(disk)
    os.truncate(disk, 300 * MIB)
    grow_partition(System(), disk, 2)
    after = partitions(disk)
    assert after["data"]["start"] == before["data"]["start"]
    assert after["bootconfig"] == before["bootconfig"]
    end = (after["data"]["start"] + after["data"]["size"]) * SECTOR
    assert 298 * MIB < end < 300 * MIB
    grow_partition(System(), disk, 2)
    assert partitions(disk) == after, "it may be repeated"


def test_what_the_boot_rom_of_a_pi_3_reads_stays(disk):
    with disk.open("r+b") as file:  # a hybrid table: the first partition stands in the old one too
        file.seek(446 + 16)
        file.write(struct.pack("<B3sB3sII", 0x80, b"\0\x20\x21", 0x0C, b"\x07\x66\x25", 2048, 10 * MIB // SECTOR))
    before = old_table(disk)
    os.truncate(disk, 300 * MIB)
    grow_partition(System(), disk, 2)
    assert old_table(disk) == before
    assert partitions(disk)["data"]["size"] * SECTOR > 250 * MIB


def test_a_disk_without_a_table_is_refused(tmp_path):
    empty = tmp_path / "disk"
    empty.write_bytes(bytes(8 * MIB))
    with pytest.raises(OSError, match="sfdisk"):
        grow_partition(System(), empty, 2)
