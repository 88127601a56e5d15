"""The very card that `conflux sdcard write` writes: it boots, joins, grows, and is measured.

build/image/conflux-qemu-virt.img.zst ── conflux sdcard write ──► /dev/loopN ──► a board
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from image.desk import BOARD
from image.disk import BUILT, Image, partitions
from image.site import BOOT_S, DEAD, FIRST_BOOT_S, READY, Site, failed_units
from image.vm import Shell
from rig.enter import STATE

CARD_BYTES = 4_000_000_000
BENCH_S = 1200  # two minutes on a board, and the emulator is some times slower


def output(*words: str | Path, given: str = "") -> str:
    command = [str(word) for word in words]
    return subprocess.run(command, input=given, check=True, capture_output=True, text=True).stdout


def write(card: Path, site: Site) -> dict[str, object]:
    """Write the image to a card, as a person does; return what the command says."""
    packed = BUILT / f"conflux-{BOARD}.img.zst"
    device = output("losetup", "--find", "--show", card).strip()
    holding = os.open(device, os.O_RDONLY)
    try:
        output("losetup", "--detach", device)  # when it is closed
        more = ("--token-file", "-", "--name", "attic", "--ssh-key", site.key.with_suffix(".pub"))
        said = output(
            "conflux", "sdcard", "write", packed, device, "--yes", "--force", "--json", *more, given=site.realm.invite()
        )
    finally:
        os.close(holding)
    found: dict[str, object] = json.loads(said)
    return found


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    site = Site(["attic"], name="written")
    try:
        card = STATE / "card.img"
        with card.open("wb") as file:
            file.truncate(CARD_BYTES)
        said = write(card, site)
        assert said["configured"] is True
        assert said["checked_by"] == f"conflux-{BOARD}.sha256"
        machine = site.machine("attic", site.disk(Image(BOARD, card, partitions(card)), "attic", None))
        machine.power_on()
        machine.expect(READY, within_s=FIRST_BOOT_S, never=DEAD)
        yield site.shell("attic")
    finally:
        site.close()


def test_the_board_joined_and_has_all_of_the_card(shell: Shell) -> None:
    status = shell.json("conflux", "status", "--json")
    assert (status["node"]["name"], status["realm"]["name"]) == ("attic", "lab")
    assert failed_units(shell) == []
    size = int(shell.run("df", "--output=size", "-B1", "/data").stdout.split()[-1])
    assert size > CARD_BYTES / 2


def test_the_board_is_measured_at_a_word_and_its_page_shows_it(shell: Shell) -> None:
    shell.run("conflux", "board", "bench", "--quick", within_s=BENCH_S, check=False)
    report = json.loads(shell.run("cat", "/bootconfig/conflux-bench.json").stdout)
    assert report["schema"] == "conflux-bench"
    assert report["figures"]
    assert [part for part in report["missing"] if part["how"] == "failed"] == []
    page = shell.run("cat", "/bootconfig/conflux-bench.html").stdout
    script = (
        "import urllib.request as r; "
        "print(r.urlopen('http://127.0.0.1:7480/bench', timeout=60).read().decode(), end='')"
    )
    assert shell.run("/usr/lib/conflux/bin/python3", "-c", script).stdout == page


def test_a_file_on_the_card_asks_for_it(shell: Shell) -> None:
    machine = shell.machine
    shell.run("sync")
    machine.cut_power()
    shell.hang_up()
    machine.disk.put("bench.txt", "")
    machine.power_on()
    machine.expect(READY, within_s=BOOT_S, never=DEAD)
    assert shell.run("systemctl", "is-active", "conflux-bench.timer").stdout.strip() == "active"
    assert shell.run("systemctl", "show", "-P", "ConditionResult", "conflux-bench.timer").stdout.strip() == "yes"
