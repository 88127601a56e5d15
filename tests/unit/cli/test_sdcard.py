"""`conflux sdcard`: what goes on the card, where secrets come from, and what is refused before anything is written."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from kit.cards import STAMP, Disk, image

from conflux.board import flash, table
from conflux.board.fat import Fat
from conflux.cli import parser
from conflux.cli.sdcard import Progress, progress_line
from conflux.ids import NodeId
from conflux.realm.invite import Token

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGq3NCF9v6ydEsmGd4kTsUQKXxbn2b2uY9Yf4O3XqY1Z anna@desk"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "conflux-test.img"
    path.write_bytes(image())
    return path


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.delenv(parser.TRACEBACK_VARIABLE, raising=False)

    def typed(*words: object) -> tuple[int, str, str]:
        try:
            code = parser.main([str(word) for word in ("sdcard", *words)])
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return typed


@pytest.fixture
def token() -> str:
    return Token(bytes(32), NodeId(bytes(16)), b"i" * 8, b"s" * 16, 1_800_000_000, 1, ()).format()


def card(place: Path) -> dict:
    disk = Disk(place.read_bytes())
    where = table.bootconfig(table.parse_untrusted(disk.read, "x"), "x")
    data = Fat(lambda offset, count: disk.read(where.offset + offset, count), None, "x").read(flash.CARD_FILE)
    assert data is not None
    return tomllib.loads(data.decode())


def test_what_was_given_is_on_the_card(run, place, tmp_path, token):
    (tmp_path / "token").write_text(f"{token}\n")
    (tmp_path / "key.pub").write_text(f"{KEY}\n")
    (tmp_path / "password").write_text("correct horse\nmore\n")
    words = ("--token-file", tmp_path / "token", "--name", "attic", "--ssh-key", tmp_path / "key.pub")
    wifi = ("--wifi-ssid", "Übermut", "--wifi-password-file", tmp_path / "password", "--wifi-country", "de")
    code, out, err = run("prepare", place, *words, *wifi, "--time-zone", "Europe/Berlin")
    assert (code, err) == (0, "")
    assert out.startswith(f"conflux.toml is on bootconfig of {place}.\n")
    assert card(place) == {
        "board": {"name": "attic", "time_zone": "Europe/Berlin", "ssh_key": [KEY], "token": token},
        "wifi": {"ssid": "Übermut", "password": "correct horse", "country": "DE"},
    }
    assert token not in out


def test_a_token_comes_by_standard_input(run, place, token, monkeypatch):
    monkeypatch.setattr(
        "sys.stdin", SimpleNamespace(buffer=io.BytesIO(f"{token}\nmore\n".encode()), isatty=lambda: False)
    )
    assert run("prepare", place, "--token-file", "-")[0] == 0
    assert card(place) == {"board": {"token": token}}


def test_options_win_over_a_file(run, place, tmp_path):
    (tmp_path / "mine.toml").write_text('[board]\nname = "kitchen"\ntime_zone = "Europe/Berlin"\n')
    assert run("prepare", place, "--config", tmp_path / "mine.toml", "--name", "attic")[0] == 0
    assert card(place) == {"board": {"name": "attic", "time_zone": "Europe/Berlin"}}


def test_the_new_file_takes_the_place_of_the_old_one(run, place):
    assert run("prepare", place, "--name", "kitchen")[0] == 0
    assert run("prepare", place, "--name", "attic", "--json")[0] == 0
    assert card(place) == {"board": {"name": "attic"}}
    assert b"kitchen" not in place.read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("prepare", "IMAGE"), 2, "nothing to put on it: give --token-file"),
        (("prepare", "IMAGE", "--wifi-country", "DE"), 2, "belongs to --wifi-ssid"),
        (("prepare", "IMAGE", "--wifi-country", "Germany", "--wifi-ssid", "x"), 2, "two letters such as DE"),
        (("prepare", "IMAGE", "--wifi-ssid", "x"), 1, "no terminal to ask for the Wi-Fi's password"),
        (("prepare", "IMAGE", "--name", "Shed Big"), 2, "is no node name"),
        (("prepare", "IMAGE", "--token-file", "wrong"), 1, "this is no invitation"),
        (("prepare", "IMAGE", "--ssh-key", "private"), 1, "is a private key, which stays where it is"),
        (("prepare", "IMAGE", "--config", "wrong", "--name", "a"), 1, "wrong: "),
        (("prepare", "IMAGE", "--config", "mistaken"), 1, "mistaken:2: unknown key 'nam' in [board]; did you mean"),
        (("prepare", "IMAGE", "--config", "mistaken"), 1, "(and 1 more)"),
        (("prepare", "IMAGE", "--config", "mistaken", "--name", "a"), 1, "conflux.toml:"),
        (("prepare", "IMAGE", "--time-zone", "Mars/Olympus Mons"), 2, "must be a time zone"),
        (("prepare", "IMAGE", "--wifi-ssid", "x", "--wifi-password-file", "short"), 1, "of 8 to 63 characters"),
        (("prepare", "IMAGE", "--ssh-key", "short"), 1, "must begin with the kind of the key"),
        (("prepare", "nowhere", "--name", "a"), 1, "No such file"),
        (("prepare", "wrong", "--name", "a"), 1, "no image of Conflux"),
        (("prepare", "packed", "--name", "a"), 1, "`conflux sdcard write` takes it as it is"),
        (("prepare", "/dev/null", "--name", "a"), 1, "/dev/null is no disk"),
        (("write", "IMAGE", "/dev/null"), 1, "/dev/null is no disk"),
        (("write", "IMAGE", "/dev/nowhere"), 1, "/dev/nowhere: there is no such disk"),
        (("write", "IMAGE", "IMAGE"), 1, "is no disk"),
        (("write", "nowhere", "/dev/null"), 1, "cannot read nowhere"),
        (("write", "IMAGE"), 2, "missing: DEVICE"),
        (
            ("write", "IMAGE", "/dev/null", "--token-file", "-", "--wifi-ssid", "x", "--wifi-password-file", "-"),
            2,
            "one",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_changes_nothing(run, place, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    (tmp_path / "wrong").write_text("x" * 2000)
    (tmp_path / "short").write_text("four")
    (tmp_path / "mistaken").write_text('[board]\nnam = "x"\n[conflux.tun]\nmtu = 7\n')
    (tmp_path / "private").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    (tmp_path / "packed").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(2000))
    before = place.read_bytes()
    got, out, err = run(*[place if word == "IMAGE" else word for word in words])
    assert (got, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1
    assert place.read_bytes() == before


def test_a_full_partition_leaves_what_was_there(run, tmp_path):
    place = tmp_path / "full.img"
    data = Disk(image(clusters=4100))
    where = table.bootconfig(table.parse_untrusted(data.read, "x"), "x")
    fat = Fat(
        lambda offset, count: data.read(where.offset + offset, count),
        lambda offset, part: data.write(where.offset + offset, part),
        "x",
    )
    for number in range(5):
        room = sum(fat._next(each) == 0 for each in range(2, fat._clusters_end)) * 512
        fat.save(f"full{number}", bytes(min(room, 1 << 20)), STAMP)
    place.write_bytes(data.data)
    code, _, err = run("prepare", place, "--name", "attic")
    assert code == 1
    assert "no room for conflux.toml: remove files from that partition" in err
    assert place.read_bytes() == data.data


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("writing", 0, 1_400_000_000, 0.0), "writing      0 %      0 of 1400 MB"),
        (("writing", 590_000_000, 1_400_000_000, 28.0), "writing     42 %    590 of 1400 MB    21 MB/s    38 s left"),
        (("verifying", 1_400_000_000, 1_400_000_000, 20.0), "verifying  100 %   1400 of 1400 MB    70 MB/s  in 20 s"),
    ],
)
def test_progress_is_a_line(given, line):
    assert progress_line(*given) == line


def test_progress_that_nobody_watches_is_ten_lines(capsys):
    progress = Progress(clock=lambda: 1.0)
    for done in range(1001):
        progress("writing", done, 1000)
    progress.end()
    assert len(capsys.readouterr().err.splitlines()) == 10


def test_progress_on_a_terminal_is_one_line(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    seconds = iter(range(2000))
    progress = Progress(clock=lambda: next(seconds) / 100)
    for done in range(1001):
        progress("writing", done, 1000)
    progress.end()
    progress.end()
    said = terminal.getvalue()
    assert said.count("\n") == 1
    assert said.count("\r") < 60
    assert "100 %" in said


def test_secrets_are_no_arguments():
    """No option takes a token or a password by itself: other users of a host see arguments."""
    from kit.grammar import parsers

    for words, below in parsers(parser.parser("sdcard")):
        options = {name for action in below._actions for name in action.option_strings}
        assert not options & {"--token", "--wifi-password", "--password"}, words
