"""The overlays that are measured: how each is started on the hosts of a ground, its addresses, and its end.

      alpha        bravo       charlie       every pair may talk; alpha and bravo are measured
      daemon       daemon      daemon        in the overlay's own addresses: 10.99.0.1, .2, .3, or what it gives out

Each is set up as its manual sets up a first network, with all defaults, and gets its peers' addresses; Conflux finds
them itself.  An overlay that is not installed is left out by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from overlays.ground import BetweenGround, Ground, RelayedGround
from overlays.rivals import BUILT, read_notes
from rig.enter import TREE
from rig.topology import CONFLUX, Host, LabFailure, Process, Realm, wait_for

STARTED_WITHIN_S = 20
UNPACKED = TREE / "build" / "overlays"
LIGHTHOUSE_S = 3  # until it has heard of every host, which no log tells of
NOT_GIVEN = "not built: `make rivals` does (or OVERLAYS=DIR names where it is)"


class Programs:
    """Finds programs: in the directories given, on PATH, or where .ci/prepare unpacked them.

    What `make rivals` built counts as given too, after the other directories.
    """

    def __init__(self, directories: Iterable[Path] = (), built: Path = BUILT) -> None:
        self._directories = (*(directory.resolve() for directory in directories), built)
        self._notes = read_notes(built)
        self._built = built
        unpacked = [str(UNPACKED / name) for name in ("usr/bin", "usr/sbin", "bin", "sbin")]
        os.environ["PATH"] = os.pathsep.join((os.environ["PATH"], *unpacked))
        found = (UNPACKED.glob(f"{lib}/*-linux-*") for lib in ("lib", "usr/lib"))  # Debian 12 still has both
        if libraries := [str(directory) for directories in found for directory in directories]:
            os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)

    def given(self, *names: str) -> Path | None:
        """Return the first of these names in the directories given."""
        found = (directory / name for directory in self._directories for name in names)
        return next((path for path in found if path.is_file()), None)

    def version_given(self, program: str, rival: str) -> str:
        """Return the version of a program in the directories given: as it was built here, or where it is from."""
        path = self.given(program)
        if path is not None and path.parent == self._built and rival in self._notes.versions:
            return self._notes.versions[rival]
        return f"{rival} from {path.parent if path else 'nowhere'}"

    def why_absent(self, rival: str) -> str:
        """Return why a rival is not in the directories given."""
        return self._notes.absent.get(rival, NOT_GIVEN)

    def absent(self) -> dict[str, str]:
        """Return what `make rivals` left out, and why."""
        return dict(self._notes.absent)

    def installed(self, name: str) -> Path | None:
        """Return a program on PATH or unpacked, or None."""
        found = shutil.which(name)
        return Path(found) if found else None


class Overlay:
    """One way for hosts to reach each other, made anew for each round on a ground of its own."""

    name: ClassVar[str]
    path: ClassVar[str] = "direct"  # or "relay": how packets get from alpha to bravo

    def __init__(self, programs: Programs, *, seed: int) -> None:
        self._programs = programs
        self.ground = self._new_ground(seed)
        self._addresses: dict[str, str] = {}
        self._daemons: list[Process] = []

    @classmethod
    def missing(cls, programs: Programs) -> str:
        """Return what is missing to run it; empty if nothing."""
        raise NotImplementedError

    @classmethod
    def version(cls, programs: Programs) -> str:
        """Return the version as the report shows it."""
        raise NotImplementedError

    def start(self) -> None:
        """Bring it up on every host, without sending anything through it.  Raises LabFailure."""
        raise NotImplementedError

    def _new_ground(self, seed: int) -> Ground:
        return Ground(seed=seed)

    def address(self, name: str) -> str:
        """Return the address of a host in the overlay."""
        return self._addresses[name]

    def daemons(self) -> list[Process]:
        """Return the overlay's processes, whose time and memory are measured."""
        return self._daemons

    def details(self) -> dict[str, Any]:
        """Return what is worth knowing of how it runs here."""
        return {}

    def close(self) -> None:
        """End every program."""
        self.ground.close()

    # --- shared by several ---

    def _number_hosts(self) -> None:
        self._addresses = {name: f"10.99.0.{number}" for number, name in enumerate(self.ground.hosts, 1)}

    def _others(self, host: Host) -> list[Host]:
        return [other for other in self.ground.hosts.values() if other is not host]

    def _spawn(self, host: Host, *command: str | Path) -> Process:
        daemon = host.spawn(type(self).name, *command)
        self._daemons.append(daemon)
        return daemon


def await_device(host: Host, device: str, daemon: Process) -> None:
    """Wait until the daemon has made its device.  Raises LabFailure."""

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
    """No overlay: the wire and the kernel alone."""

    name = "bare"

    @classmethod
    def missing(cls, programs: Programs) -> str:
        """See Overlay."""
        return ""

    @classmethod
    def version(cls, programs: Programs) -> str:
        """See Overlay."""
        return "the kernel"

    def start(self) -> None:
        """See Overlay."""
        self._addresses = {name: host.addresses[0] for name, host in self.ground.hosts.items()}


class Conflux(Overlay):
    """This tree's Conflux, in a realm that alpha made and the others joined over the LAN."""

    name = "conflux"
    realm: Realm

    @classmethod
    def missing(cls, programs: Programs) -> str:
        """See Overlay."""
        return ""

    @classmethod
    def version(cls, programs: Programs) -> str:
        """See Overlay."""
        said = subprocess.run([CONFLUX, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        git = ["git", "-c", f"safe.directory={TREE}", "-C", str(TREE), "describe", "--always", "--dirty"]
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
        return f"{said} {commit}".strip()

    def start(self) -> None:
        """See Overlay."""
        self.realm = self.ground.lab.realm(*self.ground.hosts.values())
        self._note_addresses()

    def details(self) -> dict[str, Any]:
        """Return which datapath runs, as the daemon reports it, without the lists in its answer."""
        datapath = self.realm.daemons["alpha"].status().datapath
        return {key: value for key, value in datapath._asdict().items() if isinstance(value, str | int | float)}

    def _note_addresses(self) -> None:
        self._addresses = {name: host.overlay_addresses()[0] for name, host in self.ground.hosts.items()}
        self._daemons = list(self.realm.daemons.values())
        wait_for(
            self._acquainted, "all neighbours knowing each other", within_s=STARTED_WITHIN_S, logs=self.realm.logs()
        )

    def _acquainted(self) -> bool:
        return all(
            len(host.status().control[0].neighbours) >= len(self.ground.hosts) - 1
            for host in self.ground.hosts.values()
        )


class ConfluxOverRelay(Conflux):
    """The same on two LANs that only a third node bridges."""

    path = "relay"

    def _new_ground(self, seed: int) -> Ground:
        return RelayedGround(seed=seed)

    def start(self) -> None:
        """See Overlay."""
        assert isinstance(self.ground, RelayedGround)
        self.realm = self.ground.joined.realm
        self._note_addresses()

    def _acquainted(self) -> bool:
        return True  # the ground has waited for it


class WireGuardGo(Overlay):
    """WireGuard in user space, in the distribution's version."""

    name = "wireguard-go"

    @classmethod
    def program(cls, programs: Programs) -> Path | None:
        """Return the program that is measured, or None."""
        return programs.installed("wireguard-go")

    @classmethod
    def missing(cls, programs: Programs) -> str:
        """See Overlay."""
        if programs.installed("wg") is None:
            return "wg (wireguard-tools) not found"
        return "" if cls.program(programs) else "wireguard-go not found"

    @classmethod
    def version(cls, programs: Programs) -> str:
        """See Overlay."""
        program = cls.program(programs)
        assert program is not None
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
        return said if program == programs.given(program.name) else f"{said} ({debian_version('wireguard-go')})"

    def start(self) -> None:
        """See Overlay."""
        program = self.program(self._programs)
        assert program is not None
        self._number_hosts()
        keys = {}
        for name, host in self.ground.hosts.items():
            secret = host.run("wg", "genkey").stdout
            (host.state / "wg.key").write_text(secret)
            keys[name] = host.run("sh", "-c", f"wg pubkey <{host.state / 'wg.key'}").stdout.strip()
        for name, host in self.ground.hosts.items():
            device = f"wg-{name}"  # all hosts share /run/wireguard, which has a control socket by device name
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
    """WireGuard in user space, the newest: see rivals.py."""

    name = "wireguard-go-new"

    @classmethod
    def program(cls, programs: Programs) -> Path | None:
        """See WireGuardGo."""
        return programs.given("wireguard-go", "wireguard")  # the second is what `go install` makes

    @classmethod
    def missing(cls, programs: Programs) -> str:
        """See Overlay."""
        found = super().missing(programs)
        return programs.why_absent("wireguard-go") if found == "wireguard-go not found" else found

    @classmethod
    def version(cls, programs: Programs) -> str:
        """See Overlay."""
        program = cls.program(programs)
        assert program is not None
        return programs.version_given(program.name, "wireguard-go")


class Nebula(Overlay):
    """Certificates, and UDP between hosts that are configured with the others' addresses."""

    name = "nebula"
    network_option: ClassVar[str] = "-ip"
    beside: ClassVar[dict[str, dict[str, Any]]] = {}  # settings that its first network does not need

    @classmethod
    def program(cls, programs: Programs, name: str) -> Path | None:
        """Return nebula or nebula-cert, or None."""
        return programs.installed(name)

    @classmethod
    def missing(cls, programs: Programs) -> str:
        """See Overlay."""
        return "" if programs.installed("nebula") and programs.installed("nebula-cert") else "nebula not found"

    @classmethod
    def version(cls, programs: Programs) -> str:
        """See Overlay."""
        return f"nebula {debian_version('nebula')}"

    def start(self) -> None:
        """See Overlay."""
        self._number_hosts()
        state = self.ground.lab.state
        alpha = self.ground["alpha"]
        nebula, cert = (self.program(self._programs, name) for name in ("nebula", "nebula-cert"))
        assert nebula is not None
        assert cert is not None
        ca = ("-ca-crt", state / "ca.crt", "-ca-key", state / "ca.key")
        alpha.run(cert, "ca", "-name", "bench", "-out-crt", state / "ca.crt", "-out-key", state / "ca.key")
        for name, host in self.ground.hosts.items():
            crt, key = host.state / "host.crt", host.state / "host.key"
            network = (self.network_option, f"{self._addresses[name]}/24")
            alpha.run(cert, "sign", *ca, "-name", name, *network, "-out-crt", crt, "-out-key", key)
            anybody = [{"port": "any", "proto": "any", "host": "any"}]
            config: dict[str, Any] = {
                "pki": {"ca": str(state / "ca.crt"), "cert": str(crt), "key": str(key)},
                **self._places(host),
                "listen": {"host": "0.0.0.0", "port": 4242, **self.beside.get("listen", {})},
                "tun": {"dev": "nebula0", **self.beside.get("tun", {})},
                "firewall": {"outbound": anybody, "inbound": anybody},
            }
            path = host.state / "nebula.yml"
            path.write_text(json.dumps(config))  # JSON is YAML
            daemon = self._spawn(host, nebula, "-config", path)
            await_device(host, "nebula0", daemon)
            await_said(daemon, "Nebula interface is active")

    def _places(self, host: Host) -> dict[str, Any]:
        """Return the settings that tell a host where the others are."""
        known = {self._addresses[other.name]: [f"{other.addresses[0]}:4242"] for other in self._others(host)}
        return {"static_host_map": known, "lighthouse": {"am_lighthouse": False, "hosts": []}}


class NebulaGiven(Nebula):
    """The newest nebula, as it comes: see rivals.py."""

    name = "nebula-new"
    network_option = "-networks"

    @classmethod
    def program(cls, programs: Programs, name: str) -> Path | None:
        """See Nebula."""
        return programs.given(name)

    @classmethod
    def missing(cls, programs: Programs) -> str:
        """See Overlay."""
        return "" if programs.given("nebula") and programs.given("nebula-cert") else programs.why_absent("nebula")

    @classmethod
    def version(cls, programs: Programs) -> str:
        """See Overlay."""
        return programs.version_given("nebula", "nebula")


class NebulaOffloads(NebulaGiven):
    """The same with the offloads that 1.12 has and does not switch on by itself."""

    name = "nebula-offloads"
    beside: ClassVar[dict[str, dict[str, Any]]] = {"tun": {"use_offloads": True}, "listen": {"udp_offloads": True}}


class NebulaOffloadsOverRelay(NebulaOffloads):
    """The same over rod, which is lighthouse and relay of the others."""

    path = "relay"

    def _new_ground(self, seed: int) -> Ground:
        return BetweenGround(seed=seed)

    def start(self) -> None:
        """See Overlay."""
        super().start()
        time.sleep(LIGHTHOUSE_S)

    def _places(self, host: Host) -> dict[str, Any]:
        rod = self.ground["rod"]
        name = self._addresses["rod"]
        if host is rod:
            return {"lighthouse": {"am_lighthouse": True, "hosts": []}, "relay": {"am_relay": True}}
        at = next(rod.addresses[2 * rod.lans.index(lan)] for lan in host.lans)  # IPv4 and IPv6 of each LAN
        return {
            "static_host_map": {name: [f"{at}:4242"]},
            "lighthouse": {"am_lighthouse": False, "hosts": [name]},
            "relay": {"relays": [name], "use_relays": True},
        }


class Tinc(Overlay):
    """tinc 1.0 in router mode, every host connecting to those before it."""

    name = "tinc"

    @classmethod
    def missing(cls, programs: Programs) -> str:
        """See Overlay."""
        return "" if programs.installed("tincd") else "tincd not found"

    @classmethod
    def version(cls, programs: Programs) -> str:
        """See Overlay."""
        return f"tinc {debian_version('tinc')}"

    def start(self) -> None:
        """See Overlay."""
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
        """Write a host's own files and return the file that the others need."""
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
    calm_s: ClassVar[int] = 0  # how long its tree takes, which no log tells of

    @classmethod
    def program(cls, programs: Programs) -> Path | None:
        """Return the program that is measured, or None."""
        return programs.installed("yggdrasil")

    @classmethod
    def missing(cls, programs: Programs) -> str:
        """See Overlay."""
        return "" if cls.program(programs) else "yggdrasil not found"

    @classmethod
    def version(cls, programs: Programs) -> str:
        """See Overlay."""
        return f"yggdrasil {debian_version('yggdrasil')}"

    def start(self) -> None:
        """See Overlay."""
        program = self.program(self._programs)
        assert program is not None
        hosts = [self.ground[name] for name in ("bravo", "charlie", "alpha")]
        for number, host in enumerate(hosts):
            config: dict[str, Any] = json.loads(host.run(program, "-genconf", "-json").stdout)
            config |= {
                "Listen": [f"tcp://{host.addresses[0]}:9001"],
                "Peers": [f"tcp://{other.addresses[0]}:9001" for other in hosts[:number]],
                "MulticastInterfaces": [],
                "AdminListen": "none",
            }
            path = host.state / "yggdrasil.conf"
            path.write_text(json.dumps(config))
            daemon = self._spawn(host, program, "-useconffile", path, "-logto", "stdout")
            self._addresses[host.name] = host.run(program, "-useconffile", path, "-address").stdout.strip()
            await_said(daemon, r"Interface \w+: \S+|Interface name: \S+")
            if number:
                await_said(daemon, "Connected", number)
        time.sleep(self.calm_s)


class YggdrasilGiven(Yggdrasil):
    """The newest yggdrasil: see rivals.py."""

    name = "yggdrasil-new"
    calm_s = 6

    @classmethod
    def program(cls, programs: Programs) -> Path | None:
        """See Yggdrasil."""
        return programs.given("yggdrasil")

    @classmethod
    def missing(cls, programs: Programs) -> str:
        """See Overlay."""
        return "" if cls.program(programs) else programs.why_absent("yggdrasil")

    @classmethod
    def version(cls, programs: Programs) -> str:
        """See Overlay."""
        return programs.version_given("yggdrasil", "yggdrasil")


class NeedsACoordinator(Overlay):
    """An overlay whose hosts find each other only through a server outside of it."""

    daemon: ClassVar[str]
    coordinator: ClassVar[str]

    @classmethod
    def missing(cls, programs: Programs) -> str:
        """See Overlay."""
        if not (programs.given(cls.daemon) or programs.installed(cls.daemon)):
            return f"{cls.daemon} not found"
        return f"{cls.daemon} found, not measured: it does not run without {cls.coordinator}"


class Tailscale(NeedsACoordinator):
    """Not measured: its hosts need a coordination server."""

    name = "tailscale"
    daemon = "tailscaled"
    coordinator = "a coordination server, its maker's or a headscale"


class NetBird(NeedsACoordinator):
    """Not measured: its hosts need a management and a signal server."""

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
    NebulaGiven,
    NebulaOffloads,
    NebulaOffloadsOverRelay,
    Tinc,
    Yggdrasil,
    YggdrasilGiven,
    Tailscale,
    NetBird,
)
