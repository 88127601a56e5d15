"""Every command of the grammar with what people, scripts and attackers type: one line, an exit code, no traceback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.grammar import parsers

from conflux.api import client
from conflux.cli import entry, parser
from conflux.cli.grammar import Parser

# They do not end by themselves, or take seconds without asking anything: here they get what is wrong by its look.  The
# rest of them, and every command as a process, is in tests/lab/test_lab_every_command.py.
LONG = {("up",), ("bench",), ("page",), ("doctor",), ("report",)}
EVERY = [(words, below) for words, below in parsers(parser.parser()) if below.get_default("run") is not None]
COMMANDS = [(words, below) for words, below in EVERY if words not in LONG]
NAMES = [" ".join(words) for words, _ in COMMANDS]
NAME = "kitchen"
FITTING = {"flow": "tcp/22"}  # in the place of NAME, where that is no value
HOSTILE = [
    "",
    "-",
    "--",
    "-9",
    "a\nb",
    "\x1b[2Ja",
    "\udcff\udcfe",
    "../../etc/passwd",
    "x" * 5000,
    "\u2603",
    "%s{0}",
    "/dev/null",
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files that a command makes are made where the test ends; nothing is read from a person."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(parser.TRACEBACK_VARIABLE, raising=False)
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield


def arguments(below: Parser, word: str, *, with_options: bool) -> list[str]:
    """Return the arguments of a command with a word in the place of each value."""
    line, positional = [], []
    for action in below._actions:
        count = action.nargs if isinstance(action.nargs, int) else 1
        if not action.option_strings:
            positional += [FITTING.get(action.dest, word) if word == NAME else word] * count
        elif with_options and action.nargs != 0 and action.dest not in ("config", "state_dir", "help"):
            line += [action.option_strings[-1], *[word] * count]
    return [*line, *positional]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run a command; return its exit code and its errors, which are lines of this program and no traceback."""
    entry.print_anything()
    try:
        code = parser.main(words)
    except SystemExit as ended:  # help
        code = int(ended.code or 0)
    out, err = capsys.readouterr()
    assert code in (0, 1, 2), (words, code)
    for trouble in ("Traceback", "a bug:", "Exception"):
        assert trouble not in out + err, (words, err)
    lines = err.splitlines()
    assert all(line.isprintable() for line in lines), (words, err)
    assert all(line.startswith("conflux") for line in lines), (words, err)
    if code:
        errors = [line for line in lines if ": warning: " not in line]
        assert len(errors) <= 1, (words, err)
        assert errors or out, (words, "nothing was said")
    return code, err


@pytest.mark.parametrize(("words", "below"), COMMANDS, ids=NAMES)
def test_without_arguments_and_with_hostile_ones(capsys, tmp_path, words, below) -> None:
    at = ("--state-dir", str(tmp_path / "state"))
    said(capsys, *words, *at)
    for word in HOSTILE:
        for with_options in (False, True):
            said(capsys, *words, *arguments(below, word, with_options=with_options), *at)


@pytest.mark.parametrize(("words", "below"), EVERY, ids=[" ".join(words) for words, _ in EVERY])
def test_one_word_too_many_and_an_option_that_is_none(capsys, tmp_path, words, below) -> None:
    line = arguments(below, NAME, with_options=False)
    for more in (["--no-such-option"], ["--config"], ["--\x1b[2J"], ["a", "b", "c"] if words != ("help",) else ["a b"]):
        code, err = said(capsys, *words, *line, *more)
        assert (code, bool(err)) == (2, True), (words, more)


@pytest.mark.parametrize(("words", "below"), [each for each in EVERY if each[0] in {("up",), ("page",)}])
def test_what_runs_on_begins_with_no_broken_configuration(capsys, tmp_path, words, below) -> None:
    (tmp_path / "broken.toml").write_text("[node\nname =")
    code, err = said(capsys, *words, "--config", str(tmp_path / "broken.toml"), "--state-dir", str(tmp_path / "s"))
    assert (code, "broken.toml:1" in err) == (1, True)


@pytest.mark.parametrize(("words", "below"), COMMANDS, ids=NAMES)
def test_with_a_configuration_and_a_directory_that_are_none(capsys, tmp_path, words, below) -> None:
    (tmp_path / "broken.toml").write_text("[node\nname = \udc00".encode("utf-8", "replace").decode())
    (tmp_path / "file").write_text("no directory")
    line = arguments(below, NAME, with_options=False)
    said(capsys, *words, *line, "--config", str(tmp_path / "broken.toml"), "--state-dir", str(tmp_path / "s"))
    said(capsys, *words, *line, "--config", str(tmp_path), "--state-dir", str(tmp_path / "s"))
    said(capsys, *words, *line, "--state-dir", str(tmp_path / "file"))
    said(capsys, *words, *line, "--state-dir", str(tmp_path / "file" / "below"))


@pytest.fixture
def hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory whose daemon takes connections and says nothing, as after SIGSTOP."""
    monkeypatch.setattr(client, "LOOK_TIMEOUT_S", 0.1)
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.1)
    monkeypatch.setattr(client, "PATIENCE_S", 0.05)
    (tmp_path / "state").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "state" / "conflux.sock"))
        listener.listen()
        yield tmp_path / "state"


ASK = {
    "down",
    "hosts",
    "ip",
    "links",
    "paths",
    "ping",
    "reload",
    "route move",
    "route",
    "status",
    "streams",
    "top",
    "watch",
    "why",
}


@pytest.mark.parametrize(("words", "below"), COMMANDS, ids=NAMES)
def test_a_daemon_that_hangs_holds_no_command_up_and_is_said_with_what_to_do(capsys, hung, words, below) -> None:
    line = arguments(below, NAME, with_options=False)
    code, err = said(capsys, *words, *line, "--state-dir", str(hung))
    if " ".join(words) in ASK:
        assert code == 1
        assert "has not answered for" in err
        assert "kill" in err


def test_the_commands_that_ask_are_commands() -> None:
    assert set(NAMES) >= ASK
