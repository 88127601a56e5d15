"""Other programs read the file systems and tables that are changed here, and find them sound."""

from __future__ import annotations

import lzma
import os
import re
import subprocess
from pathlib import Path

import pytest
from kit.cards import STAMP, Disk, image

from conflux.board import table
from conflux.board.fat import Fat
from conflux.board.image import Image
from conflux.errors import UserError

KINDS = {
    "12": ("-F", "12", 4),
    "16": ("-F", "16", 48),
    "32": ("-F", "32", 66),
    "as the image's": ("-n", "BOOTCONFIG", 48),
}


def run(*words: object, code: int = 0) -> str:
    environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done.stdout


def opened(path: Path) -> tuple[Disk, Fat]:
    disk = Disk(path.read_bytes())
    return disk, disk.fat()


@pytest.fixture(params=KINDS)
def formatted(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    option, value, megabytes = KINDS[request.param]
    path = tmp_path / "fat"
    with path.open("wb") as file:
        file.truncate(megabytes << 20)
    run("mkfs.vfat", option, value, path)
    return path


def test_mtools_read_what_is_saved_and_fsck_finds_nothing(formatted, tmp_path):
    disk, fat = opened(formatted)
    fat.save("conflux.toml", b"old" * 5000, STAMP)
    fat.save("conflux.toml", b'[board]\nname = "attic"\n', STAMP)
    fat.save("a rather long name of a file.txt", b"x" * 70_000, STAMP)
    fat.save("gone.log", b"y" * 3000, STAMP)
    fat.remove("gone.log")
    formatted.write_bytes(disk.data)
    assert run("mtype", "-i", formatted, "::conflux.toml") == '[board]\nname = "attic"\n'
    listed = run("mdir", "-i", formatted, "::")
    assert "conflux.toml" in listed
    assert "a rather long name of a file.txt" in listed
    assert "gone" not in listed
    assert "2026-12-01  10:30" in listed
    said = run("fsck.vfat", "-n", "-v", formatted)
    assert re.search(r"[23] files", said)  # a label counts too
    assert "differ" not in said


def test_what_mtools_saved_is_read_and_replaced(formatted, tmp_path):
    (tmp_path / "conflux.toml").write_bytes(b"theirs" * 9000)
    (tmp_path / "config.txt").write_bytes(b"arm_64bit=1\n")
    run("mcopy", "-i", formatted, tmp_path / "conflux.toml", tmp_path / "config.txt", "::")
    run("mmd", "-i", formatted, "::overlays")
    disk, fat = opened(formatted)
    assert fat.read("conflux.toml") == b"theirs" * 9000
    assert fat.read("CONFIG.TXT") == b"arm_64bit=1\n"
    assert [entry.name for entry in fat.entries() if entry.is_folder] == ["overlays"]
    fat.save("conflux.toml", b"ours", STAMP)
    fat.remove("config.txt")
    formatted.write_bytes(disk.data)
    assert run("mtype", "-i", formatted, "::conflux.toml") == "ours"
    run("fsck.vfat", "-n", "-v", formatted)


def test_a_table_that_sfdisk_wrote_is_read(tmp_path):
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    plan = 'label: gpt\nstart=2048, size=98304, name="bootconfig"\nsize=2048, name="bootstate"\nname="data"\n'
    (tmp_path / "plan").write_text(plan)
    run("sh", "-c", 'sfdisk -q "$1" < "$2"', "sh", path, tmp_path / "plan")
    data = path.read_bytes()
    found = table.parse_untrusted(lambda offset, count: data[offset : offset + count], "x")
    assert [each.name for each in found.partitions] == ["bootconfig", "bootstate", "data"]
    assert found.find("bootconfig") == table.Partition("bootconfig", 1 << 20, 48 << 20)
    assert found.disk_bytes == len(data)


@pytest.mark.parametrize("kind", ["zstd", "xz"])
def test_a_packed_image_is_read_and_a_damaged_one_refused(tmp_path, kind):
    plain = bytes(image())
    path = tmp_path / f"a.img.{kind}"
    if kind == "xz":
        path.write_bytes(lzma.compress(plain, preset=0))
    else:
        (tmp_path / "a.img").write_bytes(plain)
        run("zstd", "-q", tmp_path / "a.img", "-o", path)
    with Image(path) as source:
        _, head = source.read_head()
        assert bytes(head) + source.read(len(plain)) == plain
        assert source.read(1) == b""
    path.write_bytes(path.read_bytes()[:-9])
    with Image(path) as source:
        source.read_head()
        with pytest.raises(UserError, match=rf"a\.img\.{kind}: "):
            source.read(len(plain))


def test_an_image_that_is_left_early_leaves_no_process(tmp_path):
    (tmp_path / "a.img").write_bytes(bytes(image()) + bytes(32 << 20))
    run("zstd", "-q", tmp_path / "a.img", "-o", tmp_path / "a.img.zst")
    with Image(tmp_path / "a.img.zst") as source:
        source.read_head()
    assert source._zstd is None or source._zstd.returncode is not None
