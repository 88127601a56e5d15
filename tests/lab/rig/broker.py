"""A broker in a lab as a person sets it up: `conflux control init` at the founder, its files on the servers' hosts.

founder ── operator's directory ──► Server, Server, Server       each on a host of its own, all of them one cluster
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit.broker import debian_server
from rig import gauge
from rig.topology import Host, LabFailure, Process, Realm, wait_for

from conflux.api.rows import ChannelRow
from conflux.broker.server_files import CONFIG, secrets
from conflux.realm.broker.jwt import open_untrusted

PORT = 4222


class Server:
    """One nats-server.  folder: what `conflux control init` wrote for it."""

    def __init__(self, host: Host, folder: Path, accounts: Path) -> None:
        self.host = host
        self.address = host.addresses[0]
        self._folder = folder
        self._accounts = accounts
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        """Its process, which has been started."""
        assert self._process is not None
        return self._process

    def start(self, *options: str) -> Process:
        """Run it, with the environment that its systemd unit gives it.  options: of nats-server, besides."""
        program = debian_server() or "nats-server"
        command: tuple[str | Path, ...] = ("env", "-C", self._folder, program, "-c", CONFIG, *options)
        environment = {"STATE_DIRECTORY": str(self._accounts), **secrets(is_leaf=False)}
        process = self._process = self.host.spawn("nats-server", *command, environment=environment)
        wait_for(lambda: "Server is ready" in process.output(), "nats-server", within_s=10, logs=(process,))
        return process

    def kill(self) -> None:
        """End it, like a power cut; start() brings it back."""
        self.process.kill()

    def hang(self) -> None:
        """Stop it: its connections stay, and nothing answers."""
        self.process.signal(signal.SIGSTOP)

    def cut_off(self) -> None:
        """Pull its host's cables."""
        self.host.unplug()

    def put_account(self, jwt: str) -> None:
        """Have it hold this account from its next start on, whatever it was told since."""
        (self._accounts / f"{open_untrusted(jwt).subject}.jwt").write_text(jwt)

    def heal(self) -> None:
        """Undo whatever was done to it."""
        self.host.plug_in()
        if self.process.exit_code is not None:
            self.start()
        self.process.signal(signal.SIGCONT)


class Broker:
    """The servers of one realm, one cluster; start() runs them.  The directory is the operator's, at the founder.

    founder: made the realm.  If its daemon is up, or comes up, the members are told of the broker.
    """

    def __init__(self, founder: Host, *hosts: Host, port: int = PORT) -> None:
        self.directory = founder.state / f"broker-{port}"
        self.port = port
        addresses = ",".join(host.addresses[0] for host in hosts)
        self.said = founder.conflux(
            "control", "init", str(self.directory), "--servers", addresses, "--port", str(port)
        ).stdout
        self.servers = [
            Server(host, self.directory / "servers" / host.addresses[0], host.state / f"accounts-{founder.name}")
            for host in hosts
        ]
        self._ca = founder.state / f"ca-{port}.pem"  # as on every node: the directory itself is the operator's alone
        self._ca.write_bytes((self.directory / "ca.pem").read_bytes())

    @property
    def ca(self) -> Path:
        """The certificate of its authority."""
        return self._ca

    def start(self, *options: str) -> None:
        """Run all servers.  options: of nats-server, besides."""
        for server in self.servers:
            server.start(*options)

    def settings(self, servers: Sequence[Server] = ()) -> dict[str, Any]:
        """Return what a node that is told nothing has under [control.nats].  servers: those it knows; none: all."""
        return {
            "servers": [f"tls://{server.address}:{self.port}" for server in servers or self.servers],
            "ca": str(self._ca),
        }


def broker_row(realm: Realm, host: Host) -> ChannelRow | None:
    """Return what a host's status says of the broker; None: it knows of none."""
    return next((row for row in realm.daemons[host.name].status().control if row.name == "nats"), None)


def broker_detail(realm: Realm, host: Host) -> str:
    """Return what a host's status says of its connection to the broker, which it knows of."""
    row = broker_row(realm, host)
    if row is None:
        raise LabFailure(f"{host.name} knows of no broker{realm.daemons[host.name].tail()}")
    return row.detail


def is_on_broker(realm: Realm, host: Host) -> bool:
    """Say whether a host's daemon is connected to the broker."""
    row = broker_row(realm, host)
    return row is not None and row.up


def until_on_broker(realm: Realm, *hosts: Host, within_s: float = 20) -> None:
    """Wait until the daemons of hosts are on the broker."""
    wait_for(
        lambda: all(is_on_broker(realm, host) for host in hosts),
        f"{', '.join(host.name for host in hosts)} on the broker",
        within_s=within_s,
        logs=realm.logs(),
    )


def count_broker(host: Host) -> None:
    """Start counting what this host sends to a broker and gets from it."""
    host.filter(f"incoming tcp sport {PORT} counter", f"outgoing tcp dport {PORT} counter")


def counted(host: Host) -> gauge.Count:
    """Return the count since count_broker(), both directions, in bytes of IP."""
    return gauge.count(host.run("nft", "-j", "list", "table", "inet", "lab").stdout)
