"""A broker that an operator set up with `conflux control init`: its real servers, on loopback addresses.

Each server has an address of its own in 127.0.0.0/8, so that all may listen on the same ports.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from conflux.broker.layout import CLUSTER_STEP, GATEWAY_STEP, LEAF_STEP
from conflux.broker.server_files import CONFIG, REALM_CREDS, secrets
from conflux.cli import parser

START_S = 15.0
ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")


def conflux(*arguments: str) -> int:
    """Run a command, and return its exit code."""
    try:
        return parser.main(arguments)
    except SystemExit as left:
        return int(left.code or 0)


def free_base_port() -> int:
    """Return a port that, with those of servers among themselves, is free on every address used here."""
    while True:
        base = random.randrange(20000, 28000)
        wanted = [base, base + CLUSTER_STEP, base + GATEWAY_STEP, base + LEAF_STEP]
        if all(_is_free(address, port) for address in ADDRESSES for port in wanted):
            return base


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
        except OSError:
            return False
    return True


@dataclass
class Server:
    """One server: the folder that `conflux control init` wrote for it, and its process."""

    binary: str
    folder: Path
    scratch: Path  # where it keeps accounts and writes its log; named by its address
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def host(self) -> str:
        """Its address."""
        return self.scratch.name

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.scratch / "log").read_text()

    def start(self) -> None:
        """Run it on its own address alone, with the environment that its systemd unit gives it."""
        self.scratch.mkdir(exist_ok=True)
        config = self.folder / CONFIG
        here = self.folder / f"here-{CONFIG}"
        here.write_text(config.read_text().replace('"0.0.0.0:', f'"{self.host}:'))
        environment = {
            "STATE_DIRECTORY": str(self.scratch / "accounts"),
            **secrets(is_leaf=(self.folder / REALM_CREDS).exists()),
        }
        with (self.scratch / "log").open("ab") as out:
            self.process = subprocess.Popen(
                [self.binary, "-c", here.name], cwd=self.folder, env=environment, stdout=out, stderr=out
            )

    def hang(self) -> None:
        """Stop it without a word; its connections stay open."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def stop(self) -> None:
        """Kill it.  Safe to repeat."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def wait_until_up(self, port: int) -> None:
        """Wait until it accepts connections."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.log
            with contextlib.suppress(OSError), socket.create_connection((self.host, port), timeout=1):
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
        raise AssertionError(f"{self.host} is not up: {self.log}")


@contextlib.contextmanager
def operated(binary: str, directory: Path, port: int, scratch: Path) -> Iterator[dict[str, Server]]:
    """Run every server of an operator's directory; yield them by their addresses."""
    folders = sorted((*directory.glob("servers/*"), *directory.glob("leaves/*")))
    servers = {folder.name: Server(binary, folder, scratch / folder.name) for folder in folders}
    try:
        for server in servers.values():
            server.start()
        for server in servers.values():
            server.wait_until_up(port)
        yield servers
    finally:
        for server in servers.values():
            server.stop()
