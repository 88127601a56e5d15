"""What may be typed, and how errors are told: one line, code 1 for failed, 2 for wrong usage, never a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from conflux import cli

PACKAGE = Path(__file__).resolve().parents[2]

COMMANDS = [
    ("up",),
    ("down",),
    ("status",),
    ("ping",),
    ("streams",),
    ("routes",),
    ("links",),
    ("route",),
    ("route", "move"),
    ("bench",),
    ("watch",),
    ("join",),
    ("realm",),
    ("realm", "create"),
    ("realm", "invite"),
    ("realm", "sign"),
]


def outcome(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        code = cli.main(arguments)
    except SystemExit as left:
        code = int(left.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("command", [(), *COMMANDS])
def test_help_fits_eighty_columns(capsys, command):
    code, out, err = outcome(capsys, *command, "--help")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != ("realm",)])
def test_every_command_takes_config_and_state_dir_and_shows_an_example(capsys, command):
    _, out, _ = outcome(capsys, *command, "--help")
    assert "--config" in out
    assert "--state-dir" in out
    assert f"example:\n  conflux {' '.join(command)}" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["frobnicate"], "invalid choice"),
        (["status", "--jsn"], "unrecognized arguments: --jsn"),
        (["ping"], "NAME"),
        (["ping", "x", "-c", "0"], "a whole number from 1"),
        (["ping", "x", "-c", "many"], "not 'many'"),
        (["ping", "x", "-i", "nan"], "seconds from 0.01"),
        (["route"], "NAME"),
        (["route", "a", "b"], "unrecognized arguments: b"),
        (["route", "move"], "NAME"),
        (["route", "move", "a", "--via", "b,,c"], "relays with commas"),
        (["route", "move", "a", "--via", "b", "--direct"], "not allowed with"),
        (["join"], "one of the arguments"),
        (["join", "cfx1x", "--request", "f"], "not allowed with"),
        (["realm"], "COMMAND"),
        (["realm", "create"], "NAME"),
        (["realm", "create", "x", "--ipv4", "10.0.0.1/8"], "IPv4 network"),
        (["realm", "invite", "--ttl", "soon"], "30m, 12h or 7d"),
        (["realm", "invite", "--ttl", "0h"], "30m, 12h or 7d"),
        (["realm", "invite", "--count", "1001"], "from 1 to 1000"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(capsys, arguments, words):
    code, out, err = outcome(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800)])
def test_times_are_read(text, seconds):
    assert cli.parser().parse_args(["realm", "invite", "--ttl", text]).ttl == seconds


@pytest.mark.parametrize(
    ("arguments", "run", "name", "via"),
    [
        (["route", "a"], "route:explain", "a", None),
        (["route", "--json", "a"], "route:explain", "a", None),
        (["route", "move", "a"], "route:move", "a", None),
        (["route", "move", "a", "--via", "b,c", "--json"], "route:move", "a", "b,c"),
        (["route", "move", "move"], "route:move", "move", None),
    ],
)
def test_route_takes_a_name_or_a_command(arguments, run, name, via):
    options = cli.parser().parse_args(arguments)
    assert (options.run, options.name, getattr(options, "via", None)) == (run, name, via)


def test_without_a_daemon_every_question_fails_in_one_line(capsys, tmp_path):
    for command in ("status", "streams", "routes", "links", "route x", "route move x", "watch", "down"):
        code, out, err = outcome(capsys, *command.split(), "--state-dir", str(tmp_path))
        assert (code, out) == (1, "")
        assert err == f"conflux: no daemon listens on {tmp_path}/conflux.sock: start it with `conflux up`\n"


def test_a_wrong_configuration_is_told_with_its_line(capsys, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[tun]\nmtu = 7\n")
    code, _, err = outcome(capsys, "status", "--config", str(path))
    assert code == 1
    assert err == f"conflux: {path}:2: tun.mtu must be a whole number from 1280 to 65000, not 7\n"


def test_a_bug_is_one_line_too(capsys, monkeypatch):
    monkeypatch.delenv(cli.TRACEBACK_VARIABLE, raising=False)

    def broken(name):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(cli, "import_module", broken)
    code, _, err = outcome(capsys, "status")
    assert code == 1
    assert err == "conflux: a bug: ZeroDivisionError: division by zero (CONFLUX_TRACEBACK=1 shows where)\n"


def test_interruption_is_silent(capsys, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "import_module", interrupted)
    assert outcome(capsys, "watch") == (130, "", "")


def test_a_reader_that_leaves_is_no_error_to_talk_about():
    script = "import sys; from conflux import cli; sys.exit(cli.main(['realm', 'create', '--help']))"
    piped = f"'{sys.executable}' -c \"{script}\" | true"
    done = subprocess.run(
        ["sh", "-c", piped], capture_output=True, text=True, env={"PYTHONPATH": str(PACKAGE)}, timeout=30, check=False
    )
    assert "Traceback" not in done.stderr


def test_the_question_commands_do_not_load_webrtc():
    script = (
        "import sys; import conflux.commands.observe, conflux.commands.route, conflux.cli;"
        "print(sorted({'aiortc', 'asyncio', 'zeroconf', 'cryptography', 'segno', 'uvloop'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PACKAGE)},
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == "[]"
