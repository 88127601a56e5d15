"""Which disk may be written: what the kernel says of it is laid out in a folder here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conflux.board.disk import Kernel, refusal
from conflux.errors import UserError

GB = 1_000_000_000
IMAGE = 1_400_000_000


class Host:
    """The files of a host's kernel: disks and their partitions, mounts and swaps."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("sys/block", "sys/dev/block", "proc/self", "dev"):
            (root / folder).mkdir(parents=True)
        self.put("proc/swaps", "Filename Type Size Used Priority\n")
        self.mounts: list[str] = []
        self.kernel = Kernel(root)

    def put(self, place: str, text: str) -> None:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def disk(self, name: str, minor: int, *, size: int = 32 * GB, removable: int = 0, **files: str) -> int:
        base = f"sys/devices/{name}"
        self.put(f"{base}/dev", f"8:{minor}")
        self.put(f"{base}/size", str(size // 512))
        self.put(f"{base}/removable", str(removable))
        self.put(f"{base}/ro", "0")
        self.put(f"{base}/queue/logical_block_size", "512")
        for file, text in files.items():
            self.put(f"{base}/{file.replace('__', '/')}", text)
        (self.root / "sys/block" / name).symlink_to(self.root / base)
        (self.root / "sys/dev/block" / f"8:{minor}").symlink_to(self.root / base)
        return os.makedev(8, minor)

    def partition(self, name: str, part: str, minor: int) -> int:
        base = f"sys/devices/{name}/{part}"
        self.put(f"{base}/dev", f"8:{minor}")
        self.put(f"{base}/partition", "1")
        (self.root / "sys/dev/block" / f"8:{minor}").symlink_to(self.root / base)
        return os.makedev(8, minor)

    def mount(self, device: str, place: str, source: str = "/dev/none") -> None:
        self.mounts.append(f"36 35 {device} / {place} rw,noatime - ext4 {source} rw")
        self.put("proc/self/mountinfo", "\n".join(self.mounts))

    def why(self, number: int, *, force: bool = False) -> str | None:
        return refusal(self.kernel.disk(number, "/dev/x"), IMAGE, force=force)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_card_in_a_reader_is_taken(host):
    number = host.disk("sdb", 16, removable=1, device__vendor="Generic-", device__model="SD/MMC")
    assert host.why(number) is None
    assert host.kernel.disk(number, "/dev/sdb").words() == "/dev/sdb (Generic- SD/MMC, 32.0 GB)"
    assert [disk.name for disk in host.kernel.plugged_in()] == ["sdb"]


def test_a_card_in_a_slot_of_its_own_is_taken_and_soldered_memory_is_not(host):
    card = host.disk("mmcblk0", 32, device__type="SD", device__name="SD32G")
    soldered = host.disk("mmcblk1", 48, device__type="MMC")
    assert host.why(card) is None
    assert "is not a removable disk" in host.why(soldered)


def test_a_disk_that_does_not_say_it_is_removable_wants_a_word(host):
    number = host.disk("sdb", 16)
    assert host.why(number).endswith("Compute Module's memory on USB: if you are sure, --force")
    assert host.why(number, force=True) is None


def test_a_mounted_card_wants_a_word(host):
    number = host.disk("sdb", 16, removable=1)
    host.partition("sdb", "sdb1", 17)
    host.mount("8:17", "/media/anna/BOOT\\040CONFIG")
    assert "is mounted at /media/anna/BOOT CONFIG: unmount it, or --force does it" in host.why(number)
    assert host.why(number, force=True) is None


@pytest.mark.parametrize("place", ["/", "/boot/firmware", "/home", "/srv", "/mediaserver", "/data"])
def test_the_disk_of_the_running_system_is_never_taken(host, place):
    number = host.disk("sda", 0, removable=1)
    host.partition("sda", "sda2", 2)
    host.mount("8:2", place)
    assert f"is in use by the running system: {place} is on it" in host.why(number, force=True)
    assert host.kernel.plugged_in() == []


def test_a_file_system_over_several_disks_is_found_by_its_source(host, monkeypatch):
    number = host.disk("sda", 0, removable=1)
    host.partition("sda", "sda2", 2)
    host.mount("0:31", "/", "/dev/sda2")
    monkeypatch.setattr(Kernel, "_number", lambda kernel, source: "8:2" if source == "/dev/sda2" else None)
    assert "/ is on it" in host.why(number, force=True)


def test_swap_is_the_running_systems(host, monkeypatch):
    number = host.disk("sda", 0, removable=1)
    host.partition("sda", "sda3", 3)
    host.put("proc/swaps", "Filename Type Size\n/dev/sda3 partition 1 0 -2")
    monkeypatch.setattr(Kernel, "_number", lambda kernel, source: "8:3" if source == "/dev/sda3" else None)
    assert "swap is on it" in host.why(number, force=True)


@pytest.mark.parametrize("place", ["holders/dm-0", "sda2/holders/md127"])
def test_what_a_volume_is_made_of_is_the_running_systems(host, place):
    number = host.disk("sda", 0, removable=1)
    host.partition("sda", "sda2", 2)
    host.put(f"sys/devices/sda/{place}/dev", "253:0")
    assert "is made of it" in host.why(number, force=True)


def test_the_disk_under_a_live_system_is_the_running_systems(host, monkeypatch):
    number = host.disk("sda", 0, removable=1)
    host.disk("loop0", 70)
    host.put("sys/devices/loop0/loop/backing_file", "/run/live/medium/filesystem.squashfs")
    monkeypatch.setattr(Kernel, "_lies_on", lambda kernel, backing, parts: "live" in backing)
    assert "loop0 reads a file of it" in host.why(number, force=True)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"size": 1 * GB}, "is too small: the image needs 1.4 GB"),
        ({"size": 0}, "no card is in it"),
        ({"ro": "1"}, "is write-protected"),
        ({"queue__logical_block_size": "4096"}, "has sectors of 4096 bytes"),
    ],
)
def test_a_disk_that_cannot_hold_the_image_is_never_taken(host, files, words):
    number = host.disk("sdb", 16, removable=1, **files)
    assert words in host.why(number, force=True)


def test_a_partition_is_no_disk(host):
    host.disk("sdb", 16, removable=1)
    number = host.partition("sdb", "sdb1", 17)
    with pytest.raises(UserError, match="/dev/x is a partition: name the whole disk, /dev/sdb"):
        host.why(number)


def test_a_disk_that_the_kernel_does_not_know_is_refused(host):
    with pytest.raises(UserError, match="/dev/x: the kernel knows no such disk"):
        host.why(os.makedev(8, 99))


def test_another_card_in_the_same_place_is_another_disk(tmp_path):
    host = Host(tmp_path)
    number = host.disk("sdb", 16, removable=1, device__model="Reader", diskseq="7")
    first = host.kernel.disk(number, "/dev/sdb")
    host.mount("8:16", "/media/anna/card")  # a desktop's doing, and no other disk
    assert first.is_still(host.kernel.disk(number, "/dev/sdb"))
    for file, text in (("diskseq", "8"), ("size", "1000"), ("device/model", "Other"), ("ro", "1")):
        before = (tmp_path / "sys/devices/sdb" / file).read_text()
        host.put(f"sys/devices/sdb/{file}", text)
        assert not first.is_still(host.kernel.disk(number, "/dev/sdb"))
        host.put(f"sys/devices/sdb/{file}", before.strip())
    host.mount("8:16", "/srv")
    assert not first.is_still(host.kernel.disk(number, "/dev/sdb"))


def test_a_kernel_without_sequence_numbers_tells_disks_by_what_it_knows(tmp_path):
    host = Host(tmp_path)
    number = host.disk("sdb", 16, removable=1)
    disk = host.kernel.disk(number, "/dev/sdb")
    assert disk.sequence == ""
    assert disk.is_still(host.kernel.disk(number, "/dev/sdb"))
