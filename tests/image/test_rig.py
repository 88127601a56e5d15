"""What the other tests here stand on: a disk over an image, a board that is switched on, and the cable of a founder."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from image.disk import MIB, Disk, Image, command, cut_out, partitions
from image.initrd import FILE, FOLDER, PROGRAM, add, pack, unpack
from image.site import Site
from image.vm import Machine, link_local
from rig.topology import LabFailure, wait_for

TABLE = "label: gpt\nsize=34MiB, name=bootconfig\nsize=1MiB, name=bootstate\n"


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rig")


@pytest.fixture
def image(folder: Path) -> Image:
    """An image with a card that has one file, and nothing to boot."""
    path, fat = folder / "small.img", folder / "fat"
    with path.open("wb") as out:
        out.truncate(40 * MIB)
    subprocess.run(["sfdisk", "--quiet", path], input=TABLE.encode(), check=True)
    command("mkfs.vfat", "-F", "32", "-n", "BOOTCONFIG", "-C", fat, "34816")
    command("mcopy", "-i", fat, "-", "::shipped.txt", given=b"as shipped\n")
    found = partitions(path)
    with path.open("r+b") as out:
        out.seek(found["bootconfig"].start)
        out.write(fat.read_bytes())
    return Image("small", path, found)


def test_files_of_the_card_are_written_and_read_and_the_image_stays(image: Image, folder: Path) -> None:
    before = image.path.read_bytes()
    disk = Disk(image, folder / "attic.qcow2")
    disk.put("conflux.toml", '[board]\nname = "attic"\n')
    assert disk.read("conflux.toml") == '[board]\nname = "attic"\n'
    assert disk.read("first-boot.log") is None
    assert sorted(disk.names()) == ["conflux.toml", "shipped.txt"]
    clone = disk.copy(folder / "clone.qcow2")
    clone.put("conflux.toml", "# mine\n")
    assert disk.read("conflux.toml") == '[board]\nname = "attic"\n'
    assert image.path.read_bytes() == before


def test_bytes_are_written_where_a_partition_has_them(image: Image, folder: Path) -> None:
    disk = Disk(image, folder / "attic.qcow2")
    disk.overwrite("bootstate", b"state", at=4096)
    assert disk.partition("bootstate") == bytes(4096) + b"state" + bytes(MIB - 4096 - 5)
    with pytest.raises(ValueError, match="do not fit into bootstate"):
        disk.overwrite("bootstate", bytes(2), at=MIB - 1)
    assert cut_out(image, "bootconfig", folder / "cut").read_bytes() == disk.partition("bootconfig")


@pytest.fixture
def machine(image: Image, folder: Path) -> Iterator[Machine]:
    """A board whose U-Boot finds nothing to boot."""
    machine = Machine("attic", Disk(image, folder / "attic.qcow2"), folder=folder)
    yield machine
    machine.cut_power()


def test_board_is_switched_on_typed_to_and_loses_its_power(machine: Machine) -> None:
    for _ in range(2):
        machine.power_on()
        machine.expect(r"U-Boot 20\d\d", within_s=60)
        machine.expect("stop autoboot", within_s=60)
        machine.send("\n")
        machine.expect("=> ", within_s=60)
        machine.send("part list virtio 0\n")
        machine.expect(r'"bootstate"', within_s=60)
        machine.cut_power()
        assert not machine.is_on
    with pytest.raises(LabFailure, match="is off while waiting for 'hello'"):
        machine.expect("hello", within_s=60)


def test_expect_ends_at_what_must_not_be_said_and_at_its_deadline(machine: Machine) -> None:
    machine.power_on()
    with pytest.raises(LabFailure, match="says 'U-Boot' while waiting for 'conflux-board: ready'"):
        machine.expect("conflux-board: ready", within_s=60, never="U-Boot")
    with pytest.raises(LabFailure, match=r"not within 0\.1 s: attic: 'conflux-board: ready'"):
        machine.expect("conflux-board: ready", within_s=0.1)


def test_founder_hears_what_a_board_sends_into_the_switch() -> None:
    site = Site(["attic"], name="rig")
    address = "02:00:00:00:00:09"
    frame = b"\xff" * 6 + bytes.fromhex(address.replace(":", "")) + b"\x88\xb5" + bytes(46)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as board:
        board.sendto(frame, str(site.switch.folder / "attic"))
    bridge = [*site.founder.lans[0].enter, "bridge", "fdb", "show", "br", "br0"]
    wait_for(lambda: address in command(*bridge).decode(), "the bridge knows the board's address", within_s=20)
    site.close()


def test_link_local_address_is_the_kernels() -> None:
    assert link_local("52:54:00:00:01:02") == "fe80::5054:ff:fe00:102"


def test_files_that_are_added_to_an_initrd_are_read_as_the_kernel_does() -> None:
    first = {"conf": (FOLDER, b""), "conf/a": (FILE, b"one"), "init": (PROGRAM, b"#!/bin/sh\n")}
    assert unpack(command("zstd", "-c", given=pack(first))) == {name: content for name, (_, content) in first.items()}
    whole = add(b"12345", {"conf/a": (FILE, b"two")})
    assert whole[:8] == b"12345\0\0\0"
    early = {"kernel": (FOLDER, b"")}
    assert list(unpack(pack(early) + bytes(512) + command("zstd", "-c", given=pack(first)))) == ["kernel", *first]
    assert unpack(command("zstd", "-c", given=whole[8:])) == {"conf/a": b"two"}
