"""The switch of the boards' tests as a process: frames between plain sockets, as QEMU sends them."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from image.switch import Switch, board_end

ATTIC, CELLAR, ALL = b"\x52\x54\x00\x00\x00\x01", b"\x52\x54\x00\x00\x00\x02", b"\xff" * 6
SOON_S, LATE_S = 0.3, 10.0


class Board:
    """The machine's end of a cable, where QEMU would be."""

    def __init__(self, folder: Path, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours = board_end(folder, name)
        ours.unlink(missing_ok=True)
        self.socket.bind(str(ours))
        self.theirs = str(folder / name)

    def send(self, target: bytes, sender: bytes, body: bytes) -> None:
        self.socket.sendto(target + sender + b"\x08\x00" + body, self.theirs)

    def heard(self, within_s: float = LATE_S) -> bytes | None:
        """Return the body of the next frame, or None if none comes in time."""
        self.socket.settimeout(within_s)
        try:
            return self.socket.recv(65_536)[14:]
        except TimeoutError:
            return None


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[Switch]:
    running = Switch(tmp_path / "sockets", ("attic", "cellar"), seed=3)
    yield running
    running.close()


@pytest.fixture
def boards(switch: Switch) -> Iterator[tuple[Board, Board]]:
    both = Board(switch.folder, "attic"), Board(switch.folder, "cellar")
    yield both
    for board in both:
        board.socket.close()


def test_frames_pass_whole_both_ways(switch, boards):
    attic, cellar = boards
    attic.send(ALL, ATTIC, b"who is there")
    assert cellar.heard() == b"who is there"
    jumbo = bytes(9000)
    cellar.send(ATTIC, CELLAR, jumbo)
    assert attic.heard() == jumbo
    counts = switch.counts()
    assert counts["attic"]["received"] == counts["attic"]["sent"] == 1
    assert counts["attic"]["sent_bytes"] == 14 + len(jumbo)


def test_delay_is_felt_and_a_partition_cuts(switch, boards):
    attic, cellar = boards
    switch.condition("cellar", delay_s=0.2)
    started = time.monotonic()
    attic.send(ALL, ATTIC, b"far")
    assert cellar.heard() == b"far"
    assert time.monotonic() - started >= 0.2
    switch.condition("cellar", delay_s=0.0)
    switch.partition(["attic"], ["cellar"])
    attic.send(ALL, ATTIC, b"cut off")
    assert cellar.heard(SOON_S) is None
    switch.heal()
    attic.send(ALL, ATTIC, b"back")
    assert cellar.heard() == b"back"
    assert switch.counts()["cellar"]["drops"] == {"cut": 1}


def test_board_without_power_loses_frames_and_is_found_when_it_is_back(switch, boards):
    attic, cellar = boards
    cellar.socket.close()
    attic.send(ALL, ATTIC, b"nobody is there")
    deadline = time.monotonic() + LATE_S
    while not switch.counts()["cellar"]["drops"] and time.monotonic() < deadline:
        pass
    assert switch.counts()["cellar"]["drops"] == {"absent": 1}
    again = Board(switch.folder, "cellar")
    attic.send(ALL, ATTIC, b"welcome")
    assert again.heard() == b"welcome"
    again.socket.close()


def test_wrong_commands_are_refused_and_the_switch_goes_on(switch, boards):
    for wrong in ({"port": "garage", "loss": 0.1}, {"port": "attic", "loss": 2.0}):
        with pytest.raises(AssertionError, match="switch: condition"):
            switch.condition(**wrong)
    with pytest.raises(AssertionError, match="switch: fly: no command 'fly'"):
        switch._do("fly")
    attic, cellar = boards
    attic.send(ALL, ATTIC, b"still here")
    assert cellar.heard() == b"still here"


def test_switch_ends_with_its_standard_input(tmp_path):
    tests = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "image.switch", str(tmp_path), "attic"]
    environment = {"PYTHONPATH": str(tests)}
    ended = subprocess.run(command, input=b"", capture_output=True, env=environment, timeout=20, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
