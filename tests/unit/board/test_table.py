"""A partition table: what is believed of it, and what is not."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from kit.cards import LAYOUT, MIB, header, image

from conflux.board import table
from conflux.errors import UserError


def parse(disk: bytes | bytearray) -> table.Table:
    return table.parse_untrusted(lambda offset, count: bytes(disk[offset : offset + count]), "x.img")


def test_a_table_says_where_everything_is():
    disk = image()
    found = parse(disk)
    assert found.disk_bytes == len(disk)
    assert [each.name for each in found.partitions] == [name for name, _ in LAYOUT]
    config = table.bootconfig(found, "x.img")
    assert (config.offset, disk[config.offset + 510 : config.offset + 512]) == (MIB, b"\x55\xaa")
    assert found.find("none") is None


def test_what_has_no_table_is_no_image():
    for data in (b"", bytes(4096), b"\x28\xb5\x2f\xfd" * 4096):
        with pytest.raises(UserError, match=r"x\.img: no image of Conflux: it has no partition table"):
            parse(data)


def test_an_image_of_something_else_is_refused():
    disk = image()
    found = parse(disk)
    with pytest.raises(UserError, match="it has no partition bootconfig"):
        table.bootconfig(found._replace(partitions=found.partitions[1:]), "x.img")


@pytest.mark.parametrize("at", [512 + 8, 512 + 16, 512 + 32, 512 + 72, 1024, 1024 + 56, 1024 + 127 * 128])
def test_a_damaged_table_is_refused(at):
    disk = image()
    disk[at] ^= 1
    with pytest.raises(UserError, match="its partition table is damaged"):
        parse(disk)


@pytest.mark.parametrize(
    "wrong",
    [
        {"entries_at": 0},
        {"entries_at": 1 << 40},
        {"count": 0},
        {"count": 4096},
        {"entry_bytes": 0},
        {"entry_bytes": 1 << 30},
    ],
)
def test_a_table_whose_checksum_holds_is_not_believed_either(wrong):
    disk = image()
    forged = header(disk[1024 : 1024 + 128 * 128], len(disk) // 512 - 1, **wrong)
    disk[512 : 512 + len(forged)] = forged
    with pytest.raises(UserError, match="its partition table is damaged"):
        parse(disk)


def test_a_partition_outside_the_disk_is_refused():
    disk = image()
    forged = header(disk[1024 : 1024 + 128 * 128], 100)
    disk[512 : 512 + len(forged)] = forged
    with pytest.raises(UserError, match="lies outside the disk"):
        parse(disk)


def test_no_bytes_make_it_do_anything_but_refuse():
    disk = image()
    for seed in range(200):
        draw = random.Random(seed)
        damaged = bytearray(disk[: 1024 + 128 * 128])
        for _ in range(draw.choice((1, 3, 30))):
            damaged[draw.randrange(512, 1200)] = draw.randrange(256)
        with suppress(UserError):
            parse(damaged)
