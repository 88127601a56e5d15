"""The image as it is flashed, opened and looked into: its layout, its size, and that nobody's secret is in it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from image.bundles import erofs_bytes
from image.desk import BOARD
from image.disk import BUILT, MIB, Disk, Image, command, cut_out, flashed
from image.initrd import unpack
from kit.tree import TREE
from rig.enter import STATE, add_figures

LAYOUT = ("bootconfig", "bootstate", "boot_a", "boot_b", "system_a", "system_b", "data")
COMPRESSED_MB_MAX, RAW_MB_MAX = 250.0, 1400.0
PRIVATE = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\r?\n[0-9A-Za-z+/=]{40}")
TOKEN = re.compile(rb"cfx1[0-9A-Za-z_-]{40}")
TEXT_BYTES_MAX = MIB  # of a file that is looked into for a key; a library that knows the words is no secret
# Where something that a board makes for itself could have been left: path, and why it must not be there.
MADE_ON_THE_BOARD = {
    "etc/ssh/ssh_host_*": "host keys are a board's own",
    "etc/ssh/*_key": "host keys are a board's own",
    "root/.ssh/*": "nobody may come in",
    "home/*": "there is no user",
    "var/lib/conflux/*": "a node's keys are its own",
    "var/lib/systemd/random-seed": "a seed that all boards share is none",
    "var/lib/systemd/credential.secret": "it protects one board's secrets",
    "var/lib/dbus/machine-id": "the machine's id is its own",
    "etc/wpa_supplicant/*.conf": "somebody's Wi-Fi",
    "var/log/**/*.log": "the builder's log",
    "var/lib/apt/lists/*_dists_*": "the builder's mirror",
    "etc/conflux/*.token": "somebody's invitation",
}


@pytest.fixture(scope="module")
def image() -> Image:
    return flashed(BOARD)


@pytest.fixture(scope="module")
def root(image: Image) -> Iterator[Path]:
    """The read-only root tree of slot A, unpacked with the tools of `make image`."""
    packed, tree = STATE / "system_a", STATE / "tree"
    cut_out(image, "system_a", packed)
    with packed.open("r+b") as file:
        file.truncate(erofs_bytes(packed))
    tree.mkdir()
    mounted = subprocess.run(["mount", "-t", "erofs", "-o", "ro", packed, tree], capture_output=True, check=False)
    if mounted.returncode:  # a kernel that has no erofs, or not this compression of it
        tools = BUILT / "tools"
        loader = (*tools.glob("lib*/ld-linux-*.so.?"), *tools.glob("usr/lib*/ld-linux-*.so.?"))[0]
        libraries = ":".join(map(str, tools.glob("usr/lib/*-linux-gnu")))
        fsck = next(iter(tools.glob("usr/*bin/fsck.erofs")))
        command(loader, "--library-path", libraries, fsck, f"--extract={tree}", "--overwrite", packed)
    yield tree
    subprocess.run(["umount", tree], capture_output=True, check=False)
    packed.unlink()


def test_partitions_are_those_of_the_layout(image: Image) -> None:
    assert tuple(image.partitions) == LAYOUT
    for one, other in (("boot_a", "boot_b"), ("system_a", "system_b")):
        assert image.partitions[one].size == image.partitions[other].size


def test_image_is_small(image: Image) -> None:
    packed_mb = (BUILT / f"conflux-{BOARD}.img.zst").stat().st_size / 1e6
    add_figures("image.json", {"compressed_mb": round(packed_mb, 1)})
    assert packed_mb < COMPRESSED_MB_MAX
    assert image.path.stat().st_size / 1e6 < RAW_MB_MAX


def test_second_slots_are_empty(image: Image, tmp_path: Path) -> None:
    for name in ("boot_b", "system_b", "bootstate"):
        assert set(cut_out(image, name, tmp_path / name).read_bytes()) <= {0}, name


def test_root_tree_has_nothing_that_a_board_makes_for_itself(root: Path) -> None:
    assert (root / "etc/machine-id").read_bytes() == b""
    found = {str(path.relative_to(root)): why for what, why in MADE_ON_THE_BOARD.items() for path in root.glob(what)}
    assert found == {}


def test_nobody_has_a_password(root: Path) -> None:
    hashes = [line.split(":")[1] for line in (root / "etc/shadow").read_text().splitlines()]
    assert {each.strip("!*") for each in hashes} == {""}


def secrets_in(files: Iterator[Path], within: Path) -> list[str]:
    """Return which files have a private key or an invitation in them."""
    found = []
    for path in files:
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= TEXT_BYTES_MAX:
            data = path.read_bytes()
            if b"\0" not in data[:4096] and (PRIVATE.search(data) or TOKEN.search(data)):
                found.append(str(path.relative_to(within)))
    return found


def test_no_text_of_the_root_tree_is_a_private_key_or_an_invitation(root: Path) -> None:
    places = [root / name for name in ("etc", "root", "home", "opt", "srv", "var", "usr/lib", "usr/share/conflux")]
    assert secrets_in((path for place in places for path in place.rglob("*")), root) == []


def test_builders_key_and_paths_are_nowhere_in_the_image(image: Image, root: Path) -> None:
    keys = [path.read_text() for path in (BUILT / "keys").glob("*.key")]
    assert keys
    lines = {line.encode() for key in keys for line in key.splitlines() if not line.startswith("-") and len(line) > 32}
    whole = image.path.read_bytes()
    assert [line for line in lines if line in whole] == []
    here = str(TREE).encode()
    texts = (
        path
        for place in ("etc", "var", "usr/lib/conflux-board", "usr/lib/systemd")
        for path in (root / place).rglob("*")
    )
    assert [path for path in texts if path.is_file() and not path.is_symlink() and here in path.read_bytes()] == []


def test_card_and_data_are_as_from_a_factory(image: Image, tmp_path: Path) -> None:
    disk = Disk(image, tmp_path / "card.qcow2")
    assert "conflux.toml" not in disk.names()
    assert "first-boot.log" not in disk.names()
    data = cut_out(image, "data", tmp_path / "data")
    content = data.read_bytes()
    assert PRIVATE.search(content) is None
    assert TOKEN.search(content) is None
    shown = command("debugfs", "-R", "ls -l /", data).decode()
    names = {line.split()[-1] for line in shown.splitlines() if line.split()} - {".", ".."}
    assert not names & {"conflux", "board", "update", "rauc"}, names


def test_initrd_knows_no_machine(image: Image, tmp_path: Path) -> None:
    boot = cut_out(image, "boot_a", tmp_path / "boot_a")
    names = list(unpack(command("mtype", "-i", boot, "::initrd.img")))
    assert len(names) > 100
    assert [name for name in names if name.endswith(("etc/machine-id", ".pem", ".key")) or "ssh_host" in name] == []
