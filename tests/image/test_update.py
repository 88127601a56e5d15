"""An update goes into the other slot, is tried, and stays only if the board works as before: else the board falls back.

attic     a good update: B is marked good
cellar    one whose kernel does not load, then one that starts and reaches nobody: A goes on both times
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from image.bundles import FLOOR, bundle, no_kernel, no_overlay
from image.desk import Desk
from image.disk import MIB, command
from image.site import BOOT_S, DEAD, READY, failed_units
from image.vm import Shell, wait_slowly
from kit.tree import TREE
from rig.enter import add_figures

INSTALL_S = 600
VERDICT_S = 600
TARGET = "/data/update.raucb"


def version(shell: Shell) -> str:
    """Return what runs on a board."""
    text = shell.run("cat", "/usr/lib/conflux-board/image").stdout
    return dict(line.split("=", 1) for line in text.splitlines())["VERSION"]


def node_id(shell: Shell) -> str:
    """Return who a board is in its realm."""
    node: str = shell.json("conflux", "status", "--json")["node"]["id"]
    return node


def slot(shell: Shell) -> str:
    """Return which slot runs."""
    words = shell.run("cat", "/proc/cmdline").stdout.split()
    return next(word.removeprefix("rauc.slot=") for word in words if word.startswith("rauc.slot="))


def install(shell: Shell, file: Path) -> None:
    """Bring a bundle onto a board, install it and restart into it."""
    shell.put(file, TARGET)
    shell.run("conflux", "update", TARGET, within_s=INSTALL_S)
    shell.run("rm", TARGET)
    shell.run("conflux", "update", "--reboot", check=False)
    shell.hang_up()


def verdict(shell: Shell, of: str) -> dict[str, Any]:
    """Wait for the verdict about an update and return it.  of: its version."""

    def judged() -> dict[str, Any] | None:
        done = shell.run("cat", "/data/update/result.json", check=False)
        if done.returncode or shell.run("test", "-e", "/data/update/trial.json", check=False).returncode == 0:
            return None
        found: dict[str, Any] = shell.json("cat", "/data/update/result.json")
        return found if found["version"] == of else None

    found: dict[str, Any] = wait_slowly(
        judged, f"{shell.machine.name}: a verdict about {of}", within_s=VERDICT_S, log=shell.machine.tail
    )
    return found


@pytest.fixture(scope="module")
def updated(desk: Desk) -> dict[str, str]:
    """Install a good update on attic and a broken one on cellar, at once.  Return versions, and ids of the boards."""
    attic, cellar = desk.shell("attic"), desk.shell("cellar")
    facts = {"before": version(attic), "attic": node_id(attic), "cellar": node_id(cellar)}
    facts |= {"good": f"{facts['before']}.1", "broken": f"{facts['before']}.2", "silent": f"{facts['before']}.3"}
    attic.try_until("conflux", "ping", "cellar", "-c", "1", within_s=60)
    good = bundle(desk.image, facts["good"], desk.folder, name="good")
    broken = bundle(desk.image, facts["broken"], desk.folder, name="broken", change=no_kernel)
    with ThreadPoolExecutor(2) as both:
        for done in [both.submit(install, attic, good), both.submit(install, cellar, broken)]:
            done.result()
    return facts


def test_good_update_boots_and_is_marked_good(desk: Desk, updated: dict[str, str]) -> None:
    machine, attic = desk.machines["attic"], desk.shell("attic")
    machine.expect(r"conflux: slot B", within_s=BOOT_S, never=DEAD)
    machine.expect(READY, within_s=BOOT_S, never=DEAD)
    assert slot(attic) == "B"
    found = verdict(attic, updated["good"])
    assert found["good"], found
    assert node_id(attic) == updated["attic"]
    assert failed_units(attic) == []


def test_update_that_does_not_load_falls_back_and_says_why(desk: Desk, updated: dict[str, str]) -> None:
    machine, cellar = desk.machines["cellar"], desk.shell("cellar")
    machine.expect(r"conflux: slot B does not load", within_s=BOOT_S, never=DEAD)
    machine.expect(r"conflux: slot A", within_s=BOOT_S, never=DEAD)
    machine.expect(READY, within_s=BOOT_S, never=DEAD)
    assert slot(cellar) == "A"
    found = verdict(cellar, updated["broken"])
    assert not found["good"]
    assert node_id(cellar) == updated["cellar"]
    warnings = cellar.json("conflux", "status", "--json")["warnings"]
    assert any(updated["broken"] in warning for warning in warnings), warnings


def test_update_that_reaches_nobody_falls_back_and_says_why(desk: Desk, updated: dict[str, str]) -> None:
    machine, cellar = desk.machines["cellar"], desk.shell("cellar")
    cellar.try_until("conflux", "ping", "attic", "-c", "1", within_s=120)
    install(cellar, bundle(desk.image, updated["silent"], desk.folder, name="silent", change=no_overlay))
    machine.expect(r"conflux: slot B", within_s=BOOT_S, never=DEAD)
    machine.expect(r"conflux: slot A", within_s=VERDICT_S + BOOT_S, never=DEAD)
    machine.expect(READY, within_s=BOOT_S, never=DEAD)
    found = verdict(cellar, updated["silent"])
    assert not found["good"]
    assert "attic" in found["why"] or "founder" in found["why"], found
    assert node_id(cellar) == updated["cellar"]
    cellar.try_until("conflux", "ping", "attic", "-c", "1", within_s=120)


def test_later_boot_ends_in_the_same_node(desk: Desk, updated: dict[str, str]) -> None:
    machine = desk.machines["attic"]
    machine.cut_power()
    desk.shell("attic").hang_up()
    machine.power_on()
    machine.expect(READY, within_s=BOOT_S, never=DEAD)
    add_figures("image.json", {"boot_s": round(machine.on_for(), 1), "boot_waited_s": round(machine.waited(), 1)})
    assert slot(desk.shell("attic")) == "B"
    assert node_id(desk.shell("attic")) == updated["attic"]


def foreign(desk: Desk, version: str) -> Path:
    """Return a bundle that somebody else signed."""
    keys = desk.folder / "foreign-keys"
    command(TREE / "images/rauc/keys", keys)
    return bundle(desk.image, version, desk.folder, name="foreign", is_noise=True, keys=keys)


def tampered(desk: Desk, version: str) -> Path:
    """Return a bundle of which one bit was changed."""
    file = bundle(desk.image, version, desk.folder, name="tampered", is_noise=True)
    with file.open("r+b") as out:
        out.seek(5 * MIB)
        (byte,) = out.read(1)
        out.seek(5 * MIB)
        out.write(bytes([byte ^ 1]))
    return file


def truncated(desk: Desk, version: str) -> Path:
    """Return a bundle whose copying was interrupted."""
    file = bundle(desk.image, version, desk.folder, name="truncated", is_noise=True)
    with file.open("r+b") as out:
        out.truncate(file.stat().st_size // 2)
    return file


def of_another_board(desk: Desk, version: str) -> Path:
    """Return a bundle for a board of another kind."""
    return bundle(desk.image, version, desk.folder, name="other", is_noise=True, compatible="conflux-rpi3")


def old(desk: Desk, _version: str) -> Path:
    """Return a bundle that is older than what a board may go back to."""
    return bundle(desk.image, "0.0.1", desk.folder, name="old", is_noise=True)


WHY: dict[Callable[[Desk, str], Path], str] = {
    foreign: "it is signed with a key that this board does not trust",
    tampered: "its content does not fit its signature: it was changed, or damaged",
    truncated: "it is cut short, or no update bundle",
    of_another_board: "it is for conflux-rpi3, and this board is conflux-{board}",
    old: "version 0.0.1 is older than {floor}, the oldest that {version} goes back to",
}


@pytest.mark.parametrize("wrong", WHY, ids=lambda each: each.__name__)
def test_bundle_that_must_not_run_is_refused_with_the_reason(
    desk: Desk, updated: dict[str, str], wrong: Callable[[Desk, str], Path]
) -> None:
    attic = desk.shell("attic")
    file = wrong(desk, f"{updated['before']}.9")
    attic.put(file, TARGET)
    file.unlink()
    done = attic.run("conflux", "update", TARGET, check=False, within_s=INSTALL_S)
    attic.run("rm", TARGET)
    assert done.returncode == 1, (done.stdout, done.stderr)
    why = WHY[wrong].format(board=desk.image.board, floor=FLOOR.read_text().strip(), version=version(attic))
    assert done.stderr == f"conflux: {TARGET}: {why}\n"
    assert attic.run("test", "-e", "/data/update/trial.json", check=False).returncode == 1
