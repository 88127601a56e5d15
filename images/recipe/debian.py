"""What comes from Debian: the tools, the root tree of a board without anything of ours, and its firmware."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recipe.board import RecipeError
from recipe.stages import Stages, digest_of
from recipe.workshop import Workshop, output_of, run

SUITE = "trixie"
ARCH = "arm64"
BASE_DATE = 1754697600  # 2025-08-09, trixie's release: no file of the root tree is younger
HOOKS = "/usr/share/mmdebstrap/hooks/merged-usr"
FIRMWARE_PACKAGES = ("grub-common", "grub-efi-arm64-bin", "raspi-firmware", "u-boot-rpi")
FIRMWARE_WANTED = (
    "./usr/lib/raspi-firmware",
    "./usr/lib/u-boot/rpi_arm64",
    "./usr/lib/firmware",
    "./usr/lib/grub/arm64-efi",
    "./usr/bin/grub-editenv",
    "./usr/lib/aarch64-linux-gnu/libdevmapper.so.1.02.1",  # grub-editenv's
    *(f"./usr/share/doc/{package}/copyright" for package in FIRMWARE_PACKAGES),
)
NATIVE = "images/recipe/native"
KERNEL = "linux-image-arm64"
MIRROR = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"
COMPONENTS = "main non-free-firmware"
COMMON = ('--aptopt=Apt::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"')
# The keys that openssh-server makes when it is installed would be removed again, and take half a minute each, emulated.
NO_HOST_KEYS = (
    'mkdir -p "$1/etc/ssh" && for kind in rsa ecdsa ed25519; do touch "$1/etc/ssh/ssh_host_${kind}_key"; done'
)


def names_of(text: str) -> list[str]:
    """Return the packages that a list names: one a line, # begins a remark."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


@dataclass(frozen=True, slots=True)
class Debian:
    """The stages that need the network.  mirror: Debian's own, or one that stands for it."""

    shop: Workshop
    stages: Stages
    mirror: str = MIRROR

    def _inputs(self, *paths: str, **more: str) -> dict[str, str]:
        files = digest_of(self.shop.tree, ["images/recipe/debian.py", *paths])
        return {"files": files, "mirror": self.mirror, **more}

    def _mmdebstrap(self, log: str, target: Path, *options: str, backports: bool = False) -> None:
        self.shop.host(
            [
                "mmdebstrap",
                "--mode=root",
                "--verbose",
                *COMMON,
                *options,
                SUITE,
                target,
                *sources(self.mirror, backports),
            ],
            log,
            {"INITRD": "No", "SOURCE_DATE_EPOCH": str(BASE_DATE)},
            counted=r"^Setting up ",
        )

    def _native(self, tools: Path) -> list[str]:
        """Return the options that let this machine run what need not be emulated."""
        if output_of("dpkg", "--print-architecture").strip() == ARCH:
            return []
        script = self.shop.tree / NATIVE
        return [
            f'--extract-hook={script} begin "$1" {tools}',
            f'--customize-hook={script} end "$1" {tools}',
        ]

    def tools(self) -> Path:
        """Return the root of the tools tree, of this machine's own architecture."""
        wanted = names_of((self.shop.tree / "images/tools.list").read_text())

        def build(part: Path) -> None:
            self._mmdebstrap("tools", part / "root", "--variant=minbase", f"--include={','.join(wanted)}")

        inputs = self._inputs("images/tools.list", arch=output_of("dpkg", "--print-architecture").strip())
        made = self.stages.make("tools", inputs, build, "unpacking Debian's tools (two minutes)")
        return made / "root"

    def base(self, kernel: str) -> Path:
        """Return a folder with root.tar, a board's Debian without anything of ours, and with the package lists.

        kernel: "stable", or "backports" for that of the next release.
        """
        wanted = names_of((self.shop.tree / "images/packages.list").read_text())
        if kernel == "backports":
            wanted = [f"{KERNEL}/{SUITE}-backports" if each == KERNEL else each for each in wanted]

        tools = self.tools()

        def build(part: Path) -> None:
            lists = part / "lists"
            lists.mkdir()
            self._mmdebstrap(
                f"base-{kernel}",
                part / "root.tar",
                f"--architectures={ARCH}",
                "--variant=minbase",
                f"--dpkgopt={self.shop.tree / 'images/dpkg-min.opts'}",
                "--dpkgopt=force-unsafe-io",
                f"--include={','.join(wanted)}",
                f"--essential-hook={NO_HOST_KEYS}",
                *self._native(tools),
                f'--customize-hook=cp "$1"/var/lib/apt/lists/*_Packages {lists}/',
                backports=kernel == "backports",
            )

        return self.stages.make(
            f"base-{kernel}",
            self._inputs("images/packages.list", "images/dpkg-min.opts", NATIVE, kernel=kernel),
            build,
            "setting up Debian for arm64 (ten minutes where it is emulated)",
        )

    def firmware(self) -> Path:
        """Return a folder with what boards start from, and the package lists."""

        def build(part: Path) -> None:
            archive, lists = part / "root.tar", part / "lists"
            lists.mkdir()
            self._mmdebstrap(
                "firmware",
                archive,
                f"--architectures={ARCH}",
                "--variant=extract",
                f"--hook-dir={HOOKS}",
                f"--include={','.join(FIRMWARE_PACKAGES)}",
                f'--customize-hook=cp "$1"/var/lib/apt/lists/*_Packages {lists}/',
            )
            root = part / "root"
            root.mkdir()
            run("tar", "-x", "-C", root, "-f", archive, *FIRMWARE_WANTED)
            archive.unlink()

        return self.stages.make("firmware", self._inputs(), build, "unpacking the boards' firmware (half a minute)")


def sources(mirror: str, backports: bool) -> list[str]:
    """Return where apt looks: the suite, its updates, its security updates, and a newer kernel if it is wanted."""
    names = [SUITE, f"{SUITE}-updates", *([f"{SUITE}-backports"] if backports else [])]
    return [f"deb {mirror} {name} {COMPONENTS}" for name in names] + [f"deb {SECURITY} {SUITE}-security {COMPONENTS}"]


def arm64_runs(root: Path) -> None:
    """Make sure that programs of a board's root run here.  Raises RecipeError."""
    try:
        run("chroot", root, "/usr/bin/true")
    except RecipeError as error:
        raise RecipeError(f"arm64 programs do not run on this machine: .ci/prepare image ({error})") from None
