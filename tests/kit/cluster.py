"""A realm's own broker, one server or a cluster with TLS, and nodes' channels over it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kit.broker import Operator, debian_server, newest_server
from kit.builders import make_credential, make_realm, node_keys
from kit.ear import WAIT_S, Ear, Tally

from conflux.control.admitting import Office
from conflux.control.channel import Handoff
from conflux.control.envelope import Envelope
from conflux.control.nats.channel import NatsChannel, ed25519_of
from conflux.control.nats.config import NatsConfig, Server
from conflux.ids import NodeId
from conflux.realm.broker.users import Signer
from conflux.realm.credential import Chain
from conflux.realm.member import Member
from conflux.realm.signed import UNSIGNED

DAY = datetime.timedelta(days=1)
HOST = "127.0.0.1"
READY = b"Server is ready"


def now_unix() -> int:
    """Return the present, by which servers judge the dates of JWTs."""
    return int(time.time())


# ── certificates ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Certificates:
    """A CA, and a server's certificate that it signed, with the CA's behind it; all in PEM."""

    ca: str
    certificate: str
    key: str


@cache
def certificates(*, hosts: tuple[str, ...] = (HOST,), days: int = 400, begins: int = -10) -> Certificates:
    """Return new certificates for some addresses.

    days: until the server's ends; negative: it has ended.  begins: days until it begins.
    """
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("test CA", ca_key, ca_key, days=1, extension=x509.BasicConstraints(ca=True, path_length=0))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host)) for host in hosts])
    leaf = _certificate("test server", key, ca_key, days=days, begins=begins, extension=names)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificates(ca, leaf + ca, secret.decode())


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    ca_key: ec.EllipticCurvePrivateKey,
    *,
    days: int,
    extension: Any,
    begins: int = -10,
) -> str:
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins * DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(extension, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


# ── servers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def free_ports(count: int) -> list[int]:
    """Return ports of loopback on which nothing listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def program() -> str:
    """Return the nats-server that is tried: the newer one, if one is named."""
    return newest_server() or debian_server() or "nats-server"


class BrokerServer:
    """One nats-server."""

    def __init__(self, directory: Path, port: int, config: str, program: str) -> None:
        self.address: Server = (HOST, port)
        self._config = directory / f"{port}.conf"
        self._config.write_text(config)
        self._program = program
        self._process: asyncio.subprocess.Process | None = None
        self._log: asyncio.Task[None] | None = None
        self.said = bytearray()  # its log, since it was started first

    @property
    def text(self) -> str:
        """Its configuration, which counts from its next start."""
        return self._config.read_text()

    @text.setter
    def text(self, config: str) -> None:
        self._config.write_text(config)

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Run it, and wait until it serves."""
        self._process = await asyncio.create_subprocess_exec(
            self._program, "-c", str(self._config), stderr=asyncio.subprocess.PIPE
        )
        log = self._process.stderr
        assert log is not None
        before = len(self.said)
        async with asyncio.timeout(WAIT_S):
            while READY not in self.said[before:]:
                line = await log.readline()
                assert line, f"nats-server did not start: {self.said.decode()}"
                self.said += line
        self._log = asyncio.create_task(self._keep(log))

    async def _keep(self, log: asyncio.StreamReader) -> None:
        while part := await log.read(65536):
            self.said += part

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: SIGSTOP lets it hang."""
        assert self._process is not None
        self._process.send_signal(number)

    async def hang(self) -> None:
        """Stop it, and wait until all its threads have stopped.  SIGCONT lets it go on."""
        self.signal(signal.SIGSTOP)
        async with asyncio.timeout(WAIT_S):
            tasks = Path(f"/proc/{self.pid}/task")
            while not all(map(_is_stopped, tasks.iterdir())):  # noqa: ASYNC110  # the kernel tells nobody
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        """Kill it.  No-op if it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if self._log is not None:
            await self._log


def _is_stopped(task: Path) -> bool:
    return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"


@dataclass
class Broker:
    """Servers that are one cluster, and the keys that admit members to it."""

    servers: list[BrokerServer]
    operator: Operator
    certificates: Certificates
    elsewhere: tuple[Server, ...] = ()  # servers that somebody else runs

    @property
    def addresses(self) -> tuple[Server, ...]:
        """Where its servers are."""
        return (*(server.address for server in self.servers), *self.elsewhere)

    def config(self, **options: Any) -> NatsConfig:
        """Return what a node of the realm is configured with."""
        return NatsConfig(**{"servers": self.addresses, "ca": self.certificates.ca, **options})

    def member(
        self,
        name: str,
        *,
        realm: str = "home",
        capabilities: tuple[str, ...] = (),
        signer: Signer | None = None,
        lives_s: int = 3600,
        jwt: str | None = None,
    ) -> Member:
        """Return a member that the broker admits.  signer, jwt: whose admission it has instead."""
        home, now = make_realm(realm), now_unix()
        plain = make_credential(home, name, capabilities=capabilities)
        made = (signer or self.operator.signer).member_jwt(
            plain.node_public, name, plain.addresses, capabilities, issued_at=now, expires_at=now + lives_s
        )
        credential = replace(plain, nats_jwt=made if jwt is None else jwt, signature=UNSIGNED).sign(
            home.root, home.anchor.realm_id
        )
        return Member(node_keys(name), home.anchor, Chain(credential, None))


def _cluster(route: int, routes: list[int]) -> str:
    if len(routes) == 1:
        return ""
    urls = ", ".join(f"'nats://{HOST}:{each}'" for each in routes)
    return f"cluster {{ name: test, listen: '{HOST}:{route}', routes: [{urls}] }}\n"


@contextlib.asynccontextmanager
async def broker(
    count: int = 1,
    *,
    tls: Certificates | None = None,
    tenants: Sequence[Operator] = (),
    is_traced: bool = False,
) -> AsyncIterator[Broker]:
    """Run a broker of so many servers, which end with the context: the newer program, if one is named.

    tenants: other realms that it serves too.  is_traced: the servers log all that they read and write; see
    overheard.py.
    """
    operator, tls = Operator(), tls or certificates()
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        (directory / "certificate.pem").write_text(tls.certificate)
        (directory / "key.pem").write_text(tls.key)
        pair = f"tls {{ cert_file: '{directory}/certificate.pem', key_file: '{directory}/key.pem' }}\n"
        ports, routes = free_ports(count), free_ports(count)
        servers = []
        for port, route in zip(ports, routes, strict=True):
            text = f"listen: '{HOST}:{port}'\n{pair}{_cluster(route, routes)}{operator.config(*tenants)}"
            text += "trace: true\n" if is_traced else ""
            servers.append(BrokerServer(directory, port, text, program()))
        try:
            await asyncio.gather(*(server.start() for server in servers))
            yield Broker(servers, operator, tls)
        finally:
            await asyncio.gather(*(server.end() for server in servers))


# ── nodes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Prompt(random.Random):
    """Waits a tenth of the longest wait that is drawn: no test waits for jitter."""

    def uniform(self, a: float, b: float) -> float:
        """Return what is a tenth of the way from a to b."""
        return a + 0.1 * (b - a)


class NatsNode:
    """One node's channel over a broker, and an ear that hears what it tells.

    It knows the keys of the nodes named in knows, as from their cards.  rng: None for one that does not wait.
    office: of an issuer.  floor_unix: the newest date that its realm has signed.
    """

    def __init__(
        self,
        member: Member,
        config: NatsConfig,
        *,
        knows: tuple[str, ...] = (),
        rng: random.Random | None = None,
        office: Office | None = None,
        floor_unix: int = 0,
    ) -> None:
        self.name = member.name
        self.node_id: NodeId = member.node_id
        self.ear = Ear()
        self.drops = Tally()
        cards = {node_keys(name).node_id: node_keys(name).public.encode() for name in knows}
        self.channel = NatsChannel(
            member,
            config=config,
            rng=rng or Prompt(member.name),
            public_of=cards.get,
            office=office,
            floor_unix=lambda: floor_unix,
        )
        self.channel.drops = self.drops

    @property
    def key(self) -> bytes:
        """The key by which the broker knows it."""
        return ed25519_of(node_keys(self.name).public.encode())

    async def __aenter__(self) -> NatsNode:
        await self.channel.start(self.ear.inputs())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.channel.stop()

    def send(self, envelope: Envelope) -> Handoff:
        """Send an envelope."""
        return self.channel.send(envelope)

    async def flushed(self) -> None:
        """Wait until the server has taken everything that this node told it."""
        connection = self.channel._up()
        assert connection is not None
        await connection._flushed()

    async def until(self, *, up: bool) -> None:
        """Wait until the channel says that it came up, or went down."""
        await self.ear.until(lambda: (self.ear.turns or [False])[-1] is up)
        assert self.channel.state.up is up

    async def until_it_says(self, detail: str) -> None:
        """Wait until the channel's state says so, somewhere in its detail."""
        async with asyncio.timeout(WAIT_S):
            while detail not in self.channel.state.detail:  # noqa: ASYNC110  # no event tells of it
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def far_nodes(at: Broker, *names: str, **options: Any) -> AsyncIterator[list[NatsNode]]:
    """Nodes on a broker, all of them connected, that know each other's keys."""
    async with contextlib.AsyncExitStack() as stack:
        nodes = [NatsNode(at.member(name), at.config(**options), knows=names) for name in names]
        for node in nodes:
            await stack.enter_async_context(node)
        for node in nodes:
            await node.until(up=True)
        yield nodes
