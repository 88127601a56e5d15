#!/usr/bin/env python3
"""An Ethernet switch as a process: each port is a pair of UNIX datagram sockets, as QEMU's `-netdev dgram` wants them.

    QEMU ── FOLDER/attic.board ◄──► FOLDER/attic ──┐
    QEMU ── FOLDER/cellar.board ◄─► FOLDER/cellar ─┤ switch ── TAP device, of the namespace that it runs in (--tap)
                                                   │   ▲
                                            fabric.py  └── stdin: a command as JSON in each line; stdout: the answers

A frame is a datagram.  The switch ends when its standard input does.  Each command has an answer, {} or {"error": ...}:

    {"do": "condition", "port": "attic", "delay_s": 0.05, "loss": 0.01}
    {"do": "partition", "groups": [["attic"], ["cellar"]]}          no groups: heal
    {"do": "counts"}                                                of each port, since the start
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from image.fabric import FRAME_BYTES_MAX, Fabric

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
BUFFER_BYTES = 4 << 20  # a burst of a whole TCP window
COMMAND_BYTES_MAX = 65_536
FRAMES_AT_ONCE = 64  # of one port, before the others have their turn
ANSWER_S = 20


class Port:
    """The switch's end of one cable: `send` gives a frame to the machine; False: it was not taken."""

    def __init__(self, descriptor: int, read: Callable[[], bytes], write: Callable[[bytes], object]) -> None:
        self.descriptor = descriptor
        self.read = read
        self._write = write

    def send(self, data: bytes) -> str | None:
        """Hand a frame over; return None, or why it is lost."""
        try:
            self._write(data)
        except BlockingIOError:
            return "full"
        except OSError:  # the machine is off, or is just being switched on
            return "absent"
        return None


def datagrams(folder: Path, name: str) -> Port:
    """Return a port whose machine is, or will be, at FOLDER/NAME.board."""
    ours = folder / name
    ours.unlink(missing_ok=True)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        opened.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    opened.bind(str(ours))
    theirs = str(board_end(folder, name))
    return Port(opened.fileno(), lambda: opened.recv(FRAME_BYTES_MAX), lambda data: opened.sendto(data, theirs))


def board_end(folder: Path, name: str) -> Path:
    """Return where the machine at a port binds its socket."""
    return folder / f"{name}.board"


def tap(device: str) -> Port:
    """Return a port whose machine is the kernel: a new TAP device of the namespace that this process is in."""
    opened = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(opened, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI))
    return Port(opened, lambda: os.read(opened, FRAME_BYTES_MAX), lambda data: os.write(opened, data))


def obey(fabric: Fabric, line: bytes) -> dict[str, Any]:
    """Carry out one command; return its answer."""
    try:
        command = json.loads(line)
        match command.pop("do"):
            case "condition":
                fabric.condition(command.pop("port"), **command)
            case "partition":
                fabric.partition(command["groups"])
            case "counts":
                return {name: asdict(cable) for name, cable in fabric.cables.items()}
            case other:
                return {"error": f"no command {other!r}"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {}


def serve(ports: Mapping[str, Port], fabric: Fabric) -> None:
    """Pass frames and obey commands until standard input ends."""
    commands = b""
    os.set_blocking(0, False)
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        for name, port in ports.items():
            selector.register(port.descriptor, selectors.EVENT_READ, name)
        while True:
            wake_at = fabric.next_timeout()
            ready = selector.select(None if wake_at is None else max(0.0, wake_at - time.monotonic()))
            for key, _ in ready:
                if key.data is not None:
                    take(ports[key.data], key.data, fabric)
                    continue
                read = os.read(0, COMMAND_BYTES_MAX)
                if not read or len(commands) > COMMAND_BYTES_MAX:
                    return
                *lines, commands = (commands + read).split(b"\n")
                for line in lines:
                    print(json.dumps(obey(fabric, line)), flush=True)
            for name, data in fabric.due(now=time.monotonic()):
                if reason := ports[name].send(data):
                    fabric.cables[name].drop(reason)


def take(port: Port, name: str, fabric: Fabric) -> None:
    """Read what a machine has sent, but not all at once."""
    with contextlib.suppress(OSError):  # nothing left; or a datagram's sender is gone
        for _ in range(FRAMES_AT_ONCE):
            fabric.receive(name, port.read(), now=time.monotonic())


class Switch:
    """A running switch, for a test.  Ends with close(), or with the test."""

    def __init__(
        self, folder: Path, ports: Iterable[str], *, tap: str | None = None, enter: Iterable[str] = (), seed: int = 0
    ) -> None:
        """Start it.  folder: for the sockets; tap: a TAP device, one port more; enter: words that enter a namespace."""
        self.folder = folder
        folder.mkdir(exist_ok=True)
        command = [*enter, sys.executable, "-m", "image.switch", str(folder), *ports, f"--seed={seed}"]
        command += [f"--tap={tap}"] if tap else []
        tests = str(Path(__file__).resolve().parents[1])
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": tests}
        )
        self.counts()  # it answers once its sockets are there

    def netdev(self, port: str, name: str) -> str:
        """Return QEMU's words for a network backend called name at a port."""
        ours, theirs = board_end(self.folder, port), self.folder / port
        ours.unlink(missing_ok=True)
        return f"dgram,id={name},local.type=unix,local.path={ours},remote.type=unix,remote.path={theirs}"

    def condition(self, port: str, *, delay_s: float | None = None, loss: float | None = None) -> None:
        """Make a cable long or bad; what is None stays."""
        self._do("condition", port=port, delay_s=delay_s, loss=loss)

    def partition(self, *groups: Iterable[str]) -> None:
        """Cut the ports of each group off from those of the other groups; a port in none reaches all."""
        self._do("partition", groups=[list(group) for group in groups])

    def heal(self) -> None:
        """End a partition."""
        self.partition()

    def counts(self) -> dict[str, dict[str, Any]]:
        """Return what each cable has carried and lost: see fabric.Cable."""
        return self._do("counts")

    def _do(self, what: str, **values: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **values}).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "the switch has ended"}')
        if "error" in answer:
            raise AssertionError(f"switch: {what}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(ANSWER_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()


def main() -> None:
    """Run the switch that the command line describes."""
    parser = argparse.ArgumentParser(description="An Ethernet switch of UNIX datagram sockets.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("ports", nargs="+")
    parser.add_argument("--tap", metavar="DEVICE", help="a port more, of the same name: a TAP device")
    parser.add_argument("--seed", type=int, default=0, help="of the losses")
    arguments = parser.parse_args()
    ports = {name: datagrams(arguments.folder, name) for name in arguments.ports}
    if arguments.tap:
        ports[arguments.tap] = tap(arguments.tap)
    serve(ports, Fabric(ports, seed=arguments.seed))


if __name__ == "__main__":
    main()
