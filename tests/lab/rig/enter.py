"""Run a program inside namespaces of its own, so that nothing it makes can outlive it.

        outside: you                                  inside: root of a small machine that ends with the program
        ------------                                  ----------------------------------------------------------
        enter.py SCRIPT ...                           PID 1 of its own PID namespace
          |  root, user namespace or sudo?            /run is an empty tmpfs: `ip netns` and state stay private
          +--- unshare --mount --net --pid ... -----> no network but a loopback
        build/NAME  <------- socket (fd 0) ---------- deliver("NAME", text), add_figures("NAME", figures)
          |          -------------------------------> closed: stop

When the outside ends, is interrupted or is killed, the socket closes and PID 1 ends; the kernel then removes every
process, namespace, device and file of the inside.  There is no clean-up code that could be skipped.  The outside writes
the files in build/, so they belong to the owner of the tree.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

TREE = Path(__file__).resolve().parents[3]
UNSHARE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
STATE = Path("/run/lab")  # everything the inside writes
ENVIRONMENT_KEPT = (  # the rest is dropped, as sudo does
    "LANG", "LC_ALL", "TERM", "NO_COLOR", "COLUMNS", "CI",
    "CONFLUX_CUTS", "CONFLUX_SEED",  # how often and when tests/image pulls a plug
)  # fmt: skip
STOP_WITHIN_S = 5  # between asking the inside to stop and ending it
RESULTS_FD = "CONFLUX_LAB_RESULTS_FD"


def deliver(name: str, text: str) -> None:
    """Hand a file to the outside, which writes it to build/."""
    _send({"name": name, "text": text})


def deliver_picture(name: str, data: bytes) -> None:
    """Hand a picture to the outside, which writes it to build/."""
    _send({"name": name, "base64": base64.b64encode(data).decode()})


def add_figures(name: str, figures: Mapping[str, object]) -> None:
    """Hand figures to the outside, which puts them beside those that the JSON file build/NAME has already."""
    _send({"name": name, "figures": dict(figures)})


def _send(result: dict[str, object]) -> None:
    line = json.dumps(result) + "\n"
    with socket.socket(fileno=os.dup(int(os.environ[RESULTS_FD]))) as results:
        results.sendall(line.encode())


# --- outside ----------------------------------------------------------------------------------------------------


def works(*command: str) -> bool:
    """Return whether a command exists and succeeds."""
    try:
        return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False


def way_in() -> list[str]:
    """Return the command that opens the inside: as root, in a user namespace, or through sudo.  Raises SystemExit."""
    if TREE.is_relative_to("/run"):
        raise SystemExit(f"lab: {TREE} is under /run, which the lab replaces; move the clone elsewhere")
    if not os.path.exists("/dev/net/tun"):
        raise SystemExit("lab: /dev/net/tun is missing; try `modprobe tun`, or give this container the device")
    if os.geteuid() == 0:
        if not works(*UNSHARE, "true"):
            raise SystemExit("lab: root may not make namespaces here; a container needs --privileged for this")
        return list(UNSHARE)
    # Try everything the labs do: some kernels allow the namespace but nothing in it.
    rootless = (UNSHARE[0], "--user", "--map-root-user", *UNSHARE[1:])
    trial = "exec 3<>/dev/net/tun && mount -t tmpfs tmpfs /run && ip link add type veth && nft list ruleset"
    if works(*rootless, "sh", "-c", trial):
        return list(rootless)
    if shutil.which("sudo"):
        say("lab: sudo is asked for: this kernel gives users no network namespaces, or no /dev/net/tun")
        return ["sudo", "--", *UNSHARE]
    raise SystemExit("lab: needs root, or sudo, or user namespaces together with a /dev/net/tun that users may open")


def outside(program: list[str]) -> int:
    """Run the program inside, write what it delivers, and return its exit code."""
    ours, theirs = socket.socketpair()
    environment = [f"{name}={os.environ[name]}" for name in ENVIRONMENT_KEPT if name in os.environ]
    environment += [
        f"PATH={TREE}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/run/lab",
        "TMPDIR=/run/lab/tmp",
        "PYTHONDONTWRITEBYTECODE=1",  # root's bytecode would be root's files in a user's tree
        "PYTHONUNBUFFERED=1",
    ]
    inner = [*way_in(), "env", "-i", *environment, sys.executable, __file__, "--inside", *program]
    stopped_by = 0

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopped_by
        stopped_by = stopped_by or number
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_WR)
        signal.alarm(STOP_WITHIN_S + 2)

    def kill(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):  # under sudo we may not kill it; the inside has a deadline of its own
            child.kill()

    child = subprocess.Popen(inner, stdin=theirs.fileno(), cwd=TREE)
    theirs.close()
    signal.signal(signal.SIGALRM, kill)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    with ours.makefile("r", encoding="utf-8") as lines:
        for line in lines:
            result = json.loads(line)
            if "figures" in result:
                write_figures(result["name"], result["figures"])
            elif "base64" in result:
                write_result(result["name"], base64.b64decode(result["base64"]))
            else:
                write_result(result["name"], result["text"].encode())
    code = child.wait()
    signal.alarm(0)
    return 128 + stopped_by if stopped_by else code if code >= 0 else 128 - code


def write_result(name: str, data: bytes) -> None:
    """Write build/NAME whole or not at all, with the owner of the tree."""
    build = TREE / "build"
    owner = TREE.stat()
    build.mkdir(exist_ok=True)
    part = build / f".{Path(name).name}.part"
    part.write_bytes(data)
    if os.geteuid() == 0:
        for path in (build, part):
            os.chown(path, owner.st_uid, owner.st_gid)
    part.replace(build / Path(name).name)


def write_figures(name: str, figures: Mapping[str, object]) -> None:
    """Put figures beside those of build/NAME; a file that is no JSON object is replaced.

    Other labs may do the same at this moment: they wait for each other.
    """
    with Path(__file__).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            held = json.loads((TREE / "build" / Path(name).name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            held = {}
        held = held if isinstance(held, dict) else {}
        write_result(name, (json.dumps({**held, **figures}, indent=2, sort_keys=True) + "\n").encode())


# --- inside -----------------------------------------------------------------------------------------------------


def inside(program: list[str]) -> None:
    """Make the small machine and run the program in this process, its PID 1."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    results = os.dup(0)
    os.environ[RESULTS_FD] = str(results)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    threading.Thread(target=stop_with_the_outside, args=(results,), daemon=True).start()

    os.umask(0o022)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "lab", "/run"], check=True)
    for path in (Path("/run/netns"), STATE, STATE / "tmp"):
        path.mkdir()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    sys.path[:0] = [str(TREE / place) for place in ("tests", "tests/lab", "bench")]
    try:
        if program[0] == "-m":
            sys.argv = program[1:]
            runpy.run_module(program[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = program
            runpy.run_path(program[0], run_name="__main__")
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """Interrupt the program, once: a terminal's Ctrl-C and the outside's request come together."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def stop_with_the_outside(results: int) -> None:
    """Interrupt the program when the outside closes its end, and end it if it does not stop in time."""
    while os.read(results, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(STOP_WITHIN_S)
    os._exit(130)


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[1] == "--inside":
        inside(sys.argv[2:])
    elif len(sys.argv) > 1:
        raise SystemExit(outside(sys.argv[1:]))
    else:
        raise SystemExit("usage: enter.py SCRIPT [ARGUMENT...] | enter.py -m MODULE [ARGUMENT...]")
