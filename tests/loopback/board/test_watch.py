"""The watch of a flashed board, beside sockets that answer as the daemon and wpa_supplicant do."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.flashed import Flashed, Programs

from conflux.board import report, settle
from conflux.board.files import Fat
from conflux.board.light import BLINKS, Light
from conflux.board.watch import Lamp, Watch, ask_wifi
from conflux.board.wifi import Network, text_of

TOKEN = "cfx1" + "A1b2" * 60
STATUS = {
    "device": {"up": True, "name": "conflux0"},
    "control": [{"up": True, "name": "lan", "detail": ""}],
    "node": {"name": "attic", "addresses": ["fd00::1"], "id": "node-id"},
    "realm": {"name": "home", "id": "realm-id"},
    "relays": [],
}


class Daemon:
    """Answers on a Unix socket, a line a question."""

    def __init__(self, path: Path) -> None:
        self.answer: dict[str, object] = {"error": "waiting for a realm"}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(json.dumps(self.answer).encode() + b"\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def board(tmp_path: Path) -> Flashed:
    board = Flashed(tmp_path)
    for folder in (board.places.notices, board.places.state, board.places.own, board.places.leds / "ACT"):
        folder.mkdir(parents=True)
    for name, text in {"trigger": "none [mmc0] timer", "max_brightness": "255", "brightness": "0"}.items():
        (board.places.leds / "ACT" / name).write_text(text)
    board.places.console.touch()
    return board


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "sock")
    yield daemon
    daemon.close()


def watch(board: Flashed) -> Watch:
    programs = Programs()
    return Watch(board.places, Fat(board.places.fat, programs), board.places.root / "sock", programs)


def lit(board: Flashed, name: str) -> str:
    return (board.places.leds / "ACT" / name).read_text()


def join(board: Flashed, daemon: Daemon) -> None:
    (board.places.state / "realm.chain").write_bytes(b"chain")
    daemon.answer = {"done": STATUS}


def test_a_board_that_joins_says_so_and_its_token_is_gone(board, daemon):
    board.card(f'[board]\ntoken = "{TOKEN}"\n')
    board.places.configuration.parent.mkdir(parents=True)
    board.places.configuration.write_text(f'[node]\nname = "attic"\n[realm]\ntoken = "{TOKEN}"\n')
    watching = watch(board)
    assert watching.turn(1.0).light is Light.JOINING
    assert lit(board, "trigger") == "timer"
    assert TOKEN in (board.places.fat / "conflux.toml").read_text()
    join(board, daemon)
    assert watching.turn(2.0).is_ready
    assert "conflux-board: ready: attic fd00::1" in board.places.console.read_text()
    assert lit(board, "brightness") == "255"
    assert TOKEN.encode() not in b"".join(board.kept().values())
    assert "node = node-id" in (board.places.fat / "board.txt").read_text()
    assert 'name = "attic"' in board.places.configuration.read_text()


def test_a_token_of_the_card_that_was_not_used_is_left(board, daemon):
    other = TOKEN.replace("A1b2", "C3d4")
    board.card(f'# {TOKEN}\n[board]\ntoken = "{other}"\n')
    (board.places.own / "settings.json").write_bytes(settle.encode(settle.Kept(token=settle.digest(TOKEN))))
    board.places.configuration.parent.mkdir(parents=True)
    board.places.configuration.write_text(f'[realm]\ntoken = "{TOKEN}"\n')
    join(board, daemon)
    watch(board).turn(1.0)
    kept = b"".join(board.kept().values())
    assert other.encode() in kept
    assert TOKEN.encode() not in kept
    assert "node = node-id" in (board.places.fat / "board.txt").read_text()


def test_a_token_that_cannot_be_erased_is_a_fault_and_known_as_used(board, daemon):
    board.card(f'[board]\ntoken = "{TOKEN.replace("cfx1", "cf" + chr(92) + "u00781")}"\n')
    (board.places.own / "settings.json").write_bytes(settle.encode(settle.Kept(token=settle.digest(TOKEN))))
    join(board, daemon)
    watching = watch(board)
    watching.turn(1.0)
    assert watching.turn(2.0).light is Light.FAULT
    assert report.UNERASED in (board.places.notices / "watch").read_text()
    assert f"used = {settle.digest(TOKEN)}\n" in (board.places.fat / "board.txt").read_text()


def test_faults_of_others_are_said_and_written_on_the_card(board, daemon):
    join(board, daemon)
    (board.places.notices / "card").write_text("conflux.toml:2: unknown key\n")
    shown = watch(board).turn(1.0)
    assert shown.light is Light.FAULT
    assert "conflux-board: fault: conflux.toml:2: unknown key" in board.places.console.read_text()
    assert "  conflux.toml:2: unknown key" in (board.places.fat / "first-boot.log").read_text()
    assert (board.places.notices / "watch").read_text() == ""


def test_a_daemon_that_is_gone_is_told_after_a_minute(board):
    watching = watch(board)
    (board.places.state / "realm.chain").write_bytes(b"chain")
    assert watching.turn(1.0).own == ()
    assert "Conflux does not run" in watching.turn(1e9).own[0]
    assert "Conflux does not run" in (board.places.notices / "watch").read_text()


def test_a_refused_wifi_password_is_told(board, daemon, tmp_path):
    (board.places.own / "wifi.conf").write_text(text_of(Network("home", "long enough", "DE")))
    supplicant = tmp_path / "wlan0"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as answering:
        answering.bind(str(supplicant))

        def answer() -> None:
            words, asker = answering.recvfrom(4096)
            answering.sendto(b"wpa_state=SCANNING\n" if words == b"STATUS" else b"?", asker)

        thread = threading.Thread(target=answer)
        thread.start()
        assert ask_wifi("STATUS", board.places.run, supplicant) == "wpa_state=SCANNING\n"
        thread.join()
    assert ask_wifi("STATUS", board.places.run, supplicant) is None
    assert [path.name for path in board.places.run.iterdir()] == ["notices"]


def test_a_board_without_a_light_is_no_fault(tmp_path):
    programs = Programs()
    Lamp(tmp_path / "absent", programs).show(BLINKS[Light.FAULT])
    assert programs.ran == []
