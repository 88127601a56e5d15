"""Twenty times the plug is pulled: during first boots, joins and updates.  The board always comes back as who it was.

CONFLUX_CUTS=N pulls it N times; CONFLUX_SEED=N repeats the moments of an earlier run, whose number is printed.
What QEMU has not written yet is lost with it, as in a disk's cache.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest
from image.bundles import bundle
from image.desk import BOARD
from image.disk import Image, flashed
from image.site import BOOT_S, DEAD, FIRST_BOOT_S, READY, Site, failed_units
from image.vm import Machine, Shell
from rig.enter import add_figures

from conflux.cli.members import MemberRow, Members

CUTS = int(os.environ.get("CONFLUX_CUTS", "20"))
SEED = int(os.environ.get("CONFLUX_SEED", time.time_ns() % 1_000_000))
FIRST_BOOTS = -(-CUTS * 2 // 5)  # each on a card of its own; the others hit updates of one board
FIRST_BOOT_CUT_S = (3.0, 110.0)  # after power on: from U-Boot to after the join
UPDATE_CUT_S = (0.0, 150.0)  # after the update began: while it is written, at the reboot, in the trial
NAME = "phoenix"


class Survival:
    """A site, and how many cuts its boards have come back from."""

    def __init__(self) -> None:
        self.random = random.Random(SEED)
        self.image: Image = flashed(BOARD)
        self.site = Site([NAME], name="cuts")
        self.survived = 0

    def note(self) -> None:
        """Count a cut that was survived."""
        self.survived += 1
        add_figures("image.json", {"power_cuts_survived": self.survived})

    def cut_at_random(self, machine: Machine, span_s: tuple[float, float]) -> float:
        """Pull the plug after a random time; return that."""
        after_s = self.random.uniform(*span_s)
        time.sleep(after_s)
        machine.cut_power()
        return after_s

    def members(self) -> list[MemberRow]:
        """Return the founder's rows of nodes with the board's name."""
        rows = self.site.founder.ask(Members, "realm", "members").members
        return [row for row in rows if row.name.startswith(NAME) and row.state == "member"]


@pytest.fixture(scope="module")
def survival() -> Iterator[Survival]:
    print(f"seed {SEED}: CONFLUX_SEED={SEED} repeats the moments")
    survival = Survival()
    try:
        yield survival
    finally:
        survival.site.close()


def identity(shell: Shell) -> tuple[str, str, str]:
    """Return what a board must never lose: node id, host key, machine id."""
    node: str = shell.json("conflux", "status", "--json")["node"]["id"]
    key = shell.run("cat", "/etc/ssh/ssh_host_ed25519_key.pub").stdout
    return node, key, shell.run("cat", "/etc/machine-id").stdout


@pytest.mark.parametrize("number", range(FIRST_BOOTS))
def test_first_boot_whose_power_is_cut_ends_in_one_member(survival: Survival, number: int) -> None:
    site, name = survival.site, f"{NAME}-{number}"
    machine = site.machine(name, site.disk(survival.image, name, site.card(name)), NAME)
    try:
        machine.power_on()
        after_s = survival.cut_at_random(machine, FIRST_BOOT_CUT_S)
        print(f"{name}: cut after {after_s:.1f} s")
        machine.power_on()
        machine.expect(READY, within_s=FIRST_BOOT_S, never=DEAD)
        shell = site.shell(name)
        mine, _, _ = identity(shell)
        assert [row.node for row in survival.members() if row.name == name] == [mine]
        assert failed_units(shell) == []
        survival.note()
    finally:
        machine.cut_power()


def test_update_whose_power_is_cut_leaves_a_board_that_is_who_it_was(survival: Survival) -> None:
    site = survival.site
    machine = site.machine(NAME, site.disk(survival.image, NAME, site.card(NAME)))
    machine.power_on()
    machine.expect(READY, within_s=FIRST_BOOT_S, never=DEAD)
    shell = site.shell(NAME)
    first = identity(shell)
    version = shell.run("sh", "-c", ". /usr/lib/conflux-board/image; echo $VERSION").stdout.strip()
    for number in range(1, CUTS - FIRST_BOOTS + 1):
        file = bundle(survival.image, f"{version}.{number}", site.folder, name=f"update-{number}")
        shell.put(file, "/data/update.raucb")
        file.unlink()
        shell.run("systemd-run", "--collect", "conflux", "update", "/data/update.raucb", "--reboot")
        after_s = survival.cut_at_random(machine, UPDATE_CUT_S)
        print(f"update {number}: cut after {after_s:.1f} s")
        shell.hang_up()
        machine.power_on()
        machine.expect(READY, within_s=BOOT_S, never=DEAD)
        assert identity(shell) == first
        assert failed_units(shell) == []
        survival.note()
    assert survival.survived == CUTS
