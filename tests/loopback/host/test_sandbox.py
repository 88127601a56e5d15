"""What a process in the sandbox can and cannot do, of the kernel that runs the tests."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, fcntl, json, os, pathlib, resource, socket, subprocess, sys, termios, threading
from conflux.host import privileges, sandbox

state, outside = map(pathlib.Path, sys.argv[1:])
(state / "lists").mkdir()
for kept in (state / "token", state / "lists" / "1"):
    kept.write_text("old")
(asked, ask), (done, say) = os.pipe(), os.pipe()
if os.fork() == 0:  # another program, which replaces files as `conflux join` and `conflux realm` do
    os.read(asked, 1)
    for kept in (state / "token", state / "lists" / "1"):
        kept.with_suffix(".part").write_text("new")
        os.replace(kept.with_suffix(".part"), kept)
    os.rename(state / "lists", state / "lists.old")
    os.rename(state / "lists.old", state / "lists")
    os.write(say, b"x")
    os._exit(0)
held = sandbox.enter(state, state / "conflux.sock")
privileges.drop()

def tried(work):
    try:
        work()
    except OSError as error:
        return error.strerror
    return "done"

def thread():
    made = threading.Thread(target=lambda: None)
    made.start()
    made.join()

def renew():
    (state / "part").write_text("x")
    os.replace(state / "part", state / "member")
    (state / "member").unlink()

def replaced():
    os.write(ask, b"x")
    os.read(done, 1)
    for kept in (state / "token", state / "lists" / "1"):
        assert kept.read_text() == "new"
        kept.write_text("ours")
        kept.with_suffix(".part").write_text("ours")
        os.replace(kept.with_suffix(".part"), kept)

listening = socket.socket(socket.AF_UNIX)
print(json.dumps({
    "held": held,
    "write outside": tried(lambda: (outside / "new").write_text("x")),
    "read outside": tried(lambda: (outside / "secret").read_text()),
    "keep state": tried(renew),
    "use what was replaced": tried(replaced),
    "listen": tried(lambda: listening.bind(str(state / "conflux.sock"))),
    "read settings": tried(lambda: os.listdir("/etc")),
    "look at itself": tried(lambda: pathlib.Path("/proc/self/smaps_rollup").read_text()),
    "program": tried(lambda: subprocess.run(["/bin/true"])),
    "thread": tried(thread),
    "type": tried(lambda: fcntl.ioctl(0, termios.TIOCSTI, b"x")),
    "namespace": ctypes.CDLL(None).unshare(0x10000000),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the process in the sandbox found."""
    state, outside = (tmp_path_factory.mktemp(name) for name in ("state", "outside"))
    (outside / "secret").write_text("secret")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(state), str(outside)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, object] = json.loads(done.stdout)
    return result


def lsm() -> str:
    """Return whether this kernel has Landlock, in the words of enter()."""
    return "Landlock" if ctypes.CDLL(None).syscall(444, None, 0, 1) > 0 else "nothing"


def test_the_daemon_can_do_its_work(found: dict[str, object]) -> None:
    assert "no core" in found["held"]
    assert "seccomp" in found["held"]
    for what in ("keep state", "use what was replaced", "listen", "read settings", "look at itself", "thread"):
        assert found[what] == "done", what


def test_it_starts_no_program_and_makes_no_namespace(found: dict[str, object]) -> None:
    assert found["program"] in ("Operation not permitted", "Permission denied")
    assert found["namespace"] == -1


def test_it_types_nothing_into_a_terminal(found: dict[str, object]) -> None:
    assert found["type"] == "Operation not permitted"


def test_with_landlock_it_touches_no_file_outside_its_state(found: dict[str, object]) -> None:
    wanted = "Permission denied" if lsm() == "Landlock" else "done"
    assert ("Landlock" in found["held"]) == (lsm() == "Landlock")
    assert (found["write outside"], found["read outside"]) == (wanted, wanted)


def test_its_memory_is_in_no_core_file(found: dict[str, object]) -> None:
    assert (found["core"], found["dumpable"]) == ([0, 0], 0)
