"""The overlays that are measured, each as it comes: start it on the hosts of some ground, say where they are, end it.

      alpha        bravo       charlie       every pair may talk; alpha and bravo are measured
      daemon       daemon      daemon        in the overlay's own addresses: 10.99.0.1, .2, .3, or what it gives out

Each is set up as its manual sets up a first network, all defaults kept, and told its peers' addresses; Conflux finds
them itself.  What is not installed says so by name and is left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from enter import TREE
from ground import Ground, RelayedGround
from topology import CONFLUX, Host, LabFailure, Process, Realm, wait_for

STARTED_WITHIN_S = 20
UNPACKED = TREE / "build" / "overlays"


class Programs:
    """Where programs are: in the directories given, on PATH, or where .ci/prepare unpacked them."""

    def __init__(self, directories: Iterable[Path] = ()) -> None:
        self._directories = tuple(directory.resolve() for directory in directories)
        unpacked = [str(UNPACKED / name) for name in ("usr/bin", "usr/sbin", "bin", "sbin")]
        os.environ["PATH"] = os.pathsep.join((os.environ["PATH"], *unpacked))
        found = (UNPACKED.glob(f"{lib}/*-linux-*") for lib in ("lib", "usr/lib"))  # Debian 12 still has both
        if libraries := [str(directory) for directories in found for directory in directories]:
            os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)

    def given(self, *names: str) -> Path | None:
        """Return the first of these names in the directories given."""
        found = (directory / name for directory in self._directories for name in names)
        return next((path for path in found if path.is_file()), None)

    def installed(self, name: str) -> Path | None:
        found = shutil.which(name)
        return Path(found) if found else None


class Overlay:
    """One way for hosts to reach each other.  Made once per measuring, on ground of its own."""

    name: ClassVar[str]
    path: ClassVar[str] = "direct"  # or "relay": how packets get from alpha to bravo

    def __init__(self, programs: Programs, *, seed: int) -> None:
        self._programs = programs
        self.ground = self._new_ground(seed)
        self._addresses: dict[str, str] = {}
        self._daemons: list[Process] = []

    @classmethod
    def missing(cls, programs: Programs) -> str:
        """Say what is not there to run it; empty: nothing."""
        raise NotImplementedError

    @classmethod
    def version(cls, programs: Programs) -> str:
        raise NotImplementedError

    def start(self) -> None:
        """Bring it up on every host; nothing has been sent through it then."""
        raise NotImplementedError

    def _new_ground(self, seed: int) -> Ground:
        return Ground(seed=seed)

    def address(self, name: str) -> str:
        """Where a host is reached through the overlay."""
        return self._addresses[name]

    def daemons(self) -> list[Process]:
        return self._daemons

    def details(self) -> dict[str, Any]:
        """What is worth knowing of how it runs here."""
        return {}

    def close(self) -> None:
        self.ground.close()

    # --- what several have in common ---

    def _number_hosts(self) -> None:
        self._addresses = {name: f"10.99.0.{number}" for number, name in enumerate(self.ground.hosts, 1)}

    def _others(self, host: Host) -> list[Host]:
        return [other for other in self.ground.hosts.values() if other is not host]

    def _spawn(self, host: Host, *command: str | Path) -> Process:
        daemon = host.spawn(type(self).name, *command)
        self._daemons.append(daemon)
        return daemon


def await_device(host: Host, device: str, daemon: Process) -> None:
    """Wait until the daemon has made its device and given it an address, if it is the one to give it."""

    def there() -> bool:
        if daemon.exit_code is not None:
            raise LabFailure(f"{host.name}: {daemon.name} ended with {daemon.exit_code}{daemon.tail()}")
        return host.run("ip", "link", "show", "dev", device, check=False).returncode == 0

    wait_for(there, f"{host.name}: the device {device}", within_s=STARTED_WITHIN_S, logs=(daemon,))


def await_said(daemon: Process, pattern: str, count: int = 1) -> None:
    """Wait until the daemon's log has so many matches of pattern."""
    wait_for(
        lambda: len(re.findall(pattern, daemon.output())) >= count,
        f"{daemon.host.name}: {daemon.name} saying {pattern!r}",
        within_s=STARTED_WITHIN_S,
        logs=(daemon,),
    )


def debian_version(package: str) -> str:
    """Return the version of a package, installed or unpacked."""
    words = ["dpkg-query", "-W", "-f", "${Version}", package]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout
    with contextlib.suppress(OSError):
        for line in (UNPACKED / "packages").read_text().splitlines():
            if line.split()[:1] == [package]:
                return line.split()[1]
    return "not from a package"


class Bare(Overlay):
    """No overlay: what the wire and the kernel do alone."""

    name = "bare"

    @classmethod
    def missing(cls, programs: Programs) -> str:
        return ""

    @classmethod
    def version(cls, programs: Programs) -> str:
        return "the kernel"

    def start(self) -> None:
        self._addresses = {name: host.addresses[0] for name, host in self.ground.hosts.items()}


class Conflux(Overlay):
    """This tree's, in a realm that alpha made and the others joined over the LAN."""

    name = "conflux"
    realm: Realm

    @classmethod
    def missing(cls, programs: Programs) -> str:
        return ""

    @classmethod
    def version(cls, programs: Programs) -> str:
        said = subprocess.run([CONFLUX, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        git = ["git", "-c", f"safe.directory={TREE}", "-C", str(TREE), "describe", "--always", "--dirty"]
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
        return f"{said} {commit}".strip()

    def start(self) -> None:
        self.realm = self.ground.lab.realm(*self.ground.hosts.values())
        self._note_addresses()

    def details(self) -> dict[str, Any]:
        """Which datapath runs, in the daemon's own words: the lists in its answer are left out."""
        datapath = self.realm.daemons["alpha"].status()["datapath"]
        return {key: value for key, value in datapath.items() if isinstance(value, str | int | float)}

    def _note_addresses(self) -> None:
        self._addresses = {name: host.overlay_addresses()[0] for name, host in self.ground.hosts.items()}
        self._daemons = list(self.realm.daemons.values())
        wait_for(
            self._acquainted, "all neighbours knowing each other", within_s=STARTED_WITHIN_S, logs=self.realm.logs()
        )

    def _acquainted(self) -> bool:
        return all(
            len(host.conflux_json("status")["control"][0]["neighbours"]) >= len(self.ground.hosts) - 1
            for host in self.ground.hosts.values()
        )


class ConfluxOverRelay(Conflux):
    """The same on two LANs that only a third node joins."""

    path = "relay"

    def _new_ground(self, seed: int) -> Ground:
        return RelayedGround(seed=seed)

    def start(self) -> None:
        assert isinstance(self.ground, RelayedGround)
        self.realm = self.ground.joined.realm
        self._note_addresses()

    def _acquainted(self) -> bool:
        return True  # the ground has waited for that


class WireGuardGo(Overlay):
    """WireGuard in user space, the version that the distribution has."""

    name = "wireguard-go"

    @classmethod
    def program(cls, programs: Programs) -> Path | None:
        return programs.installed("wireguard-go")

    @classmethod
    def missing(cls, programs: Programs) -> str:
        if programs.installed("wg") is None:
            return "wg (wireguard-tools) not found"
        return "" if cls.program(programs) else "wireguard-go not found"

    @classmethod
    def version(cls, programs: Programs) -> str:
        program = cls.program(programs)
        assert program is not None
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
        return said if program == programs.given(program.name) else f"{said} ({debian_version('wireguard-go')})"

    def start(self) -> None:
        program = self.program(self._programs)
        assert program is not None
        self._number_hosts()
        keys = {}
        for name, host in self.ground.hosts.items():
            secret = host.run("wg", "genkey").stdout
            (host.state / "wg.key").write_text(secret)
            keys[name] = host.run("sh", "-c", f"wg pubkey <{host.state / 'wg.key'}").stdout.strip()
        for name, host in self.ground.hosts.items():
            device = f"wg-{name}"  # all hosts share /run/wireguard, where a device's control socket gets its name
            daemon = self._spawn(host, program, "--foreground", device)
            await_device(host, device, daemon)
            socket = Path(f"/run/wireguard/{device}.sock")
            wait_for(socket.exists, f"{socket}", within_s=STARTED_WITHIN_S, logs=(daemon,))
            host.run("wg", "set", device, "private-key", host.state / "wg.key", "listen-port", "51820")
            for other in self._others(host):
                peer = [keys[other.name], "endpoint", f"{other.addresses[0]}:51820"]
                host.run("wg", "set", device, "peer", *peer, "allowed-ips", f"{self._addresses[other.name]}/32")
            host.run("ip", "addr", "add", f"{self._addresses[name]}/24", "dev", device)
            host.run("ip", "link", "set", device, "up")


class WireGuardGoGiven(WireGuardGo):
    """WireGuard in user space, the version in a directory that the caller names."""

    name = "wireguard-go-new"

    @classmethod
    def program(cls, programs: Programs) -> Path | None:
        return programs.given("wireguard-go", "wireguard")  # the second is what `go install` makes

    @classmethod
    def missing(cls, programs: Programs) -> str:
        found = super().missing(programs)
        return found.replace("wireguard-go not found", "no directory given that has it (OVERLAYS=…)")


class Nebula(Overlay):
    """Certificates, and UDP between hosts that are told where the others are."""

    name = "nebula"

    @classmethod
    def missing(cls, programs: Programs) -> str:
        return "" if programs.installed("nebula") and programs.installed("nebula-cert") else "nebula not found"

    @classmethod
    def version(cls, programs: Programs) -> str:
        return f"nebula {debian_version('nebula')}"

    def start(self) -> None:
        self._number_hosts()
        state = self.ground.lab.state
        alpha = self.ground["alpha"]
        ca = ("-ca-crt", state / "ca.crt", "-ca-key", state / "ca.key")
        alpha.run("nebula-cert", "ca", "-name", "bench", "-out-crt", state / "ca.crt", "-out-key", state / "ca.key")
        for name, host in self.ground.hosts.items():
            crt, key = host.state / "host.crt", host.state / "host.key"
            ip = ("-ip", f"{self._addresses[name]}/24")
            alpha.run("nebula-cert", "sign", *ca, "-name", name, *ip, "-out-crt", crt, "-out-key", key)
            anybody = [{"port": "any", "proto": "any", "host": "any"}]
            config = {
                "pki": {"ca": str(state / "ca.crt"), "cert": str(crt), "key": str(key)},
                "static_host_map": {
                    self._addresses[other.name]: [f"{other.addresses[0]}:4242"] for other in self._others(host)
                },
                "lighthouse": {"am_lighthouse": False, "hosts": []},
                "listen": {"host": "0.0.0.0", "port": 4242},
                "tun": {"dev": "nebula0"},
                "firewall": {"outbound": anybody, "inbound": anybody},
            }
            path = host.state / "nebula.yml"
            path.write_text(json.dumps(config))  # JSON is YAML
            daemon = self._spawn(host, "nebula", "-config", path)
            await_device(host, "nebula0", daemon)
            await_said(daemon, "Nebula interface is active")


class Tinc(Overlay):
    """tinc 1.0 in router mode, every host connecting to those before it."""

    name = "tinc"

    @classmethod
    def missing(cls, programs: Programs) -> str:
        return "" if programs.installed("tincd") else "tincd not found"

    @classmethod
    def version(cls, programs: Programs) -> str:
        return f"tinc {debian_version('tinc')}"

    def start(self) -> None:
        self._number_hosts()
        hosts = list(self.ground.hosts.values())
        public = {host.name: self._configure(host, hosts[: hosts.index(host)]) for host in hosts}
        for host in hosts:
            for name, text in public.items():
                (host.state / "tinc" / "hosts" / name).write_text(text)
        for host in hosts:
            files = ("--config", host.state / "tinc", "--pidfile", host.state / "tinc.pid")
            daemon = self._spawn(host, "tincd", "--no-detach", "--debug=2", *files)
            await_device(host, "tinc0", daemon)
        for host in hosts:
            await_said(self._daemons[hosts.index(host)], r"Connection with \S+ \(.*\) activated", len(hosts) - 1)

    def _configure(self, host: Host, earlier: list[Host]) -> str:
        """Write a host's own files and return what the others need to know of it."""
        directory = host.state / "tinc"
        (directory / "hosts").mkdir(parents=True)
        lines = [f"Name = {host.name}", "Interface = tinc0", *(f"ConnectTo = {other.name}" for other in earlier)]
        (directory / "tinc.conf").write_text("\n".join(lines) + "\n")
        up = directory / "tinc-up"
        up.write_text(f"#!/bin/sh\nip link set tinc0 up\nip addr add {self._addresses[host.name]}/24 dev tinc0\n")
        up.chmod(0o755)
        own = directory / "hosts" / host.name
        own.write_text(f"Address = {host.addresses[0]}\nSubnet = {self._addresses[host.name]}/32\n")
        host.run("tincd", "--config", directory, "--generate-keys=2048")
        return own.read_text()


class Yggdrasil(Overlay):
    """A mesh over TCP; alpha and charlie connect to bravo, alpha to charlie."""

    name = "yggdrasil"

    @classmethod
    def missing(cls, programs: Programs) -> str:
        return "" if programs.installed("yggdrasil") else "yggdrasil not found"

    @classmethod
    def version(cls, programs: Programs) -> str:
        return f"yggdrasil {debian_version('yggdrasil')}"

    def start(self) -> None:
        hosts = [self.ground[name] for name in ("bravo", "charlie", "alpha")]
        for number, host in enumerate(hosts):
            config: dict[str, Any] = json.loads(host.run("yggdrasil", "-genconf", "-json").stdout)
            config |= {
                "Listen": [f"tcp://{host.addresses[0]}:9001"],
                "Peers": [f"tcp://{other.addresses[0]}:9001" for other in hosts[:number]],
                "MulticastInterfaces": [],
                "AdminListen": "none",
            }
            path = host.state / "yggdrasil.conf"
            path.write_text(json.dumps(config))
            daemon = self._spawn(host, "yggdrasil", "-useconffile", path, "-logto", "stdout")
            self._addresses[host.name] = host.run("yggdrasil", "-useconffile", path, "-address").stdout.strip()
            await_said(daemon, r"Interface \w+: \S+|Interface name: \S+")
            if number:
                await_said(daemon, "Connected", number)


class NeedsACoordinator(Overlay):
    """An overlay whose hosts only find each other through a server that is not part of it."""

    daemon: ClassVar[str]
    coordinator: ClassVar[str]

    @classmethod
    def missing(cls, programs: Programs) -> str:
        if not (programs.given(cls.daemon) or programs.installed(cls.daemon)):
            return f"{cls.daemon} not found"
        return f"{cls.daemon} found, not measured: it does not run without {cls.coordinator}"


class Tailscale(NeedsACoordinator):
    name = "tailscale"
    daemon = "tailscaled"
    coordinator = "a coordination server, its maker's or a headscale"


class NetBird(NeedsACoordinator):
    name = "netbird"
    daemon = "netbird"
    coordinator = "a management and a signal server"


ALL: tuple[type[Overlay], ...] = (
    Bare,
    Conflux,
    ConfluxOverRelay,
    WireGuardGo,
    WireGuardGoGiven,
    Nebula,
    Tinc,
    Yggdrasil,
    Tailscale,
    NetBird,
)
