"""How long a board takes until it is in the realm, alone on two processors of this machine: the first time, and later.

What its processors had to wait for one of this machine's is taken off: a busy machine makes no slow board.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from image.desk import BOARD
from image.disk import flashed
from image.site import BOOT_S, DEAD, FIRST_BOOT_S, READY, Site
from image.vm import Machine
from rig.enter import add_figures

FIRST_BOOT_S_MAX, BOOT_S_MAX = 150.0, 90.0


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site(["attic"], name="times")
    try:
        site.machine("attic", site.disk(flashed(BOARD), "attic", site.card("attic")))
        yield site
    finally:
        site.close()


def boot(machine: Machine, within_s: float, figure: str) -> float:
    """Switch a board on and return how many seconds it took until it was ready."""
    machine.power_on()
    machine.expect(READY, within_s=within_s, never=DEAD)
    took_s, waited_s = machine.on_for(), machine.waited()
    add_figures("image.json", {f"{figure}_s": round(took_s, 1), f"{figure}_waited_s": round(waited_s, 1)})
    return took_s - waited_s


def test_first_boot_is_fast_enough(site: Site) -> None:
    assert boot(site.machines["attic"], FIRST_BOOT_S, "first_boot") < FIRST_BOOT_S_MAX


def test_later_boot_is_fast_enough(site: Site) -> None:
    machine = site.machines["attic"]
    site.shell("attic").run("sync")
    machine.cut_power()
    assert boot(machine, BOOT_S, "boot") < BOOT_S_MAX
