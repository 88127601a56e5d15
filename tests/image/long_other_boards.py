"""The images of other boards, as far as an emulator goes: UEFI from the image itself, and a Raspberry Pi 3.

QEMU has no boot ROM of a Raspberry Pi: what config.txt names is loaded from the card by the test, as the firmware
would.  From there on (U-Boot, its script, the slots) all is the card's.  The emulated Pi has no Ethernet here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from image.disk import Disk, command, flashed
from image.site import DEAD, FIRST_BOOT_S, READY, Site, failed_units
from image.vm import Machine, uefi


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    site = Site(["attic"], name=request.node.name.split("_")[-1])
    yield site
    site.close()


def test_image_for_uefi_boots_from_its_own_loader(site: Site) -> None:
    disk = site.disk(flashed("generic-uefi"), "attic", site.card("attic"))
    machine = site.machine("attic", disk, firmware=uefi())
    machine.power_on()
    machine.expect(READY, within_s=FIRST_BOOT_S, never=DEAD)
    assert failed_units(site.shell("attic")) == []


class Pi(Machine):
    """A Raspberry Pi 3: what its firmware loads from the card is in `loaded`."""

    loaded: Path

    def _command(self) -> list[str]:
        words = ["qemu-system-aarch64", "-M", "raspi3b", "-m", "1024", "-nodefaults", "-display", "none"]
        words += ["-monitor", "none", "-serial", "null", "-serial", "stdio"]
        words += ["-kernel", str(self.loaded / "u-boot.bin"), "-dtb", str(self.loaded / "bcm2837-rpi-3-b.dtb")]
        return [*words, "-drive", f"if=sd,format=qcow2,file={self.disk.path}"]


def test_image_for_raspberry_pi_3_boots_from_its_card(site: Site) -> None:
    image = flashed("rpi3")
    disk = Disk(image, site.folder / "attic.qcow2", size="2G")  # a card's size is a power of two
    disk.put("conflux.toml", '[board]\nname = "attic"\n')
    fat = site.folder / "bootconfig"
    fat.write_bytes(disk.partition("bootconfig"))
    config = command("mtype", "-i", fat, "::config.txt").decode()
    assert "kernel=u-boot.bin" in config
    for name in ("u-boot.bin", "bcm2837-rpi-3-b.dtb"):
        command("mcopy", "-i", fat, f"::{name}", site.folder / name)
    pi = Pi("attic", disk, folder=site.folder)
    pi.loaded = site.folder
    site.machines["attic"] = pi
    pi.power_on()
    pi.expect(r"conflux: slot A", within_s=120, never=DEAD)
    pi.expect(r"conflux-board: (ready|fault)", within_s=2 * FIRST_BOOT_S, never=DEAD)
