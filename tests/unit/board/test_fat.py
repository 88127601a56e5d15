"""A FAT file system: what is saved is read, what is cut off leaves the old file, and no byte of it is believed."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from kit.cards import STAMP, Disk, PulledOut, formatted, free_clusters

from conflux.board.fat import FILE_BYTES_MAX, Fat
from conflux.errors import UserError

KINDS = (12, 16, 32)
WRITTEN_OFTEN = (12, 16, pytest.param(32, marks=pytest.mark.slow("a FAT32 has 34 MB at least, copied each time")))


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest) -> Disk:
    return Disk(formatted(request.param))


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 40_000])
def test_what_is_saved_is_read(disk, size):
    data = random.Random(size).randbytes(size)
    disk.fat().save("conflux.toml", data, STAMP)
    assert disk.fat().read("conflux.toml") == data
    assert disk.fat().read("CONFLUX.TOML") == data
    assert [(entry.name, entry.short, entry.size) for entry in disk.fat().entries()] == [
        ("conflux.toml", "CONFLU~1.TOM", size)
    ]


def test_a_file_is_replaced_and_its_room_is_free_again(disk):
    free = free_clusters(disk.fat())
    disk.fat().save("conflux.toml", b"token = 'secret one'" * 99, STAMP)
    disk.fat().save("conflux.toml", b"name = 'attic'", STAMP)
    assert disk.fat().read("conflux.toml") == b"name = 'attic'"
    assert free_clusters(disk.fat()) == free - 1
    assert b"secret one" not in disk.data


def test_a_removed_file_is_gone_and_overwritten(disk):
    free = free_clusters(disk.fat())
    disk.fat().save("first-boot.log", b"secret" * 500, STAMP)
    disk.fat().remove("First-Boot.log")
    assert disk.fat().entries() == []
    assert free_clusters(disk.fat()) == free
    assert b"secret" not in disk.data
    disk.fat().remove("first-boot.log")


def test_both_copies_of_the_table_are_the_same(disk):
    disk.fat().save("conflux.toml", b"x" * 3000, STAMP)
    fat = disk.fat()
    first = disk.read(fat._fat_at, fat._fat_bytes)
    assert first == disk.read(fat._fat_at + fat._fat_bytes, fat._fat_bytes)


def test_files_with_like_names_get_short_names_of_their_own(disk):
    names = [f"conflux-{number}.toml" for number in range(12)]
    for name in names:
        disk.fat().save(name, name.encode(), STAMP)
    assert [disk.fat().read(name) for name in names] == [name.encode() for name in names]
    assert len({entry.short for entry in disk.fat().entries()}) == len(names)


def test_a_name_takes_the_place_of_a_removed_one(disk):
    for _ in range(40):  # more than the folder has room for
        disk.fat().save("conflux.toml", b"x", STAMP)
        disk.fat().remove("conflux.toml")
    assert disk.fat().entries() == []


def test_a_full_folder_of_fixed_size_is_said():
    disk = Disk(formatted(16, root_entries=16))
    for number in range(8):
        disk.fat().save(f"f{number}", b"x", STAMP)
    with pytest.raises(UserError, match="its top folder is full"):
        disk.fat().save("f9", b"x", STAMP)


def test_a_folder_that_can_grow_grows():
    disk = Disk(formatted(32))
    names = [f"file number {number}.toml" for number in range(60)]
    for name in names:
        disk.fat().save(name, name.encode(), STAMP)
    assert [disk.fat().read(name) for name in names] == [name.encode() for name in names]


def test_a_full_file_system_leaves_the_old_file():
    disk = Disk(formatted(16, clusters=4100))
    disk.fat().save("conflux.toml", b"old", STAMP)
    for number in range(5):
        disk.fat().save(f"full{number}", bytes(min(free_clusters(disk.fat()) * 512, FILE_BYTES_MAX)), STAMP)
    before = bytes(disk.data)
    with pytest.raises(UserError, match=r"no room for conflux\.toml: remove files"):
        disk.fat().save("conflux.toml", b"new", STAMP)
    assert bytes(disk.data) == before


@pytest.mark.parametrize("bits", WRITTEN_OFTEN)
def test_a_card_pulled_out_at_any_write_has_the_old_file_or_the_new_one(bits):
    former = Disk(formatted(bits, clusters={12: 100, 16: 4100, 32: 65600}[bits]))
    former.fat().save("conflux.toml", b"old" * 300, STAMP)
    for count in range(100):
        disk = Disk(former.data)
        disk.writes = count
        try:
            disk.fat().save("conflux.toml", b"new" * 400, STAMP)
        except PulledOut:
            disk.writes = None
            assert disk.fat().read("conflux.toml") in (b"old" * 300, b"new" * 400)
            disk.fat().save("conflux.toml", b"again", STAMP)
            assert disk.fat().read("conflux.toml") == b"again"
        else:
            assert count > 5
            return
    pytest.fail("the file was never saved")


def test_a_folder_of_that_name_is_left_alone(disk):
    disk.fat().save("conflux.toml", b"x", STAMP)
    fat = disk.fat()
    entry = fat.entries()[0]
    raw = bytearray(fat._folder()[entry.at * 32 : entry.at * 32 + 32])
    raw[11] = 0x10
    fat._put_entries(entry.at, bytes(raw))
    with pytest.raises(UserError, match="is a folder there"):
        disk.fat().save("conflux.toml", b"y", STAMP)
    assert disk.fat().read("conflux.toml") is None


@pytest.mark.parametrize("bits", WRITTEN_OFTEN)
def test_no_bytes_make_it_do_anything_but_refuse(bits):
    disk = Disk(formatted(bits))
    disk.fat().save("conflux.toml", b"x" * 2000, STAMP)
    disk.fat().save("other file.txt", b"y" * 2000, STAMP)
    end = disk.fat()._data_at + 512 * 20
    for seed in range(60 if bits == 32 else 300):
        draw = random.Random(seed)
        damaged = Disk(disk.data)
        for _ in range(draw.choice((1, 1, 3, 30))):
            at = draw.randrange(64) if draw.random() < 0.4 else draw.randrange(end)
            damaged.data[at] = draw.randrange(256)
        for act in (
            lambda fat: fat.read("conflux.toml"),
            lambda fat: fat.save("conflux.toml", b"z" * 900, STAMP),
            lambda fat: fat.remove("other file.txt"),
        ):
            with suppress(UserError):
                act(damaged.fat())


@pytest.mark.parametrize("data", [b"", b"\0" * 512, b"\xff" * 4096])
def test_what_is_no_file_system_is_refused(data):
    disk = Disk(data)
    with pytest.raises(UserError, match="card: "):
        disk.fat()


def test_a_chain_without_end_is_refused():
    disk = Disk(formatted(16))
    disk.fat().save("conflux.toml", b"x" * 2000, STAMP)
    fat = disk.fat()
    first = fat.entries()[0].cluster
    fat._set(first + 1, first)
    fat._put_table()
    with pytest.raises(UserError, match="a chain of clusters leads nowhere"):
        disk.fat().read("conflux.toml")


def test_who_only_reads_writes_nothing():
    disk = Disk(formatted(16))
    with pytest.raises(ValueError, match="for reading"):
        Fat(disk.read, None, "card").save("conflux.toml", b"x", STAMP)
