"""Hosts, LANs and daemons for the demo, the labs and the whole-program figures.

      Lab                                         every box is a network namespace
      +-----------+   +-----------+   +-----------+
      |   alpha   |   |   bravo   |   |  charlie  |      Host: runs programs, among them the daemon
      |   eth0    |   |   eth0    |   |   eth0    |      10.7.1.11/24, fd00:7:1::11/64, and so on
      +-----+-----+   +-----+-----+   +-----+-----+
            |veth           |veth           |veth
      +-----+---------------+---------------+-----+
      |                    br0                    |      Lan: a bridge in a namespace of its own; multicast floods
      +-------------------------------------------+

Runs only inside what enter.py opens.  Nothing here is taken down: the kernel does that when PID 1 ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from kit.plain import python_in
from rig import gauge
from rig.enter import STATE, TREE
from rig.rows import read

from conflux.api.rows import Status
from conflux.shell.feed import EventRow

T = TypeVar("T")

CONFLUX = TREE / ".venv" / "bin" / "conflux"
POLL_S = 0.02  # between two looks while waiting
LOG_LINES_SHOWN = 25

# Short enough that a test can wait for idleness, long enough that a busy machine does not go idle by accident.
SETTINGS: dict[str, dict[str, Any]] = {"stream": {"idle_timeout": 2.0}, "link": {"linger": 0.5}}


class LabFailure(AssertionError):
    """Something did not happen.  The text says what, and shows the end of the logs."""


def wait_for(fact: Callable[[], T | None], what: str, *, within_s: float, logs: tuple[Process, ...] = ()) -> T:
    """Poll fact() and return its first true value.

    Raises LabFailure naming what, after within_s.
    """
    deadline = time.monotonic() + within_s
    while True:
        if value := fact():
            return value
        if time.monotonic() > deadline:
            tails = "".join(log.tail() for log in logs)
            raise LabFailure(f"not within {within_s:g} s: {what}{tails}")
        time.sleep(POLL_S)


class Process:
    """A program running on a host, its output in a file."""

    def __init__(self, host: Host, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        self.host = host
        self.name = host.enlist(self, name)
        self.log = host.state / f"{self.name}.log"
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                [*host.enter, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,  # so that Ctrl-C reaches this process alone
            )
        self.pid = self._popen.pid  # nsenter becomes the program

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while it runs, minus the signal's number if a signal ended it."""
        return self._popen.poll()

    def wait(self, within_s: float) -> int:
        """Return the exit code.  Raises LabFailure if it is still running then."""
        try:
            return self._popen.wait(within_s)
        except subprocess.TimeoutExpired:
            raise LabFailure(f"{self.host.name}: {self.name} still runs after {within_s:g} s{self.tail()}") from None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """End it with SIGKILL, like a power cut."""
        self._popen.kill()
        self._popen.wait()

    def output(self) -> str:
        """Return everything it has printed."""
        return self.log.read_text(errors="replace")

    def tail(self) -> str:
        """Return the end of its output with a heading, to stand under an error."""
        lines = self.output().splitlines()[-LOG_LINES_SHOWN:]
        return f"\n--- {self.host.name}: end of {self.name}.log\n" + "\n".join(f"    {line}" for line in lines)


class Daemon(Process):
    """`conflux up --foreground` on a host, past its READY=1."""

    def __init__(self, host: Host, command: list[str]) -> None:
        notify = host.state / "notify"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(notify))
            notified.setblocking(False)
            started = time.monotonic()
            super().__init__(host, "daemon", command, {"NOTIFY_SOCKET": str(notify)})

            def ready() -> bool:
                if self.exit_code is not None:
                    raise LabFailure(f"{host.name}: the daemon ended with {self.exit_code}{self.tail()}")
                with contextlib.suppress(BlockingIOError):
                    return b"READY=1" in notified.recv(4096).split(b"\n")
                return False

            wait_for(ready, f"{host.name}: READY=1 from the daemon", within_s=20, logs=(self,))
            self.ready_s = time.monotonic() - started

    def status(self) -> Status:
        """Return what `conflux status` says of it."""
        return self.host.status()

    def sockets(self) -> list[str]:
        """Return its data-plane sockets; see gauge."""
        return gauge.data_plane_sockets(self.pid)

    def memory(self) -> gauge.Memory:
        """Return its memory."""
        return gauge.memory(self.pid)

    def down(self) -> None:
        """Stop it as `systemctl stop` does.  Raises LabFailure unless it exits with 0."""
        self.signal(signal.SIGTERM)
        if code := self.wait(10):
            raise LabFailure(f"{self.host.name}: the daemon ended with {code} on SIGTERM{self.tail()}")

    def require_plain(self) -> None:
        """Raise LabFailure if a line of its log shows a value of Python."""
        if "Traceback" not in self.output():
            for line in self.output().splitlines():
                if (found := python_in(line)) is not None:
                    raise LabFailure(f"{self.host.name}: the log has {found}: {line}")


class Watch:
    """`conflux watch` on a host with a daemon: the events of its node."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._process = host.spawn("watch", host.lab.program, "watch", "--json", "--config", host.config)
        self._read = 0

    def new(self) -> list[EventRow]:
        """Return the events that came since the last call; that the daemon ended is none."""
        lines = self._process.output()[self._read :].splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        self._read += sum(map(len, whole))
        found = [json.loads(line) for line in whole if line.startswith("{")]
        return [read(EventRow, each) for each in found if "event" in each]

    def connected(self) -> bool:
        """Return whether it has reached the daemon; earlier events are not seen."""
        return gauge.has_unix_connection(self._process.pid)


class Host:
    """A network namespace with one Ethernet device per LAN it is on."""

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        self.lab = lab
        self.name = name
        self.number = number
        self.state = lab.state / name
        self.state.mkdir()
        self.namespace = f"{lab.number}-{name}"
        self.enter = (*new_namespace(self.namespace), "--")
        self.addresses: list[str] = []  # underlay, one IPv4 and one IPv6 address per LAN
        self.lans: list[Lan] = []
        self.config = self.state / "conflux.toml"
        self._processes: list[Process] = []

    def run(self, *command: str | Path, within_s: float = 30, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program to its end.  Raises LabFailure with its output if check and it fails."""
        words = [*self.enter, *map(str, command)]
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise LabFailure(f"{self.name}: {' '.join(map(str, command))}: no end after {within_s:g} s") from None
        if check and done.returncode:
            output = (done.stdout + done.stderr).strip()
            raise LabFailure(f"{self.name}: {' '.join(map(str, command))}: exit {done.returncode}\n{output}")
        return done

    def spawn(self, name: str, *command: str | Path, environment: Mapping[str, str] | None = None) -> Process:
        """Start a program; a later one of the same name gets a log of its own."""
        return Process(self, name, list(map(str, command)), environment or {})

    def enlist(self, process: Process, name: str) -> str:
        """Note a process that is about to start; return a name that no process on this host had before."""
        self._processes.append(process)
        earlier = sum(other.name.split(".")[0] == name for other in self._processes[:-1])
        return f"{name}.{earlier + 1}" if earlier else name

    def close(self) -> None:
        """Kill every process that still runs here."""
        for process in self._processes:
            if process.exit_code is None:
                process.kill()

    def require_plain(self) -> None:
        """Raise LabFailure if a line of a daemon's log shows a value of Python."""
        for process in self._processes:
            if isinstance(process, Daemon):
                process.require_plain()

    def iperf3(self, server: Host, address: str, *options: str, seconds: int = 3) -> float:
        """Return the Mbit/s that arrived at the other end.  options: of iperf3's client; --reverse turns it round.

        Every run gets a server of its own: a server that stays closes its socket for a moment after each test.
        """
        serving = server.serve_iperf3()
        command = ["iperf3", "--client", address, "--json", "--time", str(seconds), *options]
        rate = gauge.iperf3_mbit(self.run(*command, within_s=seconds + 20).stdout)
        serving.wait(5)
        return rate

    def serve_iperf3(self) -> Process:
        """Start an iperf3 server for one test and return it when it listens."""
        serving = self.spawn("iperf3-server", "iperf3", "--server", "--one-off", "--forceflush")
        wait_for(lambda: "listening" in serving.output(), "iperf3 listening", within_s=5, logs=(serving,))
        return serving

    def first_answer_ms(self, address: str) -> float:
        """Send one packet and return how long its answer took.  Raises LabFailure if none comes within 10 s."""
        reply = self.ping(address, "-c", "1", "-W", "10")
        if reply.lost:
            raise LabFailure(f"{self.name}: no answer from {address}")
        return reply.times_ms[0]

    def ping(self, address: str, *options: str, within_s: float = 30) -> gauge.Pings:
        """Run ping and return its report; the caller judges lost packets."""
        return gauge.pings(self.run("ping", "-n", *options, address, check=False, within_s=within_s).stdout)

    # --- conflux ---

    def configure(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Write conflux.toml; the state directory is the host's own."""
        merged: dict[str, dict[str, Any]] = {"node": {"state_dir": str(self.state / "state"), "log_level": "debug"}}
        for section, values in (*self.lab.settings.items(), *settings.items()):
            merged[section] = {**merged.get(section, {}), **values}
        lines = []
        for section, values in merged.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
        self.config.write_text("\n".join(lines))  # strings, numbers, booleans and lists are alike in JSON and TOML

    def configured(self) -> Path:
        """Return its conflux.toml; write it with the lab's settings if there is none."""
        if not self.config.exists():
            self.configure({})
        return self.config

    def conflux(self, *arguments: str, check: bool = True, within_s: float = 30) -> subprocess.CompletedProcess[str]:
        """Run one `conflux` command to its end, with this host's configuration."""
        return self.run(self.lab.program, *arguments, "--config", self.configured(), check=check, within_s=within_s)

    def ask(self, kind: type[T], *arguments: str) -> T:
        """Run one `conflux` command and return its answer.  Raises LabFailure if that is of another kind."""
        answer = json.loads(self.conflux(*arguments, "--json").stdout)
        try:
            return read(kind, answer)
        except ValueError as error:
            raise LabFailure(f"{self.name}: conflux {' '.join(arguments)}: {error}") from None

    def status(self) -> Status:
        """Return what `conflux status` says."""
        return self.ask(Status, "status")

    def daemon(self, *wrapper: str) -> Daemon:
        """Start the daemon and return it when it is ready.  wrapper: a command that executes its arguments."""
        return Daemon(self, [*wrapper, str(self.lab.program), "up", "--foreground", "--config", str(self.configured())])

    def overlay_addresses(self, device: str = "conflux0") -> tuple[str, str]:
        """Return its IPv4 and IPv6 address on the TUN device."""
        found = {}
        for link in json.loads(self.run("ip", "-json", "addr", "show", "dev", device).stdout):
            found.update({a["family"]: a["local"] for a in link["addr_info"] if a["scope"] == "global"})
        return found["inet"], found["inet6"]

    # --- the wire ---

    def unplug(self) -> None:
        """Pull its cables: the devices lose their carrier and keep their addresses."""
        for lan in self.lans:
            lan.switch_port(self, "down")

    def plug_in(self) -> None:
        """Put its cables back."""
        for lan in self.lans:
            lan.switch_port(self, "up")

    def wire(self) -> gauge.Traffic:
        """Return what eth0 has carried so far."""
        return gauge.traffic(self.run("ip", "-json", "-s", "link", "show", "dev", "eth0").stdout)

    def filter(self, *rules: str) -> None:
        """Add nftables rules; each is "incoming|outgoing ..." in nft's own words."""
        commands = [
            "add table inet lab",
            "add chain inet lab incoming { type filter hook input priority 0; }",
            "add chain inet lab outgoing { type filter hook output priority 0; }",
            *(f"add rule inet lab {rule}" for rule in rules),
        ]
        self.run("nft", "; ".join(commands))

    def count_data_plane(self) -> None:
        """Start counting UDP packets of this host that are not mDNS."""
        self.filter(
            f"incoming udp dport != {gauge.MDNS_PORT} counter",
            f"outgoing udp dport != {gauge.MDNS_PORT} counter",
        )

    def data_plane(self) -> gauge.Count:
        """Return the count since count_data_plane(), both directions together."""
        return gauge.count(self.run("nft", "-j", "list", "table", "inet", "lab").stdout)

    def block_multicast(self) -> None:
        """Drop mDNS, as Wi-Fi access points with client isolation do; neighbour discovery of IPv6 goes on."""
        self.filter(
            "incoming udp dport 5353 counter drop",
            "outgoing udp dport 5353 counter drop",
        )

    def lose(self, permille: int) -> None:
        """Drop this share of all arriving UDP packets, at random."""
        self.filter(f"incoming meta l4proto udp numgen random mod 1000 < {permille} counter drop")


class Lan:
    """A bridge in a namespace of its own."""

    def __init__(self, name: str, number: int) -> None:
        self.number = number
        self.enter = (*new_namespace(name), "--")
        self._ip("link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
        self._ip("link", "set", "br0", "up")

    def attach(self, host: Host) -> None:
        """Give host an Ethernet device on this LAN, with an IPv4 and an IPv6 address."""
        device = f"eth{len(host.addresses) // 2}"
        port = port_name(host)
        self._ip("link", "add", port, "type", "veth", "peer", "name", device, "netns", host.namespace)
        self._ip("link", "set", port, "master", "br0", "up")
        ipv4 = f"10.7.{self.number}.{10 + host.number}"
        ipv6 = f"fd00:7:{self.number}::{10 + host.number}"
        host.run("ip", "link", "set", device, "up")
        host.run("ip", "addr", "add", f"{ipv4}/24", "brd", "+", "dev", device)
        host.run("ip", "addr", "add", f"{ipv6}/64", "dev", device, "nodad")
        host.addresses += [ipv4, ipv6]
        host.lans.append(self)

    def device_of(self, host: Host) -> str:
        """Return the name of a host's device on this LAN."""
        return f"eth{host.lans.index(self)}"

    def switch_port(self, host: Host, state: str) -> None:
        """Switch the bridge's port to host "up" or "down"."""
        self._ip("link", "set", port_name(host), state)

    def shrink_port(self, host: Host, mtu: int) -> None:
        """Have the bridge's port to host lose larger packets without a word; host's own device keeps its MTU."""
        self._ip("link", "set", port_name(host), "mtu", str(mtu), "gso_max_segs", "1")

    def _ip(self, *words: str) -> None:
        subprocess.run([*self.enter, "ip", *words], check=True)


class Realm:
    """A realm made on one host, and the daemons of its members."""

    def __init__(self, root: Host, name: str = "lab", *, created: bool = False) -> None:
        """created: root has made it already."""
        self.root = root
        if not created:
            root.conflux("realm", "create", name, "--node", root.name)
        self.daemons = {root.name: root.daemon()}

    def invite(self, count: int = 1, *options: str) -> str:
        """Return a token for so many members."""
        done = self.root.conflux("realm", "invite", "--quiet", "--count", str(count), *options)
        return done.stdout.split()[-1]

    def admit(self, host: Host, token: str, *options: str) -> Daemon:
        """Join host with the token and start its daemon."""
        host.conflux("join", token, "--name", host.name, *options)
        daemon = self.daemons[host.name] = host.daemon()
        return daemon

    def admit_by_file(self, host: Host, *wrapper: str) -> Daemon:
        """Join a host that cannot reach the root: request and answer are carried as files.  Start its daemon."""
        request = host.state / "join.request"
        host.conflux("join", "--request", str(request), "--name", host.name)
        signed = self.root.conflux("realm", "sign", str(request)).stdout
        root = signed.partition("root")[2].partition(":")[0].strip()
        host.conflux("join", "--answer", f"{request}.answer", "--root", root)
        return self.restart(host, *wrapper)

    def restart(self, host: Host, *wrapper: str) -> Daemon:
        """Start the daemon of a host whose daemon has ended."""
        daemon = self.daemons[host.name] = host.daemon(*wrapper)
        return daemon

    def await_idle(self, *, within_s: float, meanwhile: Callable[[], None] = lambda: None) -> float:
        """Wait until no running daemon has a data-plane socket; return the seconds that took.

        meanwhile: called again and again.  Raises LabFailure.
        """
        started = time.monotonic()

        def idle() -> bool:
            meanwhile()
            return not any(daemon.sockets() for daemon in self.daemons.values() if daemon.exit_code is None)

        wait_for(idle, "no data-plane socket on any host", within_s=within_s, logs=self.logs())
        return time.monotonic() - started

    def logs(self) -> tuple[Process, ...]:
        """The daemons, for what shows the end of their logs."""
        return tuple(self.daemons.values())

    def tails(self) -> str:
        """The ends of all daemons' logs."""
        return "".join(daemon.tail() for daemon in self.logs())


class Lab:
    """Hosts and LANs of one test or demo.  Several may follow one another in one process."""

    _count = 0

    def __init__(self, settings: Mapping[str, Mapping[str, Any]] | None = None, *, program: Path = CONFLUX) -> None:
        """settings: of every conflux.toml.  program: the `conflux` command to run."""
        self.program = program
        Lab._count += 1
        self.number = Lab._count
        self.state = STATE / str(self.number)
        self.state.mkdir()
        self.settings = dict(settings or {})
        self.hosts: dict[str, Host] = {}
        self._lans = 0

    def lan(self, name: str = "lan") -> Lan:
        """Make a LAN."""
        self._lans += 1
        return Lan(f"{self.number}-{name}", self._lans)

    def host(self, name: str, *lans: Lan) -> Host:
        """Make a host with one Ethernet device on each of the LANs."""
        host = self.hosts[name] = Host(self, name, len(self.hosts) + 1)
        for lan in lans:
            lan.attach(host)
        return host

    def realm(self, root: Host, *others: Host) -> Realm:
        """Make a realm on root and join the others over the LAN; afterwards every daemon is up."""
        realm = Realm(root)
        if others:
            token = realm.invite(len(others))
            for host in others:
                realm.admit(host, token)
        return realm

    def close(self) -> None:
        """Kill every program, so that the next lab has the processor to itself; namespaces end with PID 1."""
        for host in self.hosts.values():
            host.close()
        for host in self.hosts.values():
            host.require_plain()


def port_name(host: Host) -> str:
    """Return the name of the bridge's port to a host."""
    return f"to-{host.name}"[:15]  # the longest name the kernel allows


def new_namespace(name: str) -> tuple[str, ...]:
    """Make a network namespace and return the words that enter it."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    enter = ("nsenter", f"--net=/run/netns/{name}")
    # No duplicate address detection: these wires have no other hosts, and it takes a second per address.
    script = "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad; ip link set lo up"
    subprocess.run([*enter, "sh", "-c", script], check=True)
    return enter
