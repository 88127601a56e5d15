"""First boot of a board that was told to become a new one, and that the power may fail at any moment of it."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

from kit.builders import make_member, make_realm
from kit.flashed import PUBLIC_KEY, Flashed, Programs

from conflux.board import renew
from conflux.board.firstboot import FirstBoot
from conflux.state.directory import NODE_KEY, KeyFile, StateDir

ALPHA = make_member(make_realm(), "alpha")
CARD = f'[board]\nname = "attic"\nssh_key = "{PUBLIC_KEY}"\n[wifi]\nssid = "home"\npassword = "correct horse"\n'
NEW_ID = "f" * 32


class PowerCut(BaseException):
    """The power is gone: no handler of errors sees it."""


def member(top: Path) -> Flashed:
    """Return a board that joined, and wrote so on its card."""
    board = Flashed(top)
    board.card(CARD)
    boot(board)
    state = StateDir.open(board.places.state)
    state.save_record(NODE_KEY, KeyFile(ALPHA.keys.signing.seed))
    state.save_member(ALPHA)
    (board.places.fat / "board.txt").write_text("node id: alpha")
    return board


def boot(board: Flashed) -> FirstBoot:
    board.switch_off()
    first = FirstBoot(board.places, Programs())
    first.run()
    return first


def as_another_machine(board: Flashed) -> None:
    """Do what the initramfs does as long as the mark is there."""
    if renew.is_begun(board.places):
        (board.places.root / "etc/machine-id").write_text(f"{NEW_ID}\n")


def require_new(board: Flashed, host_key: bytes) -> None:
    state = StateDir.open(board.places.state)
    assert (state.member(), state.node_keys()) == (None, None)
    assert (board.places.own / "machine-id").read_text().strip() == NEW_ID
    assert not (board.places.fat / "board.txt").exists()
    assert (board.places.own / "ssh/ssh_host_ed25519_key").read_bytes() != host_key
    assert (board.places.own / "ssh/authorized_keys").read_text() == f"{PUBLIC_KEY}\n"
    assert "correct horse" in (board.places.own / "wifi.conf").read_text()


def old_host_key(board: Flashed) -> bytes:
    path = board.places.own / "ssh/ssh_host_ed25519_key"
    path.write_bytes(path.read_bytes() + b"of the board that it was\n")
    return path.read_bytes()


def test_a_board_that_is_told_to_becomes_a_new_one_and_keeps_its_wifi_and_its_users(tmp_path):
    board = member(tmp_path)
    host_key = old_host_key(board)
    renew.begin(board.places)
    as_another_machine(board)
    first = boot(board)
    assert first.notices == []
    require_new(board, host_key)
    assert "made new" in (board.places.fat / "first-boot.log").read_text()
    boot(board)
    require_new(board, host_key)


def test_a_board_that_is_not_told_to_stays_what_it_is(tmp_path):
    board = member(tmp_path)
    host_key = old_host_key(board)
    boot(board)
    found = StateDir.open(board.places.state).member()
    assert found is not None
    assert found.node_id == ALPHA.node_id
    assert (board.places.own / "ssh/ssh_host_ed25519_key").read_bytes() == host_key


def test_the_power_may_fail_at_any_moment_of_it(tmp_path, monkeypatch):
    """The clock of the cuts is the flushes to the disk, of files and of directories."""
    for number in count():
        board = member(tmp_path / str(number))
        host_key = old_host_key(board)
        renew.begin(board.places)
        left = [number]

        def flush(descriptor: int, left: list[int] = left) -> None:
            if not left[0]:
                raise PowerCut
            left[0] -= 1

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", flush)
            as_another_machine(board)
            try:
                boot(board)
                done = True
            except PowerCut:
                done = False
        as_another_machine(board)
        boot(board)
        require_new(board, host_key)
        if done:
            assert number > 8
            return


def test_a_card_that_cannot_be_read_that_day_does_not_keep_the_board_what_it_was(tmp_path, monkeypatch):
    def unreadable(first: FirstBoot) -> None:
        raise OSError("it cannot be read today")

    board = member(tmp_path)
    host_key = old_host_key(board)
    renew.begin(board.places)
    as_another_machine(board)
    with monkeypatch.context() as patched:
        patched.setattr(FirstBoot, "_mount_fat", unreadable)
        boot(board)
    assert (board.places.fat / "board.txt").exists()
    as_another_machine(board)
    assert boot(board).notices == []
    require_new(board, host_key)
