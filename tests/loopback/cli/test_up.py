"""`conflux up` as a process: in the background, in the foreground, and without a realm."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit.records import misfits

from conflux.api.client import ApiClient, NotRunning
from conflux.errors import UserError

WAITS = "waiting for a realm: conflux join TOKEN, or conflux realm create NAME"
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory; a daemon that is left in it is ended."""
    yield tmp_path / "state"
    with contextlib.suppress(UserError):
        ApiClient(tmp_path / "state" / "conflux.sock").call_to_end("down", 10)


def conflux(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    line = [sys.executable, "-m", "conflux", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT)


def wait_for(seen: Callable[[], object], what: str) -> None:
    """Wait until something is seen."""
    ends_at = time.monotonic() + 20
    while not seen():
        assert time.monotonic() < ends_at, what
        time.sleep(0.02)


def pid(state: Path) -> int:
    """Return the process that listens in the directory."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(state / "conflux.sock"))
        return int(struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def test_up_without_a_realm_returns_and_its_daemon_waits(state: Path) -> None:
    done = conflux("up", "--state-dir", state)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"the daemon runs: {WAITS}\nlog: {state}/daemon.log\n"
    for words in (("status",), ("ping", "attic"), ("watch",), ("route", "attic")):
        asked = conflux(*words, "--state-dir", state)
        assert (asked.returncode, asked.stdout, asked.stderr) == (1, "", f"conflux: {WAITS}\n")
    said = conflux("status", "--wait-ready", "0.1", "--state-dir", state)
    assert (said.returncode, said.stderr) == (1, f"conflux: not ready after 0.1 s: {WAITS}\n")
    assert conflux("down", "--state-dir", state).returncode == 0
    with pytest.raises(NotRunning):
        ApiClient(state / "conflux.sock").look("links")


def test_programs_are_told_what_started_and_what_ended(state: Path) -> None:
    started = json.loads(conflux("up", "--json", "--state-dir", state).stdout)
    assert misfits(started, "up") == []
    assert (started["state"], started["pid"], started["text"]) == ("waiting", pid(state), WAITS)
    ended = json.loads(conflux("down", "--json", "--state-dir", state).stdout)
    assert misfits(ended, "down") == []
    assert ended["pid"] == started["pid"]


def test_the_daemon_is_of_a_session_of_its_own_and_holds_no_terminal(state: Path) -> None:
    conflux("up", "--state-dir", state)
    daemon = pid(state)
    assert os.getsid(daemon) == daemon
    assert os.getpgid(daemon) == daemon
    assert os.path.realpath(f"/proc/{daemon}/fd/0") == os.devnull
    assert Path(f"/proc/{daemon}/cwd").resolve() == Path("/")
    assert (state / "daemon.log").stat().st_mode & 0o777 == 0o600
    os.kill(daemon, signal.SIGHUP)  # of nobody's terminal
    assert conflux("status", "--state-dir", state).stderr == f"conflux: {WAITS}\n"


def test_the_way_to_the_socket_of_a_daemon_in_the_background_is_open_to_those_who_may_look(
    state: Path, tmp_path: Path
) -> None:
    config, place = tmp_path / "conflux.toml", tmp_path / "run" / "conflux"
    config.write_text(f'[node]\nstate_dir = "{state}"\n[api]\nsocket = "{place}/conflux.sock"\n')
    conflux("up", "--config", config)
    try:
        modes = [path.stat().st_mode & 0o777 for path in (place.parent, place)]
    finally:
        conflux("down", "--config", config)
    assert modes == [0o755, 0o755]


def test_who_waits_for_the_end_of_the_output_of_up_does_not_wait_for_the_daemon(state: Path) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    line = [sys.executable, "-m", "conflux", "up", "--state-dir", str(state)]
    subprocess.run(line, close_fds=False, timeout=60, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_second_daemon_is_refused_with_the_way_out(state: Path) -> None:
    conflux("up", "--state-dir", state)
    done = conflux("up", "--state-dir", state)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"conflux: another daemon listens on {state}/conflux.sock: conflux down ends it\n"


def test_the_reason_of_a_start_that_fails_is_what_up_says(state: Path) -> None:
    conflux("realm", "create", "home", "--node", "attic", "--state-dir", state)
    (state / "node.key").write_bytes(b"damaged")
    for words in (("up",), ("up", "--foreground")):
        done = conflux(*words, "--state-dir", state)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1].startswith("conflux: ")
        assert "node.key: damaged" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "node.key: damaged" in (state / "daemon.log").read_text()


def test_a_daemon_in_the_foreground_ends_cleanly_with_its_terminal(state: Path, tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored in a run that outlives its own terminal
        with (tmp_path / "log").open("w") as log:
            os.dup2(log.fileno(), 2)
        words = [sys.executable, "-m", "conflux", "up", "--foreground", "--state-dir", str(state)]
        os.execve(sys.executable, words, ENVIRONMENT)
    wait_for((state / "conflux.sock").exists, "the socket")
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, (tmp_path / "log").read_text()
    assert "stopping" in (tmp_path / "log").read_text()
    assert not (state / "conflux.sock").exists()
