"""How a slot is chosen, by U-Boot alone: no kernel starts, so each of these takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from image.desk import BOARD
from image.disk import MIB, Disk, flashed
from image.vm import Machine

SOON_S = 60


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A board of the image whose slots have no kernel."""
    disk = Disk(flashed(BOARD), tmp_path / "attic.qcow2")
    disk.overwrite("boot_a", bytes(MIB))
    machine = Machine("attic", disk, folder=tmp_path)
    yield machine
    machine.cut_power()


def test_slot_that_does_not_load_is_followed_by_the_other_at_once(machine: Machine) -> None:
    machine.power_on()
    for line in ("slot A, 2 tries", "slot A does not load", "slot B, 2 tries", "slot B does not load"):
        machine.expect(f"conflux: {line}", within_s=SOON_S, never="all begin anew")
    machine.expect("conflux: no slot is left to try: all begin anew", within_s=SOON_S)
    machine.expect("conflux: slot A, 2 tries", within_s=SOON_S)


def test_tries_are_counted_across_power_cuts_though_one_copy_is_torn(machine: Machine) -> None:
    machine.power_on()
    machine.expect("conflux: slot A, 2 tries", within_s=SOON_S)
    machine.expect("conflux: slot B, 2 tries", within_s=SOON_S)
    machine.cut_power()
    machine.disk.overwrite("bootstate", bytes(512))
    machine.power_on()
    # A had no try left; had the state been lost, A would have three again.
    machine.expect("conflux: slot B, 1 tries", within_s=SOON_S, never="slot A, 2 tries")
