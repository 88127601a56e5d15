"""Somebody without rights on a host, who types commands as scripts and cron run them; and what is wrong with an end."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from subprocess import CompletedProcess

from rig.topology import CONFLUX, Host, wait_for

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
TROUBLE = ("Traceback", "a bug:", "Exception ignored", "Fatal Python", "most recent call")
# Runs a command, and interrupts it so many seconds later: before our first line Python's own start would be.
INTERRUPTED = """
import os, signal, sys, time
from conflux.cli import entry
after_s, command = float(sys.argv.pop(1)), os.getpid()
reader, writer = os.pipe()
if os.fork() == 0:
    os.close(writer)
    os.read(reader, 1)
    time.sleep(after_s)
    if os.getppid() == command:
        os.kill(command, signal.SIGINT)
    os._exit(0)
first = entry.open_missing
def begun():
    os.write(writer, b"x")
    first()
entry.open_missing = begun
sys.exit(entry.main())
"""
LISTENS = (
    "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(200); time.sleep(600)"
)

Done = CompletedProcess[str]


class Person:
    """Somebody on alpha who is not root, with a directory and a realm of their own."""

    def __init__(self, alpha: Host) -> None:
        self.alpha = alpha
        self.home = alpha.state / "home"
        self.home.mkdir()
        os.chown(self.home, 65534, 65534)
        self.state = self.home / "state"
        done = self.bash(shlex.join([str(CONFLUX), "realm", "create", "home", "--state-dir", str(self.state)]))
        assert done.returncode == 0, done.stderr

    def bash(self, script: str, within_s: float = 120) -> Done:
        """Run a script as this user, in the home directory."""
        line = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "HOME=/nowhere", "bash", "-c")
        return self.alpha.run(*NOBODY, *line, f"cd {self.home}; {script}", check=False, within_s=within_s)

    def hang(self, name: str) -> Path:
        """Return a member's directory whose daemon takes connections and says nothing."""
        state = self.home / name
        self.bash(f"cp -a {self.state} {state}")
        listener = self.alpha.spawn(name, *NOBODY, "/usr/bin/python3", "-c", LISTENS, state / "conflux.sock")
        wait_for((state / "conflux.sock").exists, "the daemon that hangs", within_s=10, logs=(listener,))
        return state


def interrupted(line: str, after_s: float) -> str:
    """Return a line that runs a command, and interrupts it so many seconds after our first line."""
    return shlex.join([sys.executable, "-c", INTERRUPTED, f"{after_s:.3f}", *shlex.split(line)[1:]])


def wrong(done: Done, codes: tuple[int, ...]) -> list[str]:
    """Return what is wrong with an end: its exit code, a traceback, more than one line of error."""
    lines = [line for line in done.stderr.splitlines() if ": warning: " not in line]
    faults = [f"exit code {done.returncode}"] if done.returncode not in codes else []
    faults += [word for word in TROUBLE if word in done.stdout + done.stderr]
    faults += [line for line in lines if not line.startswith("conflux") or not line.isprintable()]
    faults += ["more than one line"] if done.returncode and len(lines) > 1 else []
    faults += ["not a word"] if done.returncode in (1, 2) and not (lines or done.stdout) else []
    return [f"{' '.join(done.args)}: {fault}" for fault in faults]
