"""Two sites, a member on the public side, and the realm's own broker.

    alpha ── a-router ── line ──┐                              ┌── broker      nats-server, and a STUN server
                                ├────────── public ────────────┤
    bravo ── b-router ── line ──┘                              └── charlie     a public relay; it made the realm

Without routers, alpha and bravo are on the public side themselves, each behind its line.  A line of 20 ms there and
back makes the broker 20 ms away from a board, and one board 40 ms from the other.
"""

from __future__ import annotations

import re
import time
from typing import Any

from rig.broker import Broker, Server
from rig.home import Home, Lines, Mapping, serve_stun
from rig.topology import Host, Lab, LabFailure, Realm, wait_for

from conflux.api.rows import Streams
from conflux.control.lists import SETTLE_S

BOARDS = ("alpha", "bravo")


def _begin_slowly(host: Host) -> None:
    """Have TCP send ten segments and wait for their acknowledgement, as on most boards, whatever this machine does."""
    host.run("sysctl", "-q", "-w", "net.ipv4.tcp_congestion_control=reno")


class TwoSites:
    """Hosts by name, their realm and its daemons.  mapping: of both routers; None: the boards have public addresses."""

    def __init__(self, lab: Lab, mapping: Mapping | None, *, rtt_ms: float = 0.0) -> None:
        """rtt_ms: of each board's line, there and back; 0: no line."""
        self.lab = lab
        public = lab.lan("public")
        server, self.charlie = lab.host("broker", public), lab.host("charlie", public)
        _begin_slowly(server)
        address, port = serve_stun(server)
        self.charlie.conflux("realm", "create", "sites", "--node", "charlie")
        self.broker = Broker(self.charlie, server)
        self.broker.start()
        self.homes: list[Home] = []
        if mapping is None:
            boards = [lab.host(name, public) for name in BOARDS]
            ends = boards
        else:
            self.homes = [Home(lab, name, public, mapping) for name in ("a", "b")]
            boards = [home.board(lab, name) for home, name in zip(self.homes, BOARDS, strict=True)]
            ends = [home.router for home in self.homes]
        for board in boards:
            _begin_slowly(board)
        self.alpha, self.bravo = boards
        self.lines = Lines(public, tuple(ends), rtt_ms=rtt_ms) if rtt_ms else None
        settings: dict[str, dict[str, Any]] = {"control.nats": self.broker.settings()}
        if mapping is None:  # or multicast would make them neighbours
            settings["control.lan"] = {"enabled": False}
        self.charlie.configure({**settings, "relay": {"public": True}})
        for board in boards:
            board.configure({**settings, "link": {"ice_servers": [f"stun:{address}:{port}"]}})
        self.realm = self._form()
        self.await_broker()

    def _form(self) -> Realm:
        """Start the founder, and admit the boards by files that are carried."""
        realm = Realm(self.charlie, created=True)
        for board in (self.alpha, self.bravo):
            realm.admit_by_file(board)
        return realm

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The members' hosts."""
        return self.alpha, self.bravo, self.charlie

    @property
    def server(self) -> Server:
        """The only server of the broker."""
        return self.broker.servers[0]

    def close(self) -> None:
        """End what the lab does not know of."""
        if self.lines is not None:
            self.lines.close()

    # ── what is seen ──

    def is_up(self, host: Host) -> bool:
        """Say whether a host's daemon is connected to the broker, by the last word of its log."""
        said = re.findall(r"nats: (up|down)\n", self.realm.daemons[host.name].output())
        return bool(said) and said[-1] == "up"

    def await_broker(self, *, up: bool = True, within_s: float = 20) -> float:
        """Wait until every daemon is connected to the broker, or none is; return the seconds that took."""
        started = time.monotonic()
        wait_for(
            lambda: all(self.is_up(host) is up for host in self.hosts),
            f"every daemon {'connected to' if up else 'missing'} the broker",
            within_s=within_s,
            logs=(*self.realm.logs(), self.server.process),
        )
        return time.monotonic() - started

    def forget(self) -> None:
        """Start the boards' daemons anew: they know no card then, and no path; wait until they take streams."""
        for board in (self.alpha, self.bravo):
            self.realm.daemons[board.name].down()
            self.realm.restart(board)
        self.await_broker()
        self.alpha.run("sleep", str(SETTLE_S + 0.2), within_s=10)

    def relays(self, host: Host, to: Host) -> list[str]:
        """Return the relays of host's stream to another, by name; empty: it is direct.  Raises LabFailure."""
        rows = host.ask(Streams, "streams").streams
        paths = [row.path for row in rows if row.name == to.name and row.direction == "out"]
        if len(paths) != 1 or not paths[0]:
            raise LabFailure(f"{host.name}: no stream to {to.name}, or without a path: {rows}{self.realm.tails()}")
        names = {each.status().node.id: each.name for each in self.hosts}  # where no card has them
        return [names.get(hop, hop) for hop in paths[0][:-1]]

    def speak_by(self, sender: Host, receiver: Host, relays: list[str]) -> None:
        """Open a stream that leads by these relays, none for a direct path.  Raises LabFailure after three streams.

        On a busy machine a direct link may take longer than a public relay is waited for; the stream then leads by the
        relay, and the next one tries the direct path again.
        """
        address = receiver.overlay_addresses()[1]
        for _ in range(3):
            sender.ping(address, "-c", "5", "-i", "0.2", "-W", "8")
            if (found := self.relays(sender, receiver)) == relays:
                return
            self.await_idle()
        raise LabFailure(f"{sender.name} to {receiver.name}: by {found}, not {relays}{self.realm.tails()}")

    def await_idle(self) -> float:
        """Wait until no daemon has a data-plane socket; return the seconds that took."""
        return self.realm.await_idle(within_s=25)
