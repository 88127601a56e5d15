"""Boards that were flashed and given nothing but a conflux.toml: they find each other, join, speak, and fall silent."""

from __future__ import annotations

import pytest
from image.desk import JOINING, Desk
from image.site import failed_units, links, memory_mb, wait_for_silence
from image.vm import Shell, wait_slowly
from rig.enter import add_figures

MEMORY_MB_MAX = 180.0
QUIET_S = 180  # a stream that paused before stays for two minutes at most, and its link lingers


@pytest.fixture(scope="module")
def attic(desk: Desk) -> Shell:
    return desk.shell("attic")


@pytest.fixture(scope="module")
def cellar(desk: Desk) -> Shell:
    return desk.shell("cellar")


def test_first_boot_ends_in_a_node_that_is_ready(attic: Shell) -> None:
    status = attic.json("conflux", "status", "--json")
    assert status["node"]["name"] == "attic"
    assert status["realm"]["name"] == "lab"


def test_no_unit_failed_on_any_board(attic: Shell, cellar: Shell) -> None:
    failed = [*failed_units(attic), *failed_units(cellar)]
    add_figures("image.json", {"failed_units": len(failed)})
    assert failed == []
    for shell in (attic, cellar):
        assert shell.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip() == "running"


def test_memory_is_within_reach(attic: Shell) -> None:
    used = memory_mb(attic)
    add_figures("image.json", {"memory_mb": round(used, 1)})
    assert used < MEMORY_MB_MAX


@pytest.mark.parametrize("name", JOINING)
def test_token_is_erased_from_the_card_once_it_is_used(desk: Desk, name: str) -> None:
    disk = desk.machines[name].disk
    card = wait_slowly(lambda: disk.read("conflux.toml"), "conflux.toml on the card", within_s=30)
    wait_slowly(lambda: "cfx1" not in (disk.read("conflux.toml") or ""), "no token on the card", within_s=60)
    assert f'name = "{name}"' in card  # what else a person wrote is left alone
    assert b"cfx1" not in disk.partition("bootconfig")  # nor in a block that no file has any more


def test_card_says_how_the_first_boot_went(desk: Desk) -> None:
    log = desk.machines["attic"].disk.read("first-boot.log")
    assert log is not None
    assert "attic" in log
    assert "cfx1" not in log


def test_root_has_no_password_and_ssh_takes_the_key_alone(attic: Shell) -> None:
    (root,) = [line for line in attic.run("cat", "/etc/shadow").stdout.splitlines() if line.startswith("root:")]
    assert root.split(":")[1].strip("!*") == ""
    settings = attic.run("sshd", "-T", check=False).stdout or attic.run("/usr/sbin/sshd", "-T").stdout
    assert "passwordauthentication no" in settings
    assert "kbdinteractiveauthentication no" in settings


def test_name_is_answered_by_mdns(cellar: Shell) -> None:
    cellar.try_until("getent", "ahosts", "attic.local", within_s=60)


def test_boards_ping_over_a_link_that_dissolves_with_no_founder_there(desk: Desk, attic: Shell, cellar: Shell) -> None:
    desk.realm.daemons["founder"].down()
    try:
        wait_for_silence(attic, cellar, within_s=QUIET_S)
        assert links(attic) == []
        attic.try_until("conflux", "ping", "cellar", "-c", "3", within_s=60)
        (link,) = [row for row in links(attic) if row["name"] == "cellar"]
        assert link["state"] == "open"
        wait_for_silence(attic, cellar, within_s=QUIET_S)
        assert links(attic) == []
    finally:
        desk.realm.restart(desk.founder)


def test_boards_find_each_other_again_when_their_cables_were_cut(desk: Desk, attic: Shell, cellar: Shell) -> None:
    desk.switch.partition(["attic"], ["cellar"])
    failed = attic.run("conflux", "ping", "cellar", "-c", "1", "-W", "5", check=False)
    # The founder is a way round: it is in no part, hence may relay.  Then the direct way is found again.
    assert failed.returncode in (0, 1)
    desk.switch.heal()
    attic.try_until("conflux", "ping", "cellar", "-c", "1", within_s=120)


def test_delay_and_loss_on_the_cable_are_lived_through(desk: Desk, attic: Shell) -> None:
    desk.switch.condition("cellar", delay_s=0.05, loss=0.02)
    try:
        attic.try_until("conflux", "ping", "cellar", "-c", "5", within_s=120)
    finally:
        desk.switch.condition("cellar", delay_s=0.0, loss=0.0)


def test_card_with_mistakes_is_reported_and_the_board_comes_up(desk: Desk) -> None:
    garage = desk.machines["garage"]
    shell = desk.shell("garage")
    log = shell.try_until("cat", "/bootconfig/first-boot.log", within_s=180)
    assert "nmae" in log
    assert "Atlantis" in log
    assert "idle_timeout" in log
    said = garage.console()
    assert "nmae" in said
    assert failed_units(shell) == []
    assert shell.run("hostname").stdout.strip() == "garage"
