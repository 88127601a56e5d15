"""A card that somebody copied: both boards are one node, every side says so, and the copy can be made a new board.

founder ─ switch ─┬─ attic
                  └─ copy   the same disk, byte by byte, in another board
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import pytest
from image.desk import BOARD
from image.disk import flashed
from image.site import BOOT_S, DEAD, FIRST_BOOT_S, READY, Site, failed_units, toml
from image.vm import Machine, Shell, wait_slowly

TWIN_S = 180  # until two boards have met, on a machine that emulates both
HOST_KEY = "/data/board/ssh/ssh_host_ed25519_key.pub"


class Identity(NamedTuple):
    """What no two boards may share."""

    node: str
    machine: str
    host_key: str


class Cloned(NamedTuple):
    """A board and its copy, both running, and what both say that they are."""

    site: Site
    attic: Machine
    copy: Machine
    before: Identity


def identity(shell: Shell) -> Identity:
    node = shell.json("conflux", "status", "--json")["node"]["id"]
    return Identity(node, shell.run("cat", "/etc/machine-id").stdout, shell.run("cat", HOST_KEY).stdout)


def twins(shell: Shell) -> list[str]:
    """Return what a board says of another one with its identity; nothing while its daemon starts."""
    done = shell.run("conflux", "status", "--json", check=False)
    found = json.loads(done.stdout)["warnings"] if done.returncode == 0 else []
    return [line for line in found if line.startswith("twin: ")]


def forget_host_key(machine: Machine) -> None:
    """Have the founder's ssh take the board's next host key."""
    (machine.folder / f"{machine.name}.known_hosts").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def cloned() -> Iterator[Cloned]:
    site = Site(["attic", "copy"], name="cloned")
    try:
        attic = site.machine("attic", site.disk(flashed(BOARD), "attic", site.card("attic")))
        attic.power_on()
        attic.expect(READY, within_s=FIRST_BOOT_S, never=DEAD)
        shell = site.shell("attic")
        before = identity(shell)
        wait_slowly(lambda: "cfx1" not in (attic.disk.read("conflux.toml") or ""), "no token on the card", within_s=60)
        shell.run("sync")
        attic.cut_power()
        shell.hang_up()
        copy = site.machine("copy", attic.disk.copy(site.folder / "copy.qcow2"))
        for machine in (attic, copy):
            machine.power_on()
        for machine in (attic, copy):
            machine.expect(READY, within_s=2 * BOOT_S, never=DEAD)
        yield Cloned(site, attic, copy, before)
    finally:
        site.close()


def test_both_boards_say_that_there_are_two_of_them(cloned: Cloned) -> None:
    for name in ("attic", "copy"):
        shell = cloned.site.shell(name)
        assert identity(shell) == cloned.before
        said = wait_slowly(partial(twins, shell), f"{name}: a warning of its twin", within_s=TWIN_S)
        assert "`conflux board renew`" in said[0]


def test_the_copy_becomes_a_new_board_although_its_power_is_cut_meanwhile(cloned: Cloned) -> None:
    site, copy = cloned.site, cloned.copy
    shell = site.shell("copy")
    told = shell.json("conflux", "board", "renew", "--yes", "--json")
    assert (told["name"], told["node"], told["restarting"]) == ("attic", cloned.before.node, True)
    time.sleep(random.Random().uniform(0, 60))
    copy.cut_power()
    shell.hang_up()
    forget_host_key(copy)
    copy.power_on()
    shell.try_until("systemctl", "is-system-running", "--wait", within_s=2 * BOOT_S)
    assert shell.run("cat", "/etc/machine-id").stdout != cloned.before.machine
    assert shell.run("cat", HOST_KEY).stdout != cloned.before.host_key
    assert shell.run("test", "-e", "/data/board/renewing", check=False).returncode == 1
    assert shell.run("test", "-e", "/var/lib/conflux/realm.chain", check=False).returncode == 1
    assert "made new" in shell.run("cat", "/bootconfig/first-boot.log").stdout
    assert failed_units(shell) == []
    machine_id = shell.run("cat", "/etc/machine-id").stdout
    copy.cut_power()
    shell.hang_up()
    copy.disk.put("conflux.toml", toml(site.card("barn")))
    copy.power_on()
    copy.expect(READY, within_s=FIRST_BOOT_S, never=DEAD)
    now = identity(shell)
    assert now.node != cloned.before.node
    assert now.machine == machine_id
    status = shell.json("conflux", "status", "--json")
    assert (status["node"]["name"], status["realm"]["name"]) == ("barn", "lab")


def test_the_original_is_what_it_was_and_speaks_with_the_new_board(cloned: Cloned) -> None:
    shell = cloned.site.shell("attic")
    assert identity(shell) == cloned.before
    shell.try_until("conflux", "ping", "barn", "-c", "2", within_s=180)
    wait_slowly(lambda: not twins(shell), "attic: no twin any more", within_s=TWIN_S)
