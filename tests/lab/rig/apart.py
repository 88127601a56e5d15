"""Two boards that have a broker alone in common, and what passes the interface of one of them.

alpha, bravo ─── br0 ─── first, a NATS server          no LAN for control messages; links are direct
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rig.broker import Broker, until_on_broker
from rig.topology import Lab, Realm


class Apart:
    """alpha and bravo.  settings: of every conflux.toml, besides."""

    def __init__(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        self.lab = Lab({**settings, "control.lan": {"enabled": False}})
        lan = self.lab.lan()
        self.alpha, self.bravo, first = (self.lab.host(name, lan) for name in ("alpha", "bravo", "first"))
        self.alpha.conflux("realm", "create", "apart", "--node", "alpha")
        broker = Broker(self.alpha, first)
        broker.start()
        for board in (self.alpha, self.bravo):
            board.configure({"control.nats": broker.settings()})
        self.realm = Realm(self.alpha, created=True)
        until_on_broker(self.realm, self.alpha)
        self.realm.admit(self.bravo, self.realm.invite())
        until_on_broker(self.realm, self.bravo)
        self._address = self.bravo.overlay_addresses()[1]
        self._counted_bytes = 0
        self.kb()

    def ping(self) -> float:
        """Send one packet and return after how many milliseconds its answer came."""
        return self.alpha.first_answer_ms(self._address)

    def kb(self) -> float:
        """Return the kilobytes that passed alpha's interface since this was last called, both ways."""
        wire = self.alpha.wire()
        before, self._counted_bytes = self._counted_bytes, wire.rx_bytes + wire.tx_bytes
        return (self._counted_bytes - before) / 1e3

    def close(self) -> None:
        """End every program."""
        self.lab.close()
