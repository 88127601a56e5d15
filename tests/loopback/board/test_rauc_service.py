"""The distribution's RAUC as a service on a bus of its own, with the Pi 5's backend: what it says, and to whom."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from kit import bundles
from kit.tree import TREE

from conflux.board.rauc import Rauc, Refused
from conflux.board.rauc_words import Slot

pytestmark = pytest.mark.skipif(
    not bundles.has_rauc() or not shutil.which("dbus-daemon"), reason="needs rauc and dbus-daemon"
)

TRYBOOT = TREE / "firmware/tree/usr/lib/conflux-board/tryboot"
OURS = TREE / "firmware/tree/etc/dbus-1/system.d/conflux-rauc.conf"
WITHIN_S = 20

# What Debian's package allows stands in it, so that what ours takes back is seen.
BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={folder}/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="de.pengutronix.rauc"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow send_destination="de.pengutronix.rauc"/>
  </policy>
  {more}
</busconfig>
"""


class Service(NamedTuple):
    """folder: of the board's files.  conf: RAUC's.  environment: leads to the bus."""

    folder: Path
    conf: Path
    environment: dict[str, str]


@contextmanager
def start(folder: Path, *, more: str = "") -> Iterator[Service]:
    """Start a bus and RAUC on it, for a Pi 5 that runs slot A."""
    card = folder / "bootconfig"
    card.mkdir()
    shutil.copy(TREE / "images/boards/rpi5/autoboot.txt", card)
    shutil.copy(TREE / "images/boards/rpi5/cmdline.txt", folder / "cmdline")
    backend = folder / "backend"
    backend.write_text(
        f"#!/bin/sh\nexport BOOTCONFIG={card} REBOOT_ARGUMENT={folder}/run/param COMMAND_LINE={folder}/cmdline\n"
        f'exec {TRYBOOT} "$@"\n'
    )
    backend.chmod(0o755)
    bundles.keys(folder / "keys")
    handlers = f"[handlers]\nbootloader-custom-backend={backend}"
    conf = bundles.conf(
        folder / "c.conf", folder / "keys/keyring.pem", board="rpi5", bootloader="custom", handlers=handlers
    )
    (folder / "bus.conf").write_text(BUS.format(folder=folder, more=more))
    folder.chmod(0o755)
    environment = os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={folder}/bus", "LC_ALL": "C.UTF-8"}
    with (folder / "log").open("wb") as log:
        bus = subprocess.Popen(["dbus-daemon", f"--config-file={folder}/bus.conf", "--nofork"], stdout=log, stderr=log)
        try:
            wait(lambda: (folder / "bus").exists())
            command = ["rauc", f"--conf={conf}", "--override-boot-slot=A", "service"]
            rauc = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                yield Service(folder, conf, environment)
            finally:
                rauc.terminate()
                rauc.wait()
        finally:
            bus.terminate()
            bus.wait()


def wait(fact) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    with start(tmp_path) as started:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", started.environment["DBUS_SYSTEM_BUS_ADDRESS"])
        wait(lambda: answers(started))
        yield started


@pytest.fixture
def guarded() -> Iterator[Service]:
    """A service whose files every user of this machine can reach, as pytest's own folders cannot be."""
    with (
        tempfile.TemporaryDirectory() as folder,
        start(Path(folder), more=f"<include>{OURS}</include>") as started,
    ):
        yield started


def answers(service: Service, *before: str) -> bool:
    command = [*before, "rauc", f"--conf={service.conf}", "status"]
    return subprocess.run(command, env=service.environment, capture_output=True, check=False).returncode == 0


def test_what_the_service_says_of_its_slots_is_read(service):
    found = Rauc(service.conf).slots()
    assert set(found.slots) == {Slot("A", True, True, None), Slot("B", False, True, None)}
    assert (found.booted, found.next) == ("A", "A")


def test_the_service_hands_marks_to_the_backend_of_a_pi_5(service):
    rauc, folder = Rauc(service.conf), service.folder
    rauc.mark("active", "other")
    assert (folder / "run/param").read_text() == "0 tryboot\n"
    assert rauc.slots().next == "B"
    rauc.mark("bad", "other")
    assert not (folder / "run/param").exists()
    found = rauc.slots()
    assert (found.next, [slot.is_good for slot in sorted(found.slots)]) == ("A", [True, False])
    rauc.mark("good", "booted")


def test_a_mark_that_the_backend_refuses_is_said(service):
    (service.folder / "bootconfig/autoboot.txt").write_text("")
    with pytest.raises(Refused, match="could not be marked active"):
        Rauc(service.conf).mark("active", "other")


def test_no_user_but_root_asks_the_service_of_a_board(guarded):
    other = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") if os.geteuid() == 0 else ()
    if os.geteuid() == 0:
        wait(lambda: answers(guarded))
    else:
        wait(lambda: "de.pengutronix.rauc" in (guarded.folder / "log").read_text())
    assert not answers(guarded, *other)
