"""A board's card: its root file system, the FATs, the disk, and the bundle that updates it."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from recipe import layout
from recipe.board import Board, RecipeError, placed
from recipe.debian import BASE_DATE
from recipe.stages import Stages, digest_of, remove
from recipe.tree import FIRMWARE_TREE, copy_tree, fill, lay
from recipe.workshop import Workshop, run

MKIMAGE = ("mkimage", "-A", "arm64", "-T", "script", "-C", "none", "-n", "conflux")
MKE2FS = ("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-i", "16384", "-J", "size=8", "-L", "data")
GRUB_MODULES = (
    "boot", "echo", "fat", "linux", "loadenv", "normal", "part_gpt", "reboot", "regexp", "sleep", "test",
)  # fmt: skip
EROFS = ("-zzstd,level=6", "-C65536", "-Eztailpacking", "--workers=2")
FLOOR = f"{FIRMWARE_TREE}/usr/lib/conflux-board/floor"
# How RAUC is told who keeps which slot is next, and what it runs where that is a program of ours.
BOOTLOADERS = {
    "uboot": "uboot",
    "grub": "grub\ngrubenv=/bootstate/grubenv",
    "tryboot": "custom",
}
HANDLERS = "[handlers]\nbootloader-custom-backend=/usr/lib/conflux-board/tryboot\n"
# Where GRUB's file is, which RAUC writes too.
STATE_MOUNT = """\
[Unit]
Description=Which slot is next
Before=local-fs.target

[Mount]
What=/dev/disk/by-partlabel/bootstate
Where=/bootstate
Type=vfat
Options=rw,sync,noatime,nosuid,nodev,noexec,umask=0077
"""
ZSTD_LEVEL = "-12"


@dataclass(frozen=True, slots=True)
class Made:
    """The folders of the stages that a card is made of."""

    tree: Path
    kernel: Path
    firmware: Path


@dataclass(frozen=True, slots=True)
class Card:
    """The stages of one board.

    version: of the image and its bundle.  keys: a folder with keyring.pem, release.pem, release.key.
    """

    shop: Workshop
    stages: Stages
    board: Board
    made: Made
    version: str
    keys: Path

    def values(self) -> dict[str, str]:
        """Return what stands for @NAME@ in the files of a board."""
        state = self.board.state
        return {
            "BOARD": self.board.name,
            "COMPATIBLE": self.board.compatible,
            "VERSION": self.version,
            "BOOTLOADER": BOOTLOADERS[state],
            "HANDLERS": HANDLERS if state == "tryboot" else "",
            "FLOOR": floor_of(self.shop.tree),
        }

    def _log(self, what: str) -> str:
        return f"{what}-{self.board.name}"

    def _digest(self, *paths: str) -> str:
        return digest_of(self.shop.tree, ["images/recipe/card.py", "images/recipe/layout.py", *paths])

    def system(self) -> Path:
        """Return a folder with system.img, the root file system."""
        keyring = self.keys / "keyring.pem"

        def build(part: Path) -> None:
            root = part / "root"
            run("cp", "-al", self.made.tree / "root", root)
            for source in sorted((self.shop.tree / FIRMWARE_TREE).rglob("*.in")):
                name = source.relative_to(self.shop.tree / FIRMWARE_TREE)
                text = fill(source.read_text(), self.values(), f"{FIRMWARE_TREE}/{name}")
                write((root / name).with_suffix(""), text)
                (root / name).unlink()
            write(root / "etc/rauc/keyring.pem", keyring.read_text())
            if self.board.state == "grub":
                units = root / "etc/systemd/system"
                write(units / "bootstate.mount", STATE_MOUNT)
                (units / "local-fs.target.wants").mkdir(parents=True, exist_ok=True)
                (units / "local-fs.target.wants/bootstate.mount").symlink_to("../bootstate.mount")
                (root / "bootstate").mkdir()
            values = self.values()
            write(
                root / "usr/lib/conflux-board/image",
                "".join(f"{name}={values[name]}\n" for name in ("BOARD", "VERSION", "COMPATIBLE")),
            )
            release = root / "usr/lib/os-release"
            write(release, f"{release.read_text()}IMAGE_ID={self.board.compatible}\nIMAGE_VERSION={self.version}\n")
            identifier = layout.identifier(self.made.tree.name, "system")
            self.shop.tool(
                ["mkfs.erofs", *EROFS, f"-T{BASE_DATE}", f"-U{identifier}", "--quiet", part / "system.img", root],
                self._log("system"),
            )
            remove(root)
            size, most = (part / "system.img").stat().st_size, layout.SYSTEM_MIB << 20
            if size > most:
                raise RecipeError(f"system.img takes {size >> 20} MiB, its partition has {most >> 20}")

        inputs = {
            "tree": self.made.tree.name,
            "files": self._digest(),
            "keyring": keyring.read_text(),
            **{f"value {name}": value for name, value in self.values().items()},
        }
        return self.stages.make(self._log("system"), inputs, build, "packing the root file system (two minutes)")

    def boot(self) -> Path:
        """Return a folder with boot.vfat, the kernel's partition of a slot, and bootconfig.vfat."""
        shop, board = self.shop, self.board
        folder = f"images/boards/{board.name}"

        def build(part: Path) -> None:
            generated = self._generated(part)
            for name, label, mib, sources in (
                ("boot", "BOOT", layout.BOOT_MIB, board.slot),
                ("bootconfig", "BOOTCONFIG", layout.BOOTCONFIG_MIB, board.bootconfig),
            ):
                files = part / name
                files.mkdir()
                for each in sources:
                    word, target = placed(each)
                    lay(generated.get(word) or self._source(word), files / target)
                if name == "bootconfig":
                    copy_tree(shop.tree / "firmware/card", files)
                self._fat(part / f"{name}.vfat", label, mib, files)
                remove(files)

        inputs = {
            "kernel": self.made.kernel.name,
            "firmware": self.made.firmware.name,
            "tools": shop.tools.parent.name,
            "files": self._digest("images/recipe/board.py", "images/boot", "firmware/card", folder),
        }
        return self.stages.make(self._log("boot"), inputs, build, "making the boot partitions")

    def _generated(self, part: Path) -> dict[str, Path]:
        """Make what starts a slot; return it by the words that board.toml has for it."""
        log, boot = self._log("boot"), self.shop.tree / "images/boot"
        made = {}
        if "boot.scr" in self.board.bootconfig:
            source, made["boot.scr"] = part / "boot.cmd", part / "boot.scr"
            shutil.copyfile(boot / "boot.cmd", source)
            self.shop.tool([*MKIMAGE, "-d", source, made["boot.scr"]], log, {"SOURCE_DATE_EPOCH": str(BASE_DATE)})
        if any(placed(each)[0] == "boot.efi" for each in self.board.bootconfig):
            made["boot.efi"] = part / "boot.efi"
            modules = self.made.firmware / "root/usr/lib/grub/arm64-efi"
            options = ["-O", "arm64-efi", "-d", modules, "-p", "/EFI/BOOT", "-o", made["boot.efi"]]
            self.shop.tool(["grub-mkimage", *options, *GRUB_MODULES], log)
        return made

    def _source(self, word: str) -> Path:
        """Return the file that a word of board.toml names.  Raises RecipeError."""
        source, _, path = word.partition(":")
        folders = {
            "board": self.shop.tree / "images/boards" / self.board.name,
            "boot": self.shop.tree / "images/boot",
            "kernel": self.made.kernel,
            "dtb": self.made.kernel / "dtb",
            "firmware": self.made.firmware / "root",
        }
        if not (folders[source] / path).is_file():
            raise RecipeError(f"images/boards/{self.board.name}/board.toml: {word}: there is no such file")
        return folders[source] / path

    def _fat(self, target: Path, label: str, mib: int, files: Path) -> None:
        """Write a FAT of files: the same bytes for the same files."""
        serial = layout.volume_id(self.board.name, label)
        log, extra = self._log("boot"), {"SOURCE_DATE_EPOCH": str(BASE_DATE)}
        for each in files.rglob("*"):
            os.utime(each, (BASE_DATE, BASE_DATE))
        target.unlink(missing_ok=True)
        self.shop.tool(
            ["mkfs.vfat", "--invariant", "-i", serial, "-n", label, "-C", target, str(mib << 10)], log, extra
        )
        for each in sorted(files.iterdir()):
            self.shop.tool(["mcopy", "-s", "-m", "-b", "-i", target, each, "::"], log, extra)

    def disk(self) -> Path:
        """Return a folder with disk.img, what is written to a card."""
        system, boot = self.system(), self.boot()
        log = self._log("disk")

        def build(part: Path) -> None:
            inputs, scratch = part / "inputs", part / "scratch"
            for folder in (inputs, scratch, part / "root"):
                folder.mkdir()
            for path in (system / "system.img", boot / "boot.vfat", boot / "bootconfig.vfat"):
                os.link(path, inputs / path.name)
            self._data(inputs / "data.ext4")
            self._state(inputs / layout.STATE, part / "root")
            config = part / "genimage.cfg"
            config.write_text(layout.disk_config(self.board, self.version))
            paths = {
                "config": config,
                "rootpath": part / "root",
                "tmppath": scratch,
                "inputpath": inputs,
                "outputpath": part,
            }
            self.shop.tool(["genimage", *(f"--{name}={path}" for name, path in paths.items())], log)
            for folder in (inputs, scratch, part / "root"):
                remove(folder)

        inputs = {
            "system": system.name,
            "boot": boot.name,
            "layout": layout.disk_config(self.board, self.version),
            "files": self._digest(),
        }
        return self.stages.make(log, inputs, build, "laying out the disk")

    def _state(self, target: Path, scratch: Path) -> None:
        """Write what bootstate holds: U-Boot and a Raspberry Pi's firmware begin without any, GRUB needs its file."""
        if self.board.state != "grub":
            target.write_bytes(bytes(layout.STATE_MIB << 20))
            return
        (scratch / "grubenv").write_bytes(layout.grub_environment())
        self._fat(target, "BOOTSTATE", layout.STATE_MIB, scratch)
        (scratch / "grubenv").unlink()

    def _data(self, target: Path) -> None:
        """Write the data partition's file system: empty, and able to grow to 256 GiB while it is mounted."""
        identifier = layout.identifier(self.version, "data-fs")
        blocks = 256 << 18  # of 4 KiB
        more = f"hash_seed={identifier},resize={blocks},root_owner=0:0"
        make = [*MKE2FS, "-U", str(identifier), "-E", more, target, f"{layout.DATA_MIB}M"]
        self.shop.tool(make, self._log("disk"), {"SOURCE_DATE_EPOCH": str(BASE_DATE)})

    def packed(self) -> Path:
        """Return a folder with disk.img.zst."""
        disk = self.disk()

        def build(part: Path) -> None:
            self.shop.tool(
                ["zstd", "-q", "-T0", ZSTD_LEVEL, disk / "disk.img", "-o", part / "disk.img.zst"], self._log("packed")
            )

        return self.stages.make(
            self._log("packed"), {"disk": disk.name, "files": self._digest()}, build, "compressing the image"
        )

    def bundle(self) -> Path:
        """Return a folder with update.raucb, signed."""
        system, boot = self.system(), self.boot()
        log = self._log("bundle")
        certificate = (self.keys / "release.pem").read_text()

        def build(part: Path) -> None:
            content = part / "content"
            content.mkdir()
            os.link(system / "system.img", content / "system.img")
            os.link(boot / "boot.vfat", content / "boot.vfat")
            manifest = (self.shop.tree / "images/rauc/manifest").read_text()
            (content / "manifest.raucm").write_text(fill(manifest, self.values(), "images/rauc/manifest"))
            hook = self.shop.tree / "images/rauc/slot-hook"
            if hook.is_file():
                lay(hook, content / hook.name)
            keys = part / "keys"
            keys.mkdir(mode=0o700)
            try:
                for name in ("release.pem", "release.key", "keyring.pem"):
                    shutil.copyfile(self.keys / name, keys / name)
                signed = [f"--cert={keys}/release.pem", f"--key={keys}/release.key", f"--keyring={keys}/keyring.pem"]
                squash = "--mksquashfs-args=-comp zstd -Xcompression-level 3"
                make = ["rauc", "bundle", *signed, squash, content, part / "update.raucb"]
                self.shop.tool(make, log, {"SOURCE_DATE_EPOCH": str(BASE_DATE)})
            finally:
                remove(keys)  # a folder that was begun stays when a program fails, and the key would stay with it
            remove(content)

        inputs = {
            "system": system.name,
            "boot": boot.name,
            "certificate": hashlib.sha256(certificate.encode()).hexdigest(),
            "files": self._digest("images/rauc"),
            **{f"value {name}": value for name, value in self.values().items()},
        }
        return self.stages.make(log, inputs, build, "making and signing the update bundle")


def floor_of(tree: Path) -> str:
    """Return the version below which an update is refused."""
    path = tree / FLOOR
    return path.read_text().strip() if path.is_file() else "0"


def write(path: Path, text: str) -> None:
    """Write a file of a root tree in place of one that other trees share."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.exists():
        path.unlink()
    path.write_text(text)
    path.chmod(0o644)
