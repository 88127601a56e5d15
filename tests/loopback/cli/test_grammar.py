"""The grammar of the command line, and its errors: one line, code 1 for failed, 2 for usage, never a traceback."""

import json
import re
import subprocess
import sys

import pytest
from kit.grammar import commands, parsers
from kit.tree import TREE

from conflux.cli import parser
from conflux.realm.name import COMMANDS as COMMANDS_IN_PLACE_OF_NAMES

COMMANDS = list(commands(parser.parser()))
GROUPS = [words for words, below in parsers(parser.parser()) if below.get_default("run") is None]
ABOUT = [("help",), ("version",)]
CARDS = [("sdcard", "write"), ("sdcard", "prepare")]  # --config is the card's, and there is no state


def outcome(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        code = parser.main(arguments)
    except SystemExit as left:
        code = int(left.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("command", [(), *COMMANDS])
def test_help_fits_eighty_columns(capsys, command):
    code, out, err = outcome(capsys, *command, "--help")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in GROUPS + ABOUT])
def test_every_command_takes_config_and_state_dir_and_shows_an_example(capsys, command):
    _, out, _ = outcome(capsys, *command, "--help")
    assert "--config" in out
    assert ("--state-dir" in out) != (command in CARDS)
    assert re.search(rf"example:\n  (sudo )?conflux {' '.join(command)}", out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "conflux: no command 'frobnicate' (see conflux --help)"),
        (["staus"], "no command 'staus': did you mean 'status'?"),
        (["routes"], "command 'routes' is called 'paths' now"),
        (["help", "staus"], "did you mean 'status'?"),
        (["status", "--jsn"], "conflux status: no option '--jsn': did you mean '--json'?"),
        (["status", "--jsn=1"], "no option '--jsn': did you mean '--json'?"),
        (["ping"], "missing: NAME (see conflux ping --help)"),
        (["ping", "-5x", "attic"], "conflux ping: no option '-5x' (see conflux ping --help)"),
        (["ping", "--4", "attic"], "no option '--4'"),
        (["ping", "-z"], "no option '-z'"),
        (["ping", "x", "-c", "1000001"], "a whole number from 0"),
        (["ping", "x", "-W", "61"], "seconds from 0.01 to 60"),
        (["ping", "x", "-4", "-6"], "not allowed with"),
        (["why"], "missing: NAME (see conflux why --help)"),
        (["ping", "x", "-c", "many"], "not 'many'"),
        (["ping", "x", "-i", "nan"], "seconds from 0.01"),
        (["route"], "NAME"),
        (["route", "a", "b"], "'b' is one argument too many"),
        (["route", "mve", "b"], "no command 'mve': did you mean 'move'?"),
        (["route", "move"], "NAME"),
        (["route", "move", "a", "--via", "b,,c"], "relays with commas"),
        (["route", "move", "a", "--via", "b", "--direct"], "not allowed with"),
        (["join", "cfx1x", "--request", "f"], "not allowed with"),
        (["control", "init"], "DIR"),
        (["control", "init", "d", "--servers", "a,,b"], "hosts with commas"),
        (["control", "init", "d", "--servers", "a", "--region", "eu=a"], "not allowed with"),
        (["control", "init", "d", "--region", "eu"], "NAME=HOST[,HOST...]"),
        (["control", "init", "d", "--port", "80"], "from 1024 to 65535"),
        (["control", "push"], "DIR"),
        (["realm", "invte"], "conflux realm: no command 'invte': did you mean 'invite'?"),
        (["realm", "invite", "--capability", "bridg"], "no choice 'bridg': did you mean 'bridge'?"),
        (["realm", "create"], "NAME"),
        (["realm", "create", "x", "--ipv4", "10.0.0.1/8"], "IPv4 network"),
        (["realm", "invite", "--ttl", "soon"], "30m, 12h or 7d"),
        (["realm", "invite", "--ttl", "0h"], "30m, 12h or 7d"),
        (["realm", "invite", "--count", "1001"], "from 1 to 1000"),
        (["realm", "invite", "--tag", "a b"], "'a b' is no tag"),
        (["realm", "invite", "--hint", "a b"], "must be HOST, HOST:PORT"),
        (["realm", "invite", "--no-qr"], "option '--no-qr' is called '--quiet' now"),
        (["realm", "create", "home", "--node", "Shed Big"], "'Shed Big' is no node name"),
        (["join", "cfx1x", "--peer", "10.7.1.11:x"], "must be HOST, HOST:PORT"),
        (["sdcard", "write", "a.img"], "missing: DEVICE"),
        (["sdcard", "prepare", "a.img", "--wifi-country", "Germany"], "two letters such as DE"),
        (["join", "cfx1x", "--root", "0" * 32], "--root belongs to --answer"),
        (["join", "--request", "f", "--peer", "attic"], "--peer belongs to a token"),
        (["join", "--answer", "f", "--name", "attic"], "--name belongs to --request"),
        (["realm", "grant", "attic", "--issuer", "--tag", "x"], "--issuer is a grant by itself"),
        (["realm", "grant", "attic", "--capability", "issuer"], "realm grant NODE --issuer"),
        (["control", "check", "--server", "a:b"], "must be HOST, HOST:PORT"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(capsys, arguments, words):
    code, out, err = outcome(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", [(), *GROUPS])
def test_a_command_that_has_commands_lists_them_when_it_stands_alone(capsys, command):
    code, out, err = outcome(capsys, *command)
    assert (code, err) == (2, "")
    for other in COMMANDS:
        if other[:-1] == command:
            assert f"    {other[-1]} " in out


@pytest.mark.parametrize("command", [(), *(command for command in COMMANDS if "move" not in command)])
def test_help_of_a_command_is_what_its_option_prints(capsys, command):
    assert outcome(capsys, "help", *command) == outcome(capsys, *command, "--help")


def test_the_version_is_printed_for_people_and_for_programs(capsys):
    text = outcome(capsys, "--version")[1]
    assert outcome(capsys, "version") == (0, text, "")
    assert text == f"conflux {json.loads(outcome(capsys, 'version', '--json')[1])['version']}\n"


def test_a_program_that_asks_for_json_gets_its_errors_as_json(capsys, tmp_path):
    for wrong in (("--jsn",), ("--state-dir", str(tmp_path))):
        code, out, err = outcome(capsys, "status", "--json", *wrong)
        assert code in (1, 2)
        assert err.endswith(json.loads(out)["error"] + "\n")


def test_the_list_of_groups_is_what_their_grammars_add():
    for names in parser.GRAMMARS.values():
        for name in names:
            group = {command[0] for command in commands(parser.parser(name))}
            assert group == set(names)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800)])
def test_times_are_read(text, seconds):
    assert parser.parser().parse_args(["realm", "invite", "--ttl", text]).ttl == seconds


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
    options = parser.parser().parse_args(arguments)
    assert (options.run, options.name, getattr(options, "via", None)) == (run, name, via)


def test_every_command_in_the_place_of_a_name_is_a_name_that_no_node_gets():
    files = {("update",)}  # its commands stand in the place of a file, which can be given as ./rollback
    apart = {word for words, below in parsers(parser.parser()) if words not in files for word in below.apart}
    assert apart == COMMANDS_IN_PLACE_OF_NAMES


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("192.0.2.7", "192.0.2.7:7464"),
        ("attic.lan", "attic.lan:7464"),
        ("attic.lan:9", "attic.lan:9"),
        ("[fd00::1]", "[fd00::1]:7464"),
        ("[fd00::1]:9", "[fd00::1]:9"),
    ],
)
def test_a_place_without_a_port_is_at_the_port_of_the_lan_channel(given, parsed):
    assert parser.parser().parse_args(["join", "cfx1x", "--peer", given]).peer == parsed
    assert parser.parser().parse_args(["realm", "invite", "--hint", given]).hint == [parsed]


def test_without_a_daemon_every_question_fails_in_one_line(capsys, tmp_path):
    for command in ("status", "streams", "paths", "links", "route x", "route move x", "watch", "down"):
        code, out, err = outcome(capsys, *command.split(), "--state-dir", str(tmp_path))
        assert (code, out) == (1, "")
        assert err == f"conflux: no daemon listens on {tmp_path}/conflux.sock: start it with `conflux up`\n"


def test_a_wrong_configuration_is_told_with_its_line(capsys, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[tun]\nmtu = 7\n")
    wrong = f"{path}:2: tun.mtu must be a whole number from 1280 to 65000, not 7"
    assert outcome(capsys, "up", "--config", str(path)) == (1, "", f"conflux: {wrong}\n")
    code, _, err = outcome(capsys, "status", "--config", str(path), "--state-dir", str(tmp_path))
    assert (code, err.startswith("conflux: no daemon listens on"), err.count("\n")) == (1, True, 1)


def test_a_configuration_that_does_not_say_where_the_daemon_is_is_told_with_its_line(capsys, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[node]\nstate_dir = 7\n")
    code, _, err = outcome(capsys, "status", "--config", str(path), "--state-dir", str(tmp_path))
    first, second = err.splitlines()
    assert code == 1
    assert first.startswith(f"conflux: warning: {path}:2: node.state_dir must be an absolute path of a directory")
    assert second.startswith("conflux: no daemon listens on")


def test_a_bug_is_shown_on_one_line(capsys, monkeypatch):
    monkeypatch.delenv(parser.TRACEBACK_VARIABLE, raising=False)

    def broken(name):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(parser, "import_module", broken)
    code, _, err = outcome(capsys, "status")
    assert code == 1
    assert err == "conflux: a bug: ZeroDivisionError: division by zero (CONFLUX_TRACEBACK=1 shows where)\n"


def test_interruption_is_silent(capsys, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(parser, "import_module", interrupted)
    assert outcome(capsys, "watch") == (130, "", "")


def test_a_pipe_that_its_reader_closed_is_not_reported():
    script = "import sys; from conflux.cli import parser; sys.exit(parser.main(['realm', 'create', '--help']))"
    piped = f"'{sys.executable}' -c \"{script}\" | true"
    done = subprocess.run(
        ["sh", "-c", piped], capture_output=True, text=True, env={"PYTHONPATH": str(TREE)}, timeout=30, check=False
    )
    assert "Traceback" not in done.stderr


def test_the_question_commands_do_not_load_webrtc():
    script = (
        "import sys; import conflux.cli.observe, conflux.cli.route, conflux.cli.parser;"
        "print(sorted({'aiortc', 'asyncio', 'zeroconf', 'cryptography', 'segno', 'uvloop'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(TREE)},
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == "[]"
