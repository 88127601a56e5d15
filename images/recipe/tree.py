"""The root tree: Debian, Conflux's package, and what stands in firmware/tree.  The kernel, with its initrd."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recipe.board import RecipeError
from recipe.debian import ARCH, BASE_DATE, SUITE, Debian, arm64_runs
from recipe.stages import digest_of, remove
from recipe.workshop import run

PYTHON = "python3.13"
FIRMWARE_TREE = "firmware/tree"
INITRAMFS = (f"{FIRMWARE_TREE}/etc/initramfs-tools", "images/initramfs")
# Where Python's sources are in a root tree.
COMPILED = ("usr/lib/conflux", f"usr/lib/{PYTHON}", "usr/lib/python3", "usr/share/python3")
# What Conflux's package is made from.
PACKAGE_SOURCES = (
    "conflux",
    "cext",
    "packaging",
    "constraints.txt",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "docs/reference/configuration.md",
    "docs/examples",
)
# Mount points, and links that a read-only root needs.
FOLDERS = ("data", "bootconfig")
# Removed: what was generated here and has to be each board's own, what differs from build to build, what is on another
# partition.  Patterns of pathlib, below the root.
REMOVED = (
    "boot/*",
    "initrd.img*",
    "vmlinuz*",
    "usr/lib/linux-image-*",
    "usr/lib/modules/*/dtb",
    "etc/ssh/ssh_host_*",
    "etc/machine-id",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/.pwd.lock",
    "etc/.resolv.conf*",
    "etc/*-",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "var/lib/apt/lists/*",
    "var/lib/dpkg/*-old",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb",
    "var/cache/debconf/*-old",
    "var/cache/ldconfig/aux-cache",
    "var/log/*.log",
    "var/log/apt/*",
    "var/log/journal/*",
    "run/*",
    "tmp/*",
    "root/.[!.]*",
    "dev/*",
)
MACHINE = b"\xb7\x00"  # AArch64, as an ELF file has it in its bytes 18 and 19
PRESET = re.compile(r"\s*(enable|disable)\s+(\S+)\s*\Z")
FIRMWARE_FILES = ("usr/lib/firmware", "usr/bin", "usr/lib/aarch64-linux-gnu")


def units_of(presets: Iterable[str]) -> list[str]:
    """Return the units that preset files name, each once.  Patterns are left out: nobody sees what they turn on."""
    units: dict[str, None] = {}
    for text in presets:
        for line in text.splitlines():
            match = PRESET.match(line.partition("#")[0])
            if match and not set("*?[") & set(match[2]):
                units[match[2]] = None
    return list(units)


def fill(text: str, values: dict[str, str], where: str) -> str:
    """Return a text with every @NAME@ replaced.  Raises RecipeError for a name that has no value."""

    def value(match: re.Match[str]) -> str:
        try:
            return values[match[1]]
        except KeyError:
            raise RecipeError(f"{where}: there is no @{match[1]}@") from None

    return re.sub(r"@([A-Z]+)@", value, text)


@dataclass(frozen=True, slots=True)
class Trees:
    """The stages between Debian and a board's own image.

    package_date: Unix seconds, of Conflux's package.
    """

    debian: Debian
    package_date: int

    def package(self) -> Path:
        """Return the folder of Conflux's Debian package for boards."""
        shop = self.debian.shop

        def build(part: Path) -> None:
            # pip's settings are the caller's.
            target = {"SUITE": SUITE, "ARCH": ARCH, "SOURCE_DATE_EPOCH": str(self.package_date)}
            command = [shop.tree / ".ci/as-owner", shop.tree / "packaging/deb"]
            shop.host(command, "package", dict(os.environ) | target)
            made = (shop.tree / "build/package").glob(f"conflux_*_{ARCH}.deb")
            shutil.copyfile(max(made, key=lambda each: each.stat().st_mtime), part / "conflux.deb")

        inputs = {"files": digest_of(shop.tree, PACKAGE_SOURCES), "date": str(self.package_date)}
        return self.debian.stages.make("package", inputs, build, "building Conflux's package (two minutes)")

    def kernel(self, kind: str) -> Path:
        """Return a folder with vmlinuz, initrd.img and dtb/, of the kernel of a kind ("stable", "backports")."""
        shop, base = self.debian.shop, self.debian.base(kind)

        def build(part: Path) -> None:
            root = part / "root"
            unpack(base / "root.tar", root)
            arm64_runs(root)
            copy_tree(shop.tree / INITRAMFS[0], root / "etc/initramfs-tools")
            folder = root / "etc/initramfs-tools"
            lay(shop.tree / "images/initramfs/board.conf", folder / "conf.d/board.conf")
            lay(shop.tree / "images/initramfs/conflux-modules", folder / "conflux-modules")
            lay(shop.tree / "images/initramfs/hooks/conflux-modules", folder / "hooks/conflux-modules")
            version = max(each.name.removeprefix("vmlinuz-") for each in (root / "boot").glob("vmlinuz-*"))
            extra = {"SOURCE_DATE_EPOCH": str(BASE_DATE)}
            command = ["mkinitramfs", "-k", "-o", "/boot/initrd.img", version]
            shop.quickly(root, command, f"kernel-{kind}", extra)
            foreign = foreign_in(root / "var/tmp")
            if foreign:
                raise RecipeError(f"the initrd has a program of another architecture in it: {foreign[0]}")
            shutil.copyfile(root / "boot" / f"vmlinuz-{version}", part / "vmlinuz")
            shutil.copyfile(root / "boot/initrd.img", part / "initrd.img")
            (part / "dtb").mkdir()
            for place in (f"linux-image-{version}", f"modules/{version}/dtb"):
                for blob in (root / "usr/lib" / place / "broadcom").glob("*.dtb"):
                    shutil.copyfile(blob, part / "dtb" / blob.name)
            (part / "version").write_text(version + "\n")
            remove(root)

        inputs = {"base": base.name, "files": digest_of(shop.tree, ["images/recipe/tree.py", *INITRAMFS])}
        return self.debian.stages.make(f"kernel-{kind}", inputs, build, "making the initrd")

    def tree(self, kind: str) -> Path:
        """Return a folder with root/, the root tree of all boards that have the kernel of a kind."""
        shop, base, package, firmware = (
            self.debian.shop,
            self.debian.base(kind),
            self.package(),
            self.debian.firmware(),
        )

        def build(part: Path) -> None:
            root = part / "root"
            unpack(base / "root.tar", root)
            arm64_runs(root)
            self._install(root, package / "conflux.deb", part)
            for place in FIRMWARE_FILES:
                copy_tree(firmware / "root" / place, root / place)
            copy_tree(shop.tree / FIRMWARE_TREE, root)
            self._compile(root)
            for folder in FOLDERS:
                (root / folder).mkdir(exist_ok=True)
            for pattern in REMOVED:
                # A link that leads nowhere here is no match of a pattern without a *.
                for each in root.glob(pattern) if "*" in pattern else [root / pattern]:
                    remove(each)
            (root / "etc/machine-id").touch()
            (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
            copy_tree(shop.tree / FIRMWARE_TREE, root)  # what was removed, and is in there: a host name, say
            presets = (shop.tree / FIRMWARE_TREE / "usr/lib/systemd/system-preset").glob("*.preset")
            units = units_of(each.read_text() for each in sorted(presets))
            if units:
                shop.tool(["systemctl", f"--root={root}", "preset", *units], f"tree-{kind}")

        inputs = {
            "base": base.name,
            "package": package.name,
            "firmware": firmware.name,
            "files": digest_of(shop.tree, ["images/recipe/tree.py", FIRMWARE_TREE]),
        }
        return self.debian.stages.make(f"tree-{kind}", inputs, build, "making the root tree (a minute)")

    def _install(self, root: Path, package: Path, part: Path) -> None:
        """Install Conflux's package.  Its bytecode is made later, by a Python that is not emulated."""
        compiler, aside = root / "usr/bin/py3compile", part / "py3compile"
        shutil.move(compiler, aside)
        compiler.write_text("#!/bin/sh\n")
        compiler.chmod(0o755)
        shutil.copyfile(package, root / "conflux.deb")
        self.debian.shop.quickly(root, ["dpkg", "--force-unsafe-io", "-i", "/conflux.deb"], "package-install")
        (root / "conflux.deb").unlink()
        compiler.unlink()
        shutil.move(aside, compiler)

    def _compile(self, root: Path) -> None:
        """Make all bytecode, which nothing checks against its sources when it is read: the root is read-only."""
        for each in root.glob("usr/**/__pycache__"):
            remove(each)
        folders = [root / each for each in COMPILED if (root / each).is_dir()]
        make = [PYTHON, "-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "unchecked-hash"]
        self.debian.shop.tool([*make, "-s", root, "-p", "/", *folders], "bytecode")


def foreign_in(root: Path) -> list[Path]:
    """Return the ELF files below a folder that are not for arm64."""
    found = []
    for each in sorted(root.rglob("*")):
        if each.is_file() and not each.is_symlink():
            with each.open("rb") as file:
                begin = file.read(20)
            if begin[:4] == b"\x7fELF" and begin[18:] != MACHINE:
                found.append(each)
    return found


def unpack(archive: Path, root: Path) -> None:
    """Unpack a root tree with owners and capabilities."""
    root.mkdir()
    run("tar", "-x", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", root, "-f", archive)


def lay(source: Path, target: Path) -> None:
    """Copy one file of the sources into a root tree: root's, readable by all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() or target.exists():
        remove(target)
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    shutil.copyfile(source, target)
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def copy_tree(source: Path, root: Path) -> None:
    """Copy all that stands below a folder of the sources into a root tree; .keep only makes its folder."""
    if not source.is_dir():
        return
    for each in sorted(source.rglob("*")):
        if "__pycache__" in each.parts or (each.is_dir() and not each.is_symlink()):
            continue
        target = root / each.relative_to(source)
        if each.name == ".keep":
            target.parent.mkdir(parents=True, exist_ok=True)
        else:
            lay(each, target)
