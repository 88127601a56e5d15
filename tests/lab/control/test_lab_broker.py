"""What a daemon on a broker costs at rest, and how long it waits when its server is in trouble.

alpha ──────────────┐
bravo ──────────────┤                    alpha knows the first and second server, bravo the third; they share no LAN
charlie, delta ─────┼── br0              for Conflux, as charlie and delta do
first, second, third┘                    a NATS server each, with TLS: one cluster
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from kit.figures import note
from rig import gauge
from rig.broker import Broker, Server, broker_detail, count_broker, counted, is_on_broker, until_on_broker
from rig.topology import SETTINGS, Host, Lab, Realm, wait_for

from conflux.control.nats.config import PAIR_PING_S

ETHERNET_BYTES = 14  # of a frame, beside what nftables counts
REST_S = PAIR_PING_S  # one ping of each connection
SETTLE_S = 5.0


class Far:
    """alpha and bravo on a broker of three servers, and on no LAN."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.lan = lab.lan()
        self.alpha, self.bravo, *hosts = (
            lab.host(name, self.lan) for name in ("alpha", "bravo", "first", "second", "third")
        )
        self.alpha.conflux("realm", "create", "lab", "--node", "alpha")
        self.broker = Broker(self.alpha, *hosts)
        self.broker.start()
        *self.two, third = self.broker.servers
        self.alpha.configure({"control.nats": self.broker.settings(self.two), "control.lan": {"enabled": False}})
        self.bravo.configure({"control.nats": self.broker.settings([third]), "control.lan": {"enabled": False}})
        self.realm = Realm(self.alpha, created=True)
        until_on_broker(self.realm, self.alpha)
        self.realm.admit(self.bravo, self.realm.invite())
        until_on_broker(self.realm, self.bravo)

    def main(self) -> Server:
        """Return the server that alpha uses, not the one that it has in reserve."""
        detail = broker_detail(self.realm, self.alpha).partition(", in reserve ")[0]
        return next(server for server in self.two if f" {server.address}:" in detail)

    def settle(self) -> None:
        """Wait until alpha has both connections, and no link is open."""
        wait_for(
            lambda: "in reserve" in broker_detail(self.realm, self.alpha),
            "alpha's second connection",
            within_s=40,
            logs=self.realm.logs(),
        )
        self.realm.await_idle(within_s=20)

    def delay_s(self, sender: Host, receiver: Host, server: Server, trouble: Callable[[Server], None]) -> float:
        """Return how long a first packet takes while a server is in trouble; mend it then."""
        self.settle()
        trouble(server)
        delay_s = sender.first_answer_ms(receiver.overlay_addresses()[1]) / 1000
        wait_for(lambda: self.main() is not server, "the other server is the main one", within_s=5)
        server.heal()
        return delay_s


@pytest.fixture(scope="module")
def far() -> Iterator[Far]:
    """The two, for all tests of this file."""
    lab = Lab(SETTINGS)
    yield Far(lab)
    lab.close()


def test_two_nodes_without_a_lan_find_each_other_and_rest_cheaply(far: Far) -> None:
    note("first_packet_broker_lan_ms", far.alpha.first_answer_ms(far.bravo.overlay_addresses()[1]))
    assert far.bravo.first_answer_ms(far.alpha.overlay_addresses()[1]) < 5000
    far.settle()

    time.sleep(SETTLE_S)
    count_broker(far.alpha)
    before = counted(far.alpha)
    time.sleep(REST_S)
    after = counted(far.alpha)
    packets, octets = after.packets - before.packets, after.bytes - before.bytes
    kb_per_min = (octets + ETHERNET_BYTES * packets) / 1000 * 60 / REST_S
    note("idle_kb_per_min_2", kb_per_min)
    assert packets > 0, "the pings are part of it"
    assert kb_per_min < 0.7
    assert is_on_broker(far.realm, far.alpha)


@pytest.mark.parametrize(
    ("trouble", "within_s"), [(Server.kill, 3), (Server.hang, 10), (Server.cut_off, 10)], ids=["kill", "hang", "cut"]
)
def test_new_link_waits_for_another_server(far: Far, trouble: Callable[[Server], None], within_s: float) -> None:
    far.settle()
    delay_s = far.delay_s(far.alpha, far.bravo, far.main(), trouble)
    note(f"new_link_after_{trouble.__name__}_s", delay_s)
    assert delay_s < within_s


@pytest.mark.parametrize("trouble", [Server.hang, Server.cut_off], ids=["hang", "cut"])
def test_node_that_only_waits_gets_a_new_link_although_its_server_is_in_trouble(
    far: Far, trouble: Callable[[Server], None]
) -> None:
    far.settle()
    delay_s = far.delay_s(far.bravo, far.alpha, far.main(), trouble)
    note(f"new_link_to_who_waits_after_{trouble.__name__}_s", delay_s)
    assert delay_s < 10


def test_daemon_on_a_lan_and_a_broker_stays_small(far: Far) -> None:
    charlie, delta = (far.lab.host(name, far.lan) for name in ("charlie", "delta"))
    token = far.realm.invite(2)
    for host in (charlie, delta):
        host.conflux("join", token, "--name", host.name)
        host.configure({"control.nats": {"enabled": False}})
        far.realm.restart(host)
    ping = ("-c", "3", "-i", "0.3", "-W", "5")
    assert charlie.ping(delta.overlay_addresses()[1], *ping).lost == 0
    far.realm.await_idle(within_s=20)
    alone = far.realm.daemons["charlie"].memory()
    note("pss_lan_mb", alone.pss_mb)
    note("allocated_lan_mb", alone.allocated_mb)
    for host in (charlie, delta):
        far.realm.daemons[host.name].down()
        host.configure({"control.nats": far.broker.settings()})
        far.realm.restart(host)
    until_on_broker(far.realm, charlie, delta)
    assert charlie.ping(delta.overlay_addresses()[1], *ping).lost == 0
    wait_for(lambda: "in reserve" in broker_detail(far.realm, charlie), "a second connection", within_s=20)
    far.realm.await_idle(within_s=20)
    pid = far.realm.daemons["charlie"].pid
    memory = gauge.memory(pid)
    note("pss_mb", memory.pss_mb)
    note("allocated_mb", memory.allocated_mb)
    print(memory, gauge.memory_parts(pid))
    assert memory.pss_mb < 55
