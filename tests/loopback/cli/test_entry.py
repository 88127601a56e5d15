"""The process of a command where scripts, cron and pipes run it: closed descriptors, readers that leave, Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

WORDS_OF_TROUBLE = ("Traceback", "a bug", "Exception ignored", "Fatal", "Error in")
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return the path of a state directory that is no member's."""
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state"


def shell(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in which "$@" is a conflux command; PIPESTATUS of `$@ | true` is that of conflux."""
    words = [sys.executable, "-m", "conflux", *map(str, arguments)]
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**ENVIRONMENT, **environment},
    )
    assert [word for word in WORDS_OF_TROUBLE if word in done.stdout + done.stderr] == [], done.stderr
    return done


CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("closed", CLOSED)
def test_closed_descriptors_change_no_exit_code(closed: str, directory: Path) -> None:
    assert shell(f'"$@" {closed}', "--help").returncode == 0
    assert shell(f'"$@" {closed}', "realm", "members", "--state-dir", directory).returncode == 1
    assert shell(f'"$@" {closed}', "no-such-command").returncode == 2


def test_a_closed_descriptor_is_dev_null_before_anything_else_is_opened() -> None:
    program = (
        "from conflux.cli import entry; entry.open_missing(); import os, sys\n"
        "found = {os.readlink(f'/proc/self/fd/{number}') for number in (0, 1, 2)}\n"
        "print('lost'); sys.stdout.flush(); sys.exit(0 if found == {'/dev/null'} and sys.stdin.read() == '' else 1)"
    )
    done = subprocess.run(
        ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", sys.executable, "-c", program], timeout=60, check=False
    )
    assert done.returncode == 0


@pytest.mark.parametrize("command", [("--help",), ("ping", "--help"), ("--version",)])
def test_a_reader_that_leaves_early_hears_no_complaint(command: tuple[str, ...]) -> None:
    done = shell('"$@" | true; exit ${PIPESTATUS[0]}', *command)
    assert (done.returncode in (0, 1), done.stderr) == (True, "")


def test_output_that_cannot_be_written_is_an_error_with_its_reason() -> None:
    done = shell('"$@" >/dev/full', "--help")
    assert (done.returncode, done.stderr) == (1, "conflux: standard output: No space left on device\n")


def test_errors_that_cannot_be_written_change_no_exit_code(directory: Path) -> None:
    assert shell('"$@" 2>/dev/full', "realm", "members", "--state-dir", directory).returncode == 1
    assert shell('"$@" 2>/dev/full', "--help").returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_odd_encoding_is_no_error(encoding: str, tmp_path: Path) -> None:
    made = shell('"$@"', "realm", "create", "home", "--state-dir", tmp_path / "s", PYTHONIOENCODING=encoding)
    assert made.returncode == 0
    assert shell('"$@"', "realm", "members", "--state-dir", tmp_path / "s", PYTHONIOENCODING=encoding).returncode == 0


def test_ctrl_c_from_our_first_line_on_is_no_traceback() -> None:
    program = "import os, sys; from conflux.cli.entry import main; os.write(1, b'x'); sys.exit(main())"
    for delay_ms in range(0, 60, 6):
        running = subprocess.Popen(
            [sys.executable, "-c", program, "watch", "--help"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert running.stdout is not None
        assert running.stdout.read(1) == "x"
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(0.001 + delay_ms / 1000)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
        assert (err, running.returncode in (0, 130, -signal.SIGINT)) == ("", True)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_file_name_that_is_no_text_is_printed_all_the_same(encoding: str, tmp_path: Path) -> None:
    script = '"$@" --state-dir "$0/s" "$0/"$\'caf\\xff\\xc3\\xa9\''
    line = [sys.executable, "-m", "conflux", "config", "mask"]
    done = subprocess.run(
        ["bash", "-c", script, str(tmp_path), *line],
        capture_output=True,
        timeout=60,
        check=False,
        env={**ENVIRONMENT, "PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"caf\\udcff" in done.stdout


def test_ctrl_c_in_a_place_that_cannot_raise_it_is_not_lost_and_no_traceback() -> None:
    program = (
        "import signal, sys, time, weakref\n"
        "from conflux.cli import entry\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs behind it\n"
        "class Held: pass\n"
        "def hung(name):\n"
        "    held = Held()\n"
        "    kept = weakref.ref(held, lambda ref: signal.raise_signal(signal.SIGINT))\n"
        "    del held  # the callback runs here, and what it raises is ignored\n"
        "    time.sleep(30)\n"
        "entry.import_module = hung\n"
        "sys.exit(entry.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 130)


def test_python_looks_for_dead_objects_rarely_except_in_what_goes_on() -> None:
    program = (
        "import gc, sys\n"
        "usual = gc.get_threshold()\n"
        "from conflux.cli import entry\n"
        "assert entry.main() == 0\n"
        "assert gc.get_threshold()[0] == entry.OBJECT_COUNT > 10 * usual[0]\n"
        "entry.lives_long()\n"
        "assert gc.get_threshold() == usual\n"
    )
    done = subprocess.run([sys.executable, "-c", program, "version"], capture_output=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
