"""How U-Boot of the image chooses a slot: no system starts, so each of these takes seconds."""

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
    """A board of the image."""
    machine = Machine("attic", Disk(flashed(BOARD), tmp_path / "attic.qcow2"), folder=tmp_path)
    yield machine
    machine.cut_power()


def test_slot_that_does_not_load_is_followed_by_the_other_at_once(machine: Machine) -> None:
    machine.disk.overwrite("boot_a", bytes(MIB))
    machine.power_on()
    for line in ("slot A, 2 tries", "slot A does not load", "slot B, 2 tries", "slot B does not load"):
        machine.expect(f"conflux: {line}", within_s=SOON_S, never="all begin anew")
    machine.expect("conflux: no slot is left to try: all begin anew", within_s=SOON_S)
    machine.expect("conflux: slot A, 2 tries", within_s=SOON_S)


def test_tries_are_counted_across_power_cuts_though_one_copy_is_torn(machine: Machine) -> None:
    for tries_left in (2, 1):
        machine.power_on()
        machine.expect(f"conflux: slot A, {tries_left} tries", within_s=SOON_S)
        machine.expect("Starting kernel", within_s=SOON_S)
        machine.cut_power()  # long before the system would give the tries back
        machine.disk.overwrite("bootstate", bytes(512))
    machine.power_on()
    # Had the state been lost, A would have three again.
    machine.expect("conflux: slot A, 0 tries", within_s=SOON_S, never="slot A, [12] tries")
