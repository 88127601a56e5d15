"""Update bundles, made as images/build makes them: of real keys, by the distribution's own rauc; small ones."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

from kit.tree import TREE

RAUC = TREE / "images" / "rauc"
SYSTEM_CONF = TREE / "firmware" / "tree" / "etc" / "rauc" / "system.conf.in"


def has_rauc() -> bool:
    """Say whether bundles can be made here."""
    return all(map(shutil.which, ("rauc", "mksquashfs", "openssl", "faketime")))


def keys(folder: Path, *words: str) -> None:
    """Run images/rauc/keys."""
    subprocess.run([sys.executable, str(RAUC / "keys"), str(folder), *words], check=True, capture_output=True)


def bundle(
    place: Path,
    keys: Path,
    *,
    board: str = "rpi4",
    version: str = "0.2.0+1",
    floor: str = "0.1.0",
    content: bytes = random.Random(1).randbytes(1_000_000),  # noise, which squashfs cannot make smaller
) -> Path:
    """Make a bundle that holds some bytes for both images.  keys: a folder of images/rauc/keys."""
    folder = place.with_suffix(".dir")
    folder.mkdir()
    manifest = (RAUC / "manifest").read_text()
    for name, value in {"COMPATIBLE": f"conflux-{board}", "VERSION": version, "FLOOR": floor}.items():
        manifest = manifest.replace(f"@{name}@", value)
    (folder / "manifest.raucm").write_text(manifest)
    (folder / "boot.vfat").write_bytes(content)
    (folder / "system.img").write_bytes(content[::-1])
    shutil.copy(RAUC / "slot-hook", folder)
    signer = [f"--cert={keys / 'release.pem'}", f"--key={keys / 'release.key'}", f"--keyring={keys / 'keyring.pem'}"]
    subprocess.run(["rauc", "bundle", *signer, str(folder), str(place)], check=True, capture_output=True)
    return place


def conf(place: Path, keyring: Path, *, board: str = "rpi4", bootloader: str = "uboot", handlers: str = "") -> Path:
    """Write the configuration of RAUC that an image of that board has, with another keyring."""
    text = SYSTEM_CONF.read_text()
    words = {"COMPATIBLE": f"conflux-{board}", "BOOTLOADER": bootloader, "HANDLERS": handlers}
    for name, value in words.items():
        text = text.replace(f"@{name}@", value)
    place.write_text(text.replace("/etc/rauc/keyring.pem", str(keyring)).replace("/data/rauc", str(place.parent)))
    return place
