"""A relay is revoked while real daemons run: its own stream, its links and the route through it end, on LANs and far.

LANs      alpha ──a── rod, ruth ──b── bravo         rod made the realm; ruth is revoked
broker    alpha, bravo, gate, rod, ruth, server     gate made the realm; rod and ruth are public relays; nothing passes
                                                    between alpha and bravo, and no node is on a LAN
"""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Any

from rig.broker import Broker, broker_detail, is_on_broker, until_on_broker
from rig.enter import add_figures
from rig.joined_lans import SIDE_BY_SIDE, JoinedLans
from rig.topology import Host, Lab, Process, Realm, wait_for

from conflux.api.rows import Streams
from conflux.cli.revoke import RevokedNodes

REVOKED_S_MAX = 5.0  # from the command to the last packet, on every node
OTHER_S_MAX = 5.0  # until a stream goes on by another relay: 0.3 s as a rule, more on a busy machine


def reply_times(ping: Process) -> list[float]:
    """Return when each reply came, in Unix seconds."""
    return [float(at) for at in re.findall(r"^\[([0-9.]+)\] .* bytes from ", ping.output(), re.MULTILINE)]


def ping(host: Host, to: Host) -> Process:
    """Send five packets a second to a host until the lab ends, and return when the first are answered."""
    process = host.spawn("ping", "ping", "-D", "-n", "-i", "0.2", to.overlay_addresses()[1])
    wait_for(lambda: len(reply_times(process)) > 5, "replies", within_s=20, logs=(process,))
    return process


def links(host: Host) -> set[str]:
    """Return the ids of the nodes to which a host has an open link."""
    return {row.node for row in host.status().links if row.link}


def path(host: Host, to: Host) -> list[str]:
    """Return the relays of a host's stream to another: names of neighbours, and ids of nodes further away."""
    rows = [row for row in host.ask(Streams, "streams").streams if row.name == to.name]
    found = next((row.path or () for row in rows if row.direction == "out"), ())
    return list(found[:-1])


def revoke_relay(realm: Realm, by: Host, ends: tuple[Host, Host], relays: tuple[Host, Host], *options: str) -> float:
    """Revoke the first relay, which carries, and return the seconds after which nothing of it was left.

    Fails if it takes too long, or if the stream does not go on by the other relay.
    """
    (alpha, bravo), (revoked, other) = ends, relays
    ids = {host.name: host.status().node.id for host in relays}
    carried = ping(alpha, bravo)

    def is_by(relay: Host, host: Host, to: Host) -> bool:
        return path(host, to) in ([relay.name], [ids[relay.name]])

    for host, to in ((alpha, bravo), (bravo, alpha)):
        if not is_by(revoked, host, to):
            host.conflux("route", "move", to.name, "--via", ids[revoked.name])
    own = [ping(revoked, alpha), ping(bravo, revoked)]
    assert is_by(revoked, alpha, bravo), realm.tails()
    assert is_by(revoked, bravo, alpha), realm.tails()
    began = time.time()
    words = ("realm", "revoke", revoked.name, "--reason", "stolen", *options)
    command = by.spawn("revoke", by.lab.program, *words, "--config", by.configured())

    def ended(host: Host, to: Host) -> bool:
        return not is_by(revoked, host, to) and ids[revoked.name] not in links(host)

    for host, to in ((alpha, bravo), (bravo, alpha)):
        what = f"{host.name} without {revoked.name}"
        wait_for(partial(ended, host, to), what, within_s=10, logs=realm.logs())
    took_s = time.time() - began  # with the time that it takes to ask
    for host, to in ((alpha, bravo), (bravo, alpha)):
        what = f"{host.name} by {other.name}"
        wait_for(partial(is_by, other, host, to), what, within_s=OTHER_S_MAX, logs=realm.logs())
    assert command.wait(10) == 0, command.output()
    time.sleep(REVOKED_S_MAX)
    last_s = max(max(reply_times(each)) for each in own) - began
    assert last_s < REVOKED_S_MAX, realm.tails()
    assert took_s < REVOKED_S_MAX, realm.tails()
    times = [at for at in reply_times(carried) if at > began]
    gaps_s = [later - earlier for earlier, later in zip([began, *times], [*times, time.time()], strict=True)]
    assert max(gaps_s) < OTHER_S_MAX, realm.tails()
    print(f"last packet {last_s:.2f} s after, links and route {took_s:.2f} s after, longest gap {max(gaps_s):.2f} s")
    return max(last_s, took_s, 0.0)


def test_revoked_relay_loses_its_stream_its_links_and_the_route_through_it_on_lans(lab: Lab) -> None:
    lans = JoinedLans(lab, SIDE_BY_SIDE)
    rod, ruth = lans["rod"], lans["ruth"]
    lans.speak("alpha", "bravo")
    took_s = revoke_relay(lans.realm, rod, (lans["alpha"], lans["bravo"]), (ruth, rod))
    add_figures("control.json", {"revoke_relay_s": round(took_s, 3)})


def far_realm(lab: Lab) -> tuple[Realm, Broker]:
    """Return a realm whose nodes know each other by a broker alone."""
    lan = lab.lan()
    gate, alpha, bravo, rod, ruth, server = (
        lab.host(name, lan) for name in ("gate", "alpha", "bravo", "rod", "ruth", "server")
    )
    for host, other in ((alpha, bravo), (bravo, alpha)):
        v4, v6 = other.addresses
        host.filter(f"incoming ip saddr {v4} drop", f"incoming ip6 saddr {v6} drop")
    gate.conflux("realm", "create", "far", "--node", "gate")
    broker = Broker(gate, server)
    broker.start()
    settings: dict[str, dict[str, Any]] = {"control.nats": broker.settings(), "control.lan": {"enabled": False}}
    for host in (alpha, bravo):
        host.configure(settings)
    gate.configure({**settings, "relay": {"enabled": False}})
    for host in (rod, ruth):
        host.configure({**settings, "relay": {"public": True}})
    realm = Realm(gate, created=True)
    for host in (alpha, bravo, rod, ruth):
        realm.admit_by_file(host)
    until_on_broker(realm, gate, alpha, bravo, rod, ruth)
    return realm, broker


def test_revoked_relay_loses_all_that_over_a_broker_which_admits_it_no_more(lab: Lab) -> None:
    realm, broker = far_realm(lab)
    gate, alpha, bravo, rod, ruth = (lab.hosts[name] for name in ("gate", "alpha", "bravo", "rod", "ruth"))
    took_s = revoke_relay(realm, gate, (alpha, bravo), (ruth, rod), "--broker", str(broker.directory))
    add_figures("control.json", {"revoke_broker_s": round(took_s, 3)})
    wait_for(lambda: not is_on_broker(realm, ruth), "ruth off the broker", within_s=5, logs=realm.logs())
    detail = broker_detail(realm, ruth)
    assert detail.startswith("refused"), detail
    warnings = realm.daemons["ruth"].status().warnings
    assert any(warning.startswith("revoked: this node was revoked") for warning in warnings), warnings
    assert is_on_broker(realm, rod)
    assert alpha.ask(RevokedNodes, "realm", "revoked").revoked[0].reason == "stolen"
