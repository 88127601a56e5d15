"""Cards, disks and clocks that are not as they should be: the board boots all the same, and says what is wrong."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from image.desk import BOARD, FAULT
from image.disk import flashed
from image.site import BOOT_S, DEAD, FIRST_BOOT_S, READY, Site, failed_units
from image.vm import Machine, Shell

LOG = "first-boot.log"
CLUSTER_BYTES = 512


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    site = Site(["attic"], name=str(abs(hash(request.node.name))))
    yield site
    site.close()


def boot(site: Site, card: dict[str, dict[str, Any]], *, until: str = READY, **more: Any) -> Machine:
    """Flash a board, and switch it on for the first time."""
    machine = site.machine("attic", site.disk(flashed(BOARD), "attic", card), **more)
    machine.power_on()
    machine.expect(until, within_s=FIRST_BOOT_S, never=DEAD)
    return machine


def again(machine: Machine, shell: Shell) -> None:
    """Pull the plug and switch the board on again."""
    machine.cut_power()
    shell.hang_up()
    machine.power_on()
    machine.expect(READY, within_s=BOOT_S, never=DEAD)


def node_id(shell: Shell) -> str:
    """Return who a board is in its realm."""
    node: str = shell.json("conflux", "status", "--json")["node"]["id"]
    return node


def expired(site: Site) -> str:
    """Return an invitation that is too old."""
    token = site.realm.invite(1, "--ttl", "1s")
    site.founder.run("sleep", "2")
    return token


@pytest.mark.parametrize(
    "token", [expired, lambda _site: "cfx1nonsense", lambda _site: None], ids=["expired", "garbled", "missing"]
)
def test_board_without_a_valid_invitation_comes_up_and_says_so(site: Site, token: Callable[[Site], str | None]) -> None:
    card = site.card("attic")
    if (value := token(site)) is None:
        del card["board"]["token"]
    else:
        card["board"]["token"] = value
    machine = boot(site, card, until=FAULT)
    shell = site.shell("attic")
    log = shell.try_until("cat", f"/bootconfig/{LOG}", within_s=120)
    assert "token" in log or "invitation" in log
    assert shell.run("hostname").stdout.strip() == "attic"
    assert failed_units(shell) == []
    assert machine.is_on


@pytest.mark.parametrize("year", [1999, 2050])
def test_board_whose_clock_is_years_off_joins(site: Site, year: int) -> None:
    boot(site, site.card("attic"), options=["-rtc", f"base={year}-07-01T00:00:00"])
    assert failed_units(site.shell("attic")) == []


def test_full_data_partition_costs_no_identity(site: Site) -> None:
    machine = boot(site, site.card("attic"))
    shell = site.shell("attic")
    mine = node_id(shell)
    shell.run("sh", "-c", "cat /dev/zero >/data/full; sync", check=False, within_s=600)
    assert shell.run("sh", "-c", "echo more >/data/more", check=False).returncode != 0
    again(machine, shell)
    assert node_id(shell) == mine
    assert any("full" in warning for warning in shell.json("conflux", "status", "--json")["warnings"])


def test_full_card_is_no_reason_not_to_join(site: Site) -> None:
    machine = site.machine("attic", site.disk(flashed(BOARD), "attic", site.card("attic")))
    size = machine.disk.image.partitions["bootconfig"].size
    while size >= CLUSTER_BYTES:
        with contextlib.suppress(AssertionError):  # what does not fit
            machine.disk.put(f"{size}.bin", "x" * size)
        size //= 2
    machine.power_on()
    machine.expect(READY, within_s=FIRST_BOOT_S, never=DEAD)
    assert failed_units(site.shell("attic")) == []


def test_damaged_data_partition_never_ends_in_another_identity_without_a_word(site: Site) -> None:
    machine = boot(site, site.card("attic"))
    shell = site.shell("attic")
    mine = node_id(shell)
    shell.run("sync")
    machine.cut_power()
    shell.hang_up()
    machine.disk.overwrite("data", bytes(64 * 1024))  # its superblock and its first tables
    machine.power_on()
    machine.expect(f"{READY}|{FAULT}", within_s=BOOT_S, never=DEAD)
    status = shell.run("conflux", "status", "--json", check=False)
    if status.returncode == 0 and json.loads(status.stdout)["node"]["id"] == mine:
        return
    assert "identity" in machine.console() or "identity" in (machine.disk.read(LOG) or "")
