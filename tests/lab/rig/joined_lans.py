"""A realm over several LANs that share only middle nodes, for the relay labs and the demo.

one relay        alpha ──a── rod ──b── bravo
two in a row     alpha ──a── rod ──m── ruth ──b── bravo
two side by side alpha ──a── rod ──b── bravo,  alpha ──a── ruth ──b── bravo

No host forwards IP: whatever passes from one LAN to another was carried by Conflux.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from rig.topology import Host, Lab, LabFailure, Realm, wait_for

from conflux.api.move import Moved
from conflux.api.rows import StreamRow, Streams

ONE_RELAY = {"alpha": "a", "rod": "ab", "bravo": "b"}
TWO_IN_A_ROW = {"alpha": "a", "rod": "am", "ruth": "mb", "bravo": "b"}
SIDE_BY_SIDE = {"alpha": "a", "rod": "ab", "ruth": "ab", "bravo": "b"}


class JoinedLans:
    """Hosts by name, each on the LANs that wiring gives it as letters.

    The first host on several LANs makes the realm.  Its neighbours could join over the LAN; hosts behind another middle
    node could not, as joining takes a direct connection to the issuer.  So requests and answers are carried as files.
    wrapped: commands that start the daemons of the hosts named.
    """

    def __init__(
        self, lab: Lab, wiring: Mapping[str, str], wrapped: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        self.lab = lab
        lans = {letter: lab.lan(letter) for letter in sorted({letter for at in wiring.values() for letter in at})}
        self.hosts = {name: lab.host(name, *(lans[letter] for letter in at)) for name, at in wiring.items()}
        self._wiring = dict(wiring)
        for host in self.hosts.values():
            if any(host.run("cat", f"/proc/sys/net/{path}").stdout != "0\n" for path in _FORWARDING):
                raise LabFailure(f"{host.name} forwards IP")
        root = next(self.hosts[name] for name, at in wiring.items() if len(at) > 1)
        self.realm = Realm(root)
        wrapped = wrapped or {}
        for host in self.hosts.values():
            if host is not root:
                self.realm.admit_by_file(host, *wrapped.get(host.name, ()))
        if root.name in wrapped:
            self.realm.daemons[root.name].down()
            self.realm.restart(root, *wrapped[root.name])
        self.await_joined()
        self.nodes = {name: host.status().node for name, host in self.hosts.items()}

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def await_joined(self) -> None:
        """Wait until every running daemon has its neighbours and knows which of them bridge LANs."""
        for host in self.hosts.values():
            if self.realm.daemons[host.name].exit_code is None:
                wait_for(
                    partial(self._has_its_neighbours, host),
                    f"{host.name} having the neighbours {self._expected(host)}",
                    within_s=20,
                    logs=self.realm.logs(),
                )

    def _has_its_neighbours(self, host: Host) -> bool:
        return self._neighbours(host) == self._expected(host)

    def _neighbours(self, host: Host) -> dict[str, bool]:
        (channel,) = host.status().control
        return {neighbour.name: neighbour.bridging for neighbour in channel.neighbours}

    def _expected(self, host: Host) -> dict[str, bool]:
        return {
            other: len(at) > 1
            for other, at in self._wiring.items()
            if other != host.name
            and set(at) & set(self._wiring[host.name])
            and self.realm.daemons[other].exit_code is None
        }

    def await_idle(self, within_s: float = 20) -> None:
        """Wait until no daemon has a data-plane socket."""
        self.realm.await_idle(within_s=within_s)

    def speak(self, *names: str) -> None:
        """Have nodes broadcast a question for an unused address, so that every node knows of them from then on."""
        unused = self.hosts[names[0]].overlay_addresses()[1].rpartition(":")[0] + ":1"
        asking = [self.hosts[name].spawn("ask", "ping", "-n", "-c", "1", "-W", "1", unused) for name in names]
        for ping in asking:
            ping.wait(10)

    def stream(self, host: str, to: str) -> StreamRow:
        """Return the row of the stream that host sends to another."""
        rows = self.hosts[host].ask(Streams, "streams").streams
        found = [row for row in rows if row.name == to and row.direction == "out"]
        if len(found) != 1:
            raise LabFailure(f"{host}: {len(found)} streams to {to}{self.realm.tails()}")
        return found[0]

    def path(self, host: str, to: str) -> list[str]:
        """Return the relays of host's stream to another, by name; empty if it is direct, or has no path."""
        names = {node.id: name for name, node in self.nodes.items()}
        return [names.get(hop, hop) for hop in (self.stream(host, to).path or (to,))[:-1]]

    def with_names(self, text: str) -> str:
        """Replace node ids by names; nodes know far relays by their ids alone."""
        for name, node in self.nodes.items():
            text = text.replace(node.id, name)
        return text

    def move(self, host: str, to: str, *via: str) -> float:
        """Move host's stream onto the relays named and return the milliseconds that took."""
        relays = ",".join(self.nodes[name].id for name in via)  # names of far relays are not known to the host
        return self.hosts[host].ask(Moved, "route", "move", to, "--via", relays).took_ms


_FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
