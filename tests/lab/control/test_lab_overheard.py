"""What the server of a broker sees of real daemons, from the first token to the end of a membership.

alpha ─── home ─── broker ─── away ─── bravo       the broker's host is also the router between the two
"""

from __future__ import annotations

import ipaddress

from kit.overheard import Overheard, Secrets, check
from rig.broker import Broker, until_on_broker
from rig.days import pass_days
from rig.topology import Lab, Realm, wait_for

from conflux.control.nats.channel import ed25519_of
from conflux.realm.broker import subjects
from conflux.realm.invite import Token
from conflux.state.directory import StateDir

DAYS = 21  # after which a credential of thirty days is due


def test_server_sees_no_more_of_a_whole_membership_than_the_threat_model_says(lab: Lab) -> None:
    home, away = lab.lan("home"), lab.lan("away")
    alpha, server, bravo = lab.host("alpha", home), lab.host("broker", home, away), lab.host("bravo", away)
    server.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    for host, near in ((alpha, 0), (bravo, 2)):  # multicast does not pass the router
        host.run("ip", "route", "add", "default", "via", server.addresses[near])
    realm = Realm(alpha)
    broker = Broker(alpha, server)
    broker.start("--trace")
    until_on_broker(realm, alpha)

    # A join, then a start so late that the credential is renewed at once.
    token = realm.invite()
    bravo.conflux("join", token, "--name", "bravo")
    pass_days(DAYS, bravo)
    daemon = realm.restart(bravo)
    until_on_broker(realm, bravo)
    wait_for(lambda: "renewed this node's credential" in daemon.output(), "a renewal", within_s=20, logs=realm.logs())

    # A question, streams and links both ways, a new name, the end of the membership.
    for sender, receiver in ((alpha, bravo), (bravo, alpha)):
        sender.first_answer_ms(receiver.overlay_addresses()[1])
    overlay = [ipaddress.ip_address(address) for host in (alpha, bravo) for address in host.overlay_addresses()]
    alpha.conflux("realm", "rename", "bravo", "cellar")
    alpha.conflux("realm", "revoke", "cellar", "--reason", "stolen")
    wait_for(lambda: "revoked" in daemon.output(), "bravo knows", within_s=20, logs=realm.logs())

    overheard = Overheard.read(broker.servers[0].process.log.read_bytes())
    members = [StateDir.open(host.state / "state").member() for host in (alpha, bravo)]
    nodes = [member.node_id for member in members if member is not None]
    underlay = [address for host in (alpha, bravo) for address in host.addresses]
    sorts = check(overheard, Secrets(("alpha", "bravo", "cellar"), tuple(nodes), tuple(overlay), tuple(underlay)))
    assert min(sorts[sort] for sort in ("join", "PRESENCE", "WHO", "CARD", "LIST")) > 0, sorts
    assert sorts["sealed"] >= 8, "OPEN, ACCEPT, OFFER, ANSWER, and what renewal and change say"

    # What the page says that it knows.
    parsed = [subjects.parse_untrusted(each.subject) for each in overheard.published]
    keys = [ed25519_of(member.keys.public.encode()) for member in members if member is not None]
    pairs = {(each.sender, each.receiver) for each in parsed if isinstance(each, subjects.Message)}
    assert pairs == {(keys[0], keys[1]), (keys[1], keys[0])}
    assert {each.invite_id for each in parsed if isinstance(each, subjects.Join)} == {Token.parse(token).invite_id}
    assert any(b"stolen" in each.payload for each in overheard.published), "lists travel plain"
