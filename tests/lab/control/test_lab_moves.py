"""A running realm moves from its LAN to a broker and back: nothing is restarted, no key changes, no stream ends.

alpha ──┐
bravo ──┼── br0        broker: a NATS server that the founder sets up while the realm runs
broker ─┘
"""

from __future__ import annotations

import signal
from pathlib import Path

from rig.broker import Broker, broker_row, until_on_broker
from rig.topology import Host, Lab, Realm, wait_for

from conflux.api.rows import ChannelRow

COUNT = 3000  # more than it takes: the flow is stopped at the end


def keys_of(host: Host) -> tuple[bytes, tuple[str, str]]:
    """What has to stay as it is: the node's keys, and its addresses."""
    return Path(host.state, "state", "node.key").read_bytes(), host.overlay_addresses()


def lan_rows(realm: Realm, host: Host) -> list[ChannelRow]:
    """Return what a host's status says of its LAN."""
    return [row for row in realm.daemons[host.name].status().control if row.name == "lan"]


def test_running_realm_moves_to_a_broker_and_back_without_losing_a_stream(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo, server = (lab.host(name, lan) for name in ("alpha", "bravo", "broker"))
    realm = lab.realm(alpha, bravo)
    before = keys_of(alpha), keys_of(bravo)
    pids = [realm.daemons[host.name].pid for host in (alpha, bravo)]
    address = bravo.overlay_addresses()[1]
    alpha.first_answer_ms(address)
    flow = alpha.spawn("flow", "ping", "-n", "-i", "0.1", "-c", str(COUNT), "-W", "2", address)

    # LAN alone: nobody has heard of a broker.
    assert broker_row(realm, alpha) is broker_row(realm, bravo) is None

    # The founder sets one up.  Members hear of it, are given an admission, and connect.
    broker = Broker(alpha, server)
    assert "Members are told now" in broker.said
    broker.start()
    until_on_broker(realm, alpha, bravo, within_s=40)

    # Without the LAN's control connection: by the broker alone.
    for host in (alpha, bravo):
        host.filter("incoming tcp dport 7464 drop", "outgoing tcp dport 7464 drop")
        host.block_multicast()
    wait_for(
        lambda: all(not row.neighbours for host in (alpha, bravo) for row in lan_rows(realm, host)),
        "no neighbour on the LAN",
        within_s=60,
        logs=realm.logs(),
    )
    bravo.conflux("ping", "alpha", "-c", "2", "-i", "0.2")

    # Back to the LAN: the notice is taken back, and the broker goes.
    for host in (alpha, bravo):
        host.run("nft", "delete", "table", "inet", "lab")
    wait_for(
        lambda: all(row.neighbours for host in (alpha, bravo) for row in lan_rows(realm, host)),
        "neighbours on the LAN again",
        within_s=60,
        logs=realm.logs(),
    )
    assert "Members are told now" in alpha.conflux("control", "announce", "--none").stdout
    wait_for(
        lambda: broker_row(realm, alpha) is broker_row(realm, bravo) is None,
        "nobody uses the broker",
        within_s=20,
        logs=realm.logs(),
    )
    broker.servers[0].kill()
    bravo.conflux("ping", "alpha", "-c", "2", "-i", "0.2")

    flow.signal(signal.SIGINT)
    assert flow.wait(20) == 0
    assert " 0% packet loss" in flow.output(), flow.tail() + realm.tails()
    assert (keys_of(alpha), keys_of(bravo)) == before
    assert [realm.daemons[host.name].pid for host in (alpha, bravo)] == pids
