"""`conflux sdcard` on disks that the kernel has: loop devices, which stand in for cards.

image.img.zst -- conflux sdcard write --> /dev/loopN --> a file below /run/lab
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit.cards import MIB, Disk, image

from conflux.board import table
from conflux.board.fat import Fat
from conflux.board.flash import Target
from conflux.errors import UserError

PLACE = Path("/run/lab/cards")
SIZE = 64 * MIB
HALF = "is empty now, not half an image: no board starts from it; write it again"


@contextmanager
def card(size: int = SIZE) -> Iterator[tuple[str, Path]]:
    """Attach a disk, and yield its name and the file behind it; it goes when nothing has it open, however this ends."""
    PLACE.mkdir(parents=True, exist_ok=True)
    behind = PLACE / f"card-{os.urandom(4).hex()}"
    with behind.open("wb") as file:
        file.write(b"\xaa" * size)
    device = output("losetup", "--find", "--show", behind).strip()
    holding = os.open(device, os.O_RDONLY)
    try:
        output("losetup", "--detach", device)  # now, or when it is closed
        yield device, behind
    finally:
        os.close(holding)
        behind.unlink()


def output(*words: object) -> str:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def conflux(*words: object, given: str = "") -> subprocess.CompletedProcess[str]:
    command = ["conflux", "sdcard", *map(str, words)]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=60)


def configuration(behind: Path) -> str | None:
    """Return what the card's conflux.toml says.  Raises UserError if it has no partition table."""
    disk = Disk(behind.read_bytes())
    where = table.bootconfig(table.parse_untrusted(disk.read, "card"), "card")
    data = Fat(lambda offset, count: disk.read(where.offset + offset, count), None, "card").read("conflux.toml")
    return None if data is None else data.decode()


@pytest.fixture(scope="module")
def packed() -> Path:
    PLACE.mkdir(parents=True, exist_ok=True)
    plain = PLACE / "conflux-test.img"
    plain.write_bytes(image())
    output("zstd", "-qf", plain)
    path = PLACE / "conflux-test.img.zst"
    path.with_name(f"{path.name}.sha256").write_text(output("sha256sum", path))
    return path


def test_a_card_is_written_read_back_and_configured(packed: Path) -> None:
    with card() as (device, behind):
        done = conflux("write", packed, device, "--yes", "--force", "--name", "attic")
        assert done.returncode == 0, done.stderr
        assert "is what conflux-test.img.zst.sha256 says" in done.stdout
        assert "reads back as it was written" in done.stdout
        assert "verifying  100 %" in done.stderr
        plain = bytes(image())
        data = behind.read_bytes()
        assert (data[:MIB], data[6 * MIB : len(plain)]) == (plain[:MIB], plain[6 * MIB :])
        assert 'name = "attic"' in (configuration(behind) or "")
        assert data[-MIB:] == bytes(MIB)
        said = conflux("prepare", device, "--name", "barn", "--json")
        assert json.loads(said.stdout)["place"] == device, said.stderr
        assert 'name = "barn"' in (configuration(behind) or "")
        assert b"attic" not in behind.read_bytes()


def test_what_no_one_insists_on_is_refused_and_nothing_is_written(packed: Path) -> None:
    with card() as (device, behind):
        before = behind.read_bytes()
        for words, said in (
            (("write", packed, device, "--yes"), "is not a removable disk, says the kernel"),
            (("write", packed, device, "--force"), "no terminal to ask on"),
            (("write", packed.with_name("none.img"), device, "--force", "--yes"), "cannot read"),
            (("prepare", device, "--name", "attic"), "no image of Conflux"),
        ):
            done = conflux(*words)
            assert (done.returncode, done.stdout) == (1, ""), done.stderr
            assert said in done.stderr
        assert behind.read_bytes() == before
    with card(8 * MIB) as (device, behind):
        done = conflux("write", packed, device, "--force", "--yes")
        assert "is too small: the image needs" in done.stderr


def test_a_damaged_image_is_found_before_the_card_is_touched(packed: Path) -> None:
    damaged = packed.with_name("damaged.img.zst")
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    line = packed.with_name(f"{packed.name}.sha256").read_text().replace(packed.name, damaged.name)
    damaged.with_name(f"{damaged.name}.sha256").write_text(line)
    with card() as (device, behind):
        before = behind.read_bytes()
        done = conflux("write", damaged, device, "--force", "--yes")
        assert "damaged: its SHA-256 is not the one in" in done.stderr
        assert behind.read_bytes() == before


def test_another_card_in_the_same_slot_is_not_written(packed: Path) -> None:
    """A person reads the question, sees that it is the wrong card, and puts another in before answering."""
    with card() as (device, behind):
        pass  # the number of a free loop device
    behind, other = PLACE / "first", PLACE / "second"
    for path in (behind, other):
        path.write_bytes(b"\xaa" * SIZE)
    output("losetup", device, behind)
    with Target(Path(device)) as target:
        output("losetup", "--detach", device)
        output("losetup", device, other)
        with pytest.raises(UserError, match="or another card is in it: look again"):
            target.open()
    output("losetup", "--detach", device)
    assert other.read_bytes() == b"\xaa" * SIZE


def test_a_mounted_card_is_unmounted_at_a_word_and_the_systems_disk_never(packed: Path) -> None:
    with card() as (device, behind):
        output("mkfs.ext4", "-q", "-F", device)
        output("mount", device, "/mnt")
        done = conflux("write", packed, device, "--yes")
        assert "is mounted at /mnt: unmount it, or --force does it" in done.stderr
        with subprocess.Popen(["sleep", "60"], cwd="/mnt") as user:
            done = conflux("write", packed, device, "--yes", "--force")
            user.kill()
        assert "cannot unmount /mnt" in done.stderr
        done = conflux("write", packed, device, "--yes", "--force")
        assert done.returncode == 0, done.stderr
        assert not os.path.ismount("/mnt")
        configuration(behind)
    with card() as (device, behind):
        output("mkfs.ext4", "-q", "-F", device)
        place = PLACE / "srv"
        place.mkdir()
        output("mount", device, place)
        before = behind.read_bytes()
        for command in (("write", packed, device, "--yes", "--force"), ("prepare", device, "--name", "a", "--force")):
            done = conflux(*command)
            assert f"is in use by the running system: {place} is on it; nothing writes over that" in done.stderr
        assert behind.read_bytes() == before
        output("umount", place)


def test_a_disk_that_another_program_has_is_left_alone(packed: Path) -> None:
    with card() as (device, behind):
        held = os.open(device, os.O_RDONLY | os.O_EXCL)
        before = behind.read_bytes()
        done = conflux("write", packed, device, "--yes", "--force")
        os.close(held)
        assert f"cannot open {device}: it is in use: unmount it, and close what reads it" in done.stderr
        assert behind.read_bytes() == before


def test_ctrl_c_leaves_an_empty_card_and_says_so() -> None:
    large = PLACE / "large.img"
    data = bytearray(image(more=400 * MIB))
    large.write_bytes(data)
    with card(len(data)) as (device, behind):
        command = ["conflux", "sdcard", "write", str(large), device, "--yes", "--force", "--name", "attic"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writing:
            assert writing.stderr is not None
            assert writing.stderr.readline().startswith("writing ")
            writing.send_signal(signal.SIGINT)
            _, said = writing.communicate(timeout=60)
        assert writing.returncode == 130
        assert said.endswith(f"conflux: stopped: {device} {HALF}\n")
        with pytest.raises(UserError, match="no partition table"):
            configuration(behind)
        assert conflux("write", large, device, "--yes", "--force").returncode == 0
        assert configuration(behind) is None


def test_the_token_is_on_the_card_and_in_no_argument(packed: Path, tmp_path: Path) -> None:
    made = subprocess.run(
        [
            "sh",
            "-c",
            "conflux realm create home --node gate --state-dir $0 >&2 && conflux realm invite --quiet --state-dir $0",
            tmp_path / "s",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    token = made.stdout.strip()
    with card() as (device, behind):
        done = conflux("write", packed, device, "--yes", "--force", "--token-file", "-", given=made.stdout)
        assert done.returncode == 0, done.stderr
        assert token not in done.stdout + done.stderr
        assert f'token = "{token}"' in (configuration(behind) or "")
