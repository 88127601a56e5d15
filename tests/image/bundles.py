"""Update bundles that the tests make of the image itself, in seconds: what is in its slot A, with one thing changed.

boot_a, system_a of the image ──► boot.vfat (changed by mtools), system.img ──► signed with the key of `make image`
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from image.disk import BUILT, MIB, Image, command, cut_out
from image.initrd import FILE, PROGRAM, add, unpack
from kit.tree import TREE

RECIPE = TREE / "images" / "rauc"
FLOOR = TREE / "firmware" / "tree" / "usr" / "lib" / "conflux-board" / "floor"
EROFS_SUPERBLOCK = 1024  # its place; then, by offset: magic at 0, log2 of the block size at 12, blocks at 36
EROFS_MAGIC = 0xE0F5E1E2
NOISE_BYTES = 4 * MIB

# A script of the initrd: /run goes on as the system's.
BROKEN = """\
#!/bin/sh
[ "$1" != prereqs ] || exit 0
mkdir -p /run/systemd/system/multi-user.target.wants
cat >/run/broken.nft <<'RULES'
table inet broken {
    chain incoming { type filter hook input priority -10; udp dport != 53 drop; tcp dport 7464 drop; }
    chain outgoing { type filter hook output priority -10; udp dport != 53 drop; tcp dport 7464 drop; }
}
RULES
cat >/run/systemd/system/broken.service <<'UNIT'
[Unit]
After=nftables.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f /run/broken.nft
UNIT
ln -s ../broken.service /run/systemd/system/multi-user.target.wants/broken.service
"""


def erofs_bytes(path: Path) -> int:
    """Return how long the file system is that begins a file; what follows is the empty rest of its partition."""
    with path.open("rb") as file:
        file.seek(EROFS_SUPERBLOCK)
        block = file.read(128)
    assert struct.unpack_from("<I", block)[0] == EROFS_MAGIC, f"{path} has no erofs"
    blocks: int = struct.unpack_from("<I", block, 36)[0]
    return blocks << block[12]


def bundle(
    image: Image,
    version: str,
    folder: Path,
    *,
    name: str = "update",
    change: Callable[[Path], object] = lambda _boot: None,
    compatible: str | None = None,
    floor: str | None = None,
    keys: Path = BUILT / "keys",
    is_noise: bool = False,
) -> Path:
    """Return a signed bundle.

    change: gets the FAT file system of the boot slot.  compatible: the board's that it is for, else the image's; floor:
    the oldest version that may follow it, else the recipe's; keys: a folder as images/rauc/keys makes it.  is_noise:
    what would be written is a few MiB of noise: for a bundle that is refused.
    """
    content = folder / name
    content.mkdir()
    manifest = (RECIPE / "manifest").read_text()
    for placeholder, value in {
        "@COMPATIBLE@": compatible or f"conflux-{image.board}",
        "@VERSION@": version,
        "@FLOOR@": floor or FLOOR.read_text().strip(),
    }.items():
        manifest = manifest.replace(placeholder, value)
    (content / "manifest.raucm").write_text(manifest)
    hook = Path(shutil.copy(RECIPE / "slot-hook", content))
    hook.chmod(0o755)
    if is_noise:
        for each in ("boot.vfat", "system.img"):
            (content / each).write_bytes(os.urandom(NOISE_BYTES))
    else:
        change(cut_out(image, "boot_a", content / "boot.vfat"))
        system = cut_out(image, "system_a", content / "system.img")
        with system.open("r+b") as file:
            file.truncate(erofs_bytes(system))
    made = folder / f"{name}.raucb"
    signing = (f"--cert={keys / 'release.pem'}", f"--key={keys / 'release.key'}", f"--keyring={keys / 'keyring.pem'}")
    squash = "--mksquashfs-args=-comp zstd -Xcompression-level 1"
    command("rauc", "bundle", *signing, squash, content, made)
    shutil.rmtree(content)
    return made


def no_kernel(boot: Path) -> None:
    """Make a slot that U-Boot cannot boot: its kernel is zeros."""
    command("mcopy", "-o", "-i", boot, "-", "::vmlinuz", given=bytes(4096))


def no_overlay(boot: Path) -> None:
    """Make a slot that boots and whose daemon is ready, but that lets nothing of the overlay out or in; ssh works."""
    initrd = command("mtype", "-i", boot, "::initrd.img")
    order = unpack(initrd)["scripts/init-bottom/ORDER"]
    call = b'/scripts/init-bottom/broken "$@"\n[ -e /conf/param.conf ] && . /conf/param.conf\n'
    changed = add(
        initrd,
        {
            "scripts/init-bottom/ORDER": (FILE, order.rstrip(b"\n") + b"\n" + call),
            "scripts/init-bottom/broken": (PROGRAM, BROKEN.encode()),
        },
    )
    command("mcopy", "-o", "-i", boot, "-", "::initrd.img", given=changed)


def no_daemon(boot: Path) -> None:
    """Make a slot that boots without the daemon."""
    command("mcopy", "-o", "-i", boot, "-", "::slot.env", given=b"kernel_args=systemd.mask=conflux.service\n")
