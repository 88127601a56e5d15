"""First boot on the files of a board: what a card's settings come to, and that the power may fail at any moment."""

from __future__ import annotations

import json
import os
import stat
from itertools import count
from pathlib import Path

import pytest
from kit.flashed import MACHINE_ID, PUBLIC_KEY, Flashed, Programs

from conflux.board import files, report, settle
from conflux.board.card import read_untrusted
from conflux.board.firstboot import FirstBoot
from conflux.config import settings

TOKEN = "cfx1" + "A1b2" * 60
CARD = f"""\
[board]
name = "Attic"
time_zone = "Europe/Berlin"
ssh_key = "{PUBLIC_KEY}"
token = "{TOKEN}"

[wifi]
ssid = "home"
password = "correct horse"
country = "de"

[conflux.control.lan]
port = 7465
"""


class PowerCut(BaseException):
    """The power is gone: no handler of errors sees it."""


@pytest.fixture
def board(tmp_path):
    return Flashed(tmp_path)


def boot(board: Flashed, programs: Programs | None = None) -> FirstBoot:
    board.switch_off()
    first = FirstBoot(board.places, programs or Programs())
    first.run()
    return first


def join(board: Flashed) -> None:
    """Leave behind what a daemon does that has joined."""
    (board.places.state / "realm.chain").write_bytes(b"chain")


def log_of(board: Flashed) -> str:
    return (board.places.fat / "first-boot.log").read_text()


def test_a_card_with_everything_makes_everything(board):
    board.card(CARD)
    first = boot(board)
    own, run = board.places.own, board.places.run
    assert first.notices == [f"conflux.toml: board.token: {first.notices[0].partition('token: ')[2]}"]  # no true one
    assert (own / "machine-id").read_text() == f"{MACHINE_ID}\n"
    assert (own / "ssh/authorized_keys").read_text() == f"{PUBLIC_KEY}\n"
    assert stat.S_IMODE((own / "ssh/ssh_host_ed25519_key").stat().st_mode) == 0o600
    assert "psk=" in (own / "wifi.conf").read_text()
    assert (run / "hostname").read_text() == "attic\n"
    assert (run / "localtime").readlink() == board.places.zones / "Europe/Berlin"
    assert "7465" in (run / "nftables/card.nft").read_text()
    config = settings.load(board.places.configuration)
    assert config.node.name == "attic"
    assert config.realm.token == TOKEN
    assert config.control.lan.port == 7465
    assert config.page.listen == ("eth0", "wlan0")
    assert stat.S_IMODE(board.places.configuration.stat().st_mode) == 0o600


def test_the_configuration_is_of_root_alone_also_without_a_token(board):
    board.card('[conflux.link]\nice_servers = [{ url = "turn:a", username = "u", credential = "c" }]\n')
    assert boot(board).notices == []
    assert stat.S_IMODE(board.places.configuration.stat().st_mode) == 0o600
    board.places.configuration.chmod(0o644)  # as an earlier version wrote it
    boot(board)
    assert stat.S_IMODE(board.places.configuration.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ['a"}', "a*", "a\\"])
def test_a_device_that_cannot_be_named_to_the_firewall_is_said_and_left_out(board, name):
    board.card(f"[conflux.tun]\nname = '{name}'\n[conflux.page]\nport = 7000\n")
    assert any("tun.name" in notice for notice in boot(board).notices)
    assert (board.places.run / "nftables/card.nft").read_text() == "add element inet board tcp_open { 7000 }\n"


def test_a_card_without_a_file_comes_up_with_a_name_of_its_own_and_ssh_off(board):
    first = boot(board)
    assert first.notices == []
    assert not (board.places.own / "ssh/authorized_keys").exists()
    assert (board.places.run / "hostname").read_text().startswith("conflux-")
    assert settings.load(board.places.configuration).realm.token is None
    assert "ssh: off" in log_of(board)


def test_no_secret_is_in_the_report_nor_in_the_notices(board):
    board.card(CARD.replace("country", "countri"))
    boot(board)
    said = log_of(board) + (board.places.notices / "card").read_text()
    assert "countri" in said
    assert "correct horse" not in said
    assert TOKEN not in said


def test_a_mistake_spoils_its_own_key_alone_and_the_last_good_value_goes_on(board):
    board.card(CARD)
    boot(board)
    board.card(CARD.replace("Europe/Berlin", "Europe/Berln").replace("correct horse", "short"))
    first = boot(board)
    assert any("conflux.toml:3" in notice and "Europe/Berln" in notice for notice in first.notices)
    assert (board.places.run / "localtime").readlink().name == "Berlin"
    assert 'psk="correct horse"' in (board.places.own / "wifi.conf").read_text()
    assert "Europe/Berln" in log_of(board)


def test_a_key_that_is_taken_off_the_card_ends_ssh_and_wifi(board):
    board.card(CARD)
    boot(board)
    board.card('[board]\nname = "attic"\n')
    boot(board)
    assert not (board.places.own / "ssh/authorized_keys").exists()
    assert not (board.places.own / "wifi.conf").exists()


def test_settings_outlast_the_file_on_the_card(board):
    board.card(CARD)
    boot(board)
    (board.places.fat / "conflux.toml").unlink()
    boot(board)
    assert (board.places.run / "hostname").read_text() == "attic\n"
    assert (board.places.own / "wifi.conf").exists()


def test_keys_and_machine_id_stay(board):
    boot(board)
    before = board.kept()
    (board.places.root / "etc/machine-id").write_text("f" * 32)
    boot(board)
    assert board.kept() == before


def test_what_is_edited_on_the_board_stays_until_the_card_changes(board):
    board.card(CARD)
    boot(board)
    join(board)
    board.places.configuration.write_text('[node]\nname = "mine"\n')
    boot(board)
    assert settings.load(board.places.configuration).node.name == "mine"
    board.card(CARD.replace("7465", "7466"))
    boot(board)
    assert settings.load(board.places.configuration).control.lan.port == 7466


def test_a_token_is_erased_once_the_board_is_a_member_and_not_before(board):
    board.card(f"# {TOKEN}\n{CARD}")
    boot(board)
    assert TOKEN in (board.places.fat / "conflux.toml").read_text()
    join(board)
    size = (board.places.fat / "conflux.toml").stat().st_size
    boot(board)
    everything = b"".join(board.kept().values())
    assert TOKEN.encode() not in everything
    assert (board.places.fat / "conflux.toml").stat().st_size == size
    assert boot(board).notices == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_token_is_erased_whatever_the_editor_saved_it_as(board, encoding):
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    data = mark + f"# {TOKEN}\n{CARD}".encode(encoding)
    (board.places.fat / "conflux.toml").write_bytes(data)
    boot(board)
    join(board)
    assert boot(board).notices == []
    left = (board.places.fat / "conflux.toml").read_bytes()
    assert TOKEN not in left.decode("utf-16" if mark or encoding == "utf-16" else encoding)
    assert len(left) == len(data)
    assert boot(board).notices == []


def test_a_token_that_cannot_be_erased_is_said_and_never_taken_for_a_new_one(board):
    board.card(CARD.replace("cfx1", "cf\\u00781"))
    boot(board)
    join(board)
    first = boot(board)
    assert first.notices == [report.UNERASED]
    assert "token: used, and erased" not in log_of(board)
    card = read_untrusted((board.places.fat / "conflux.toml").read_bytes())
    assert first._is_invited(card)
    (board.places.fat / "board.txt").write_text(f"used = {settle.digest(TOKEN)}\n")
    assert not first._is_invited(card)


def test_an_invitation_that_a_member_does_not_use_is_left_and_said(board):
    board.card(CARD)
    boot(board)
    join(board)
    boot(board)
    board.card(CARD.replace("A1b2", "C3d4"))
    assert any("in a realm already" in notice for notice in boot(board).notices)
    assert "C3d4" in (board.places.fat / "conflux.toml").read_text()


def test_the_console_is_root_for_as_long_as_the_card_says_so(board):
    board.card('[board]\nconsole = "root"\n')
    boot(board)
    assert (board.places.run / "console-root").exists()
    assert "ROOT SHELL" in log_of(board)
    board.card("[board]\n")
    boot(board)
    assert not (board.places.run / "console-root").exists()


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"\x00" * 70_000, b"[[[[", b"=\n" * 5000, b"[board]\nname = 3\n"])
def test_whatever_is_on_the_card_the_board_comes_up_and_says_what_is_wrong(board, data):
    (board.places.fat / "conflux.toml").write_bytes(data)
    first = boot(board)
    assert first.notices
    assert settings.load(board.places.configuration)
    assert (board.places.run / "hostname").read_text().startswith("conflux-")


def test_a_program_that_fails_stops_no_other_step(board):
    board.card(CARD)
    first = boot(board, Programs(ssh_keygen=1, fsck_fat=1))
    assert any(notice.startswith("ssh:") for notice in first.notices)
    assert (board.places.own / "wifi.conf").exists()


def test_a_card_that_cannot_be_written_comes_up(board, monkeypatch):
    board.card(CARD)

    def refuse(self: files.Fat, how: str) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(files.Fat, "_remount", refuse)
    boot(board)
    assert (board.places.own / "settings.json").exists()


def test_damaged_settings_are_as_if_there_were_none(board):
    board.card(CARD)
    boot(board)
    (board.places.own / "settings.json").write_text('{"version": 1, "network": {"x": 1}, "ssh_keys": 5}')
    assert boot(board).notices == boot(board).notices
    assert json.loads((board.places.own / "settings.json").read_text())["name"] == "attic"


class Mains:
    """Cuts the power at one of the moments at which something reaches the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None  # moments until the cut; None: there is none
        fsync, replace, pwrite = os.fsync, Path.replace, os.pwrite

        def flushed(fd: int) -> None:
            self._pass()
            fsync(fd)

        def replaced(path: Path, target: Path) -> Path:
            self._pass()
            return replace(path, target)

        def written(fd: int, data: bytes, offset: int) -> int:
            if self.left == 1:
                pwrite(fd, data[: len(data) // 2], offset)  # one sector is, the other is not
            self._pass()
            return pwrite(fd, data, offset)

        monkeypatch.setattr(os, "fsync", flushed)
        monkeypatch.setattr(os, "pwrite", written)
        monkeypatch.setattr(Path, "replace", replaced)

    def _pass(self) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left <= 0:
            raise PowerCut


def test_the_power_may_fail_at_any_moment_of_first_boot(tmp_path, monkeypatch):
    mains = Mains(monkeypatch)
    whole = Flashed(tmp_path / "whole")
    whole.card(CARD)
    boot(whole)
    wanted = {name: data for name, data in whole.kept().items() if "ssh_host" not in name}
    for moment in count(1):
        board = Flashed(tmp_path / str(moment))
        board.card(CARD)
        mains.left = moment
        try:
            boot(board)
        except PowerCut:
            mains.left = None
            boot(board)
        else:
            break  # the last moment was after its end
        kept = {name: data for name, data in board.kept().items() if "ssh_host" not in name}
        assert kept == wanted, moment
        assert (board.places.own / "ssh/ssh_host_ed25519_key").read_bytes().startswith(b"-----BEGIN")
    assert moment > 20


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_power_may_fail_at_any_moment_of_the_erasure(tmp_path, monkeypatch, encoding):
    mains = Mains(monkeypatch)
    for moment in count(1):
        board = Flashed(tmp_path / str(moment))
        (board.places.fat / "conflux.toml").write_bytes(CARD.encode(encoding))
        boot(board)
        join(board)
        mains.left = moment
        try:
            boot(board)
        except PowerCut:
            mains.left = None
            text = (board.places.fat / "conflux.toml").read_text(encoding)
            assert settings.most_of(text)[2] == [], "what is left is a TOML text"
            boot(board)
        else:
            break
        everything = b"".join(board.kept().values())
        assert TOKEN.encode() not in everything, moment
        for code in ("utf-8", "utf-16-le"):
            assert TOKEN[-80:].encode(code) not in everything, moment
        assert settings.load(board.places.configuration).realm.token is None
        assert settle.token_of(None) is None
    assert moment > 3
