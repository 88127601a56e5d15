"""An image on its way to a card: what is on the card at every moment, and what is said when something is wrong."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
from kit.cards import MIB, STAMP, Disk, PulledOut, image

from conflux.board import disk, flash, table
from conflux.board.fat import Fat
from conflux.board.image import Image
from conflux.errors import UserError

CONFIG = b'[board]\nname = "attic"\n'


class Target(Disk):
    """A card of bytes, with the doors of flash.Target.  wrong_at: a place that keeps nothing."""

    def __init__(self, size: int) -> None:
        super().__init__(b"\xaa" * size)
        self.what = "/dev/sdx"
        self.disk = disk.Disk("8:16", "sdx", "a card", size, 512, True, False, (), None)
        self.wrong_at: int | None = None

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        assert offset % 512 == 0
        assert len(data) % 512 == 0
        assert len(data) <= flash.PART_BYTES
        super().write(offset, bytes(data))
        if self.wrong_at is not None and offset <= self.wrong_at < offset + len(data):
            self.data[self.wrong_at] ^= 1

    def flush(self) -> None:
        pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "conflux-test.img"
    place.write_bytes(image())
    return place


def put(path: Path, target: Target, config: bytes | None = CONFIG) -> list[tuple[str, int, int]]:
    said: list[tuple[str, int, int]] = []
    with Image(path) as source:
        found, head = source.read_head()
        if config is not None:
            flash.put_config(head, found, config, STAMP, source.name)
        flash.write(source, found, head, target, lambda *state: said.append(state))
    return said


def on(target: Target) -> tuple[table.Table, Fat]:
    found = table.parse_untrusted(target.read, "card")
    place = table.bootconfig(found, "card")
    return found, Fat(lambda offset, count: target.read(place.offset + offset, count), None, "card")


@pytest.mark.parametrize("more", [0, 512, MIB, 30 * MIB])
def test_a_card_has_the_image_and_the_configuration(path, more):
    plain = image()
    target = Target(len(plain) + more)
    said = put(path, target)
    found, fat = on(target)
    assert fat.read("conflux.toml") == CONFIG
    assert fat.read("config.txt") == b"arm_64bit=1\n"
    config = found.partitions[0]
    end = config.offset + config.size
    assert target.data[: config.offset] == plain[: config.offset]
    assert target.data[end : len(plain)] == plain[end:]
    assert said[-1][0] == "verifying"
    assert {done for _, done, _ in said} >= {len(plain)}


def test_without_a_configuration_it_is_the_image_to_the_byte(path):
    target = Target(len(image()))
    put(path, target, None)
    assert target.data == image()


def test_a_table_of_before_at_the_end_of_the_card_goes(path):
    target = Target(len(image()) + 5 * MIB)
    put(path, target)
    assert target.data[-MIB:] == bytes(MIB)


@pytest.mark.parametrize("suffix", [".xz"])
def test_a_compressed_image_is_unpacked(path, suffix):
    packed = path.with_name(path.name + suffix)
    packed.write_bytes(lzma.compress(image(), preset=0))
    target = Target(len(image()))
    put(packed, target, None)
    assert target.data == image()


def test_an_image_that_is_cut_off_leaves_an_empty_card(path):
    whole = image()
    target = Target(len(whole))
    path.write_bytes(whole[:-MIB])
    with pytest.raises(UserError, match=r"cut off after \d+ MB of"):
        put(path, target)
    with pytest.raises(UserError, match="no partition table"):
        on(target)
    packed = path.with_name("a.img.xz")
    packed.write_bytes(lzma.compress(whole, preset=0)[:-2000])
    with pytest.raises(UserError, match=r"a\.img\.xz"):
        put(packed, target)


def test_an_image_that_goes_on_behind_its_end_is_refused(path):
    target = Target(len(image()) + 4 * MIB)
    path.write_bytes(image() + bytes(512))
    with pytest.raises(UserError, match="longer than its partition table says"):
        put(path, target)
    with pytest.raises(UserError, match="no partition table"):
        on(target)


@pytest.mark.parametrize("at", [MIB + 700, 6 * MIB, 100])
def test_a_card_that_does_not_keep_what_is_written_is_found(path, at):
    target = Target(len(image()))
    target.wrong_at = at
    with pytest.raises(UserError, match="it does not read as it was written: the card is worn out"):
        put(path, target)


def test_whenever_it_stops_the_card_is_empty_or_whole(path):
    whole = Target(len(image()))
    put(path, whole)
    for count in range(1, 100):
        target = Target(len(image()))
        target.writes = count
        try:
            put(path, target)
        except PulledOut:
            with pytest.raises(UserError, match="no partition table"):
                on(target)
        else:
            assert target.data == whole.data
            return
    pytest.fail("it never came to its end")


@pytest.mark.parametrize(
    ("magic", "words"), [(b"\x1f\x8b\x08\x00", "compressed by gzip: unpack it"), (b"PK\x03\x04", "compressed by zip")]
)
def test_other_compressions_are_named(path, magic, words):
    path.write_bytes(magic + bytes(2000))
    with pytest.raises(UserError, match=words):
        Image(path)


def test_an_image_is_compared_with_the_sum_beside_it(path):
    import hashlib

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with Image(path) as source:
        assert source.check(lambda done, size: None) is None
    for name in ("conflux-test.img.sha256", "conflux-test.sha256", "SHA256SUMS"):
        beside = path.with_name(name)
        beside.write_text(f"{digest}  {path.name}\n")
        with Image(path) as source:
            assert source.check(lambda done, size: None) == name
            source.read_head()
        beside.write_text(f"{'0' * 64}  {path.name}\n")
        with Image(path) as source, pytest.raises(UserError, match=f"its SHA-256 is not the one in {name}"):
            source.check(lambda done, size: None)
        beside.unlink()
    path.with_name(f"{path.name}.sha256").write_text("nonsense\n")
    with Image(path) as source, pytest.raises(UserError, match="it has no SHA-256 of"):
        source.check(lambda done, size: None)


def test_an_empty_file_is_no_image(path):
    path.write_bytes(b"")
    with Image(path) as source, pytest.raises(UserError, match="no image of Conflux"):
        source.read_head()
