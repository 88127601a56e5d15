"""Joining from afar with real daemons: boards that share no LAN with the issuer, by a token alone.

alpha ─── home ─── broker ─── away ─── bravo, charlie        the broker's host is also the router between the two

The figure goes to build/control.json.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace

from rig import join_flood
from rig.broker import PORT, Broker, until_on_broker
from rig.days import pass_days
from rig.enter import add_figures
from rig.topology import Host, Lab, Realm, wait_for

from conflux.cli.approval import Pending
from conflux.cli.members import Members
from conflux.realm.invite import Token

# What a machine that runs other things too can be held to.  Alone it has to be under 2 s, program start included.
JOIN_S_MAX = 4.0


class Afar:
    """alpha at home with a broker that both sites reach, and boards elsewhere, on no LAN of alpha's."""

    def __init__(self, lab: Lab, *boards: str) -> None:
        home, away = lab.lan("home"), lab.lan("away")
        self.alpha, self.server = lab.host("alpha", home), lab.host("broker", home, away)
        self.boards = [lab.host(name, away) for name in boards]
        self.server.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        for host in (self.alpha, *self.boards):  # the broker's host is the router; multicast does not pass it
            near = self.server.addresses[0 if host is self.alpha else 2]
            host.run("ip", "route", "add", "default", "via", near)
        self.realm = Realm(self.alpha)
        self.broker = Broker(self.alpha, self.server)
        self.broker.start()
        until_on_broker(self.realm, self.alpha)


def joins(host: Host, token: str) -> float:
    """Have a board join with a token; return the seconds that took."""
    began = time.monotonic()
    host.conflux("join", token, "--name", host.name)
    return time.monotonic() - began


def test_board_at_another_site_joins_by_its_token_and_needs_no_configuration(lab: Lab) -> None:
    afar = Afar(lab, "bravo", "charlie")
    bravo, charlie = afar.boards
    took_s = joins(bravo, afar.realm.invite())
    add_figures("control.json", {"join_broker_s": round(took_s, 3)})
    assert took_s < JOIN_S_MAX
    afar.realm.restart(bravo)
    until_on_broker(afar.realm, bravo)
    answer = bravo.conflux("ping", "alpha", "-c", "2", "-i", "0.2", within_s=30)  # by links over the router
    assert "2 answered" in answer.stdout

    # With a person who approves, over the broker too.
    joining = charlie.spawn(
        "join",
        lab.program,
        "join",
        afar.realm.invite(1, "--approve"),
        "--name",
        "charlie",
        "--config",
        charlie.configured(),
    )
    wait_for(lambda: afar.alpha.ask(Pending, "realm", "pending").pending, "charlie waits", within_s=10)
    afar.alpha.conflux("realm", "approve", "charlie")
    assert joining.wait(20) == 0, joining.tail()


def test_board_that_was_off_for_five_weeks_is_renewed_over_the_broker_alone(lab: Lab) -> None:
    afar = Afar(lab, "bravo")
    (bravo,) = afar.boards
    joins(bravo, afar.realm.invite())
    afar.realm.restart(bravo)
    until_on_broker(afar.realm, bravo)
    for host in (bravo, afar.alpha):
        afar.realm.daemons[host.name].down()
    pass_days(35, afar.alpha, bravo)
    afar.realm.restart(afar.alpha)  # it renews itself
    until_on_broker(afar.realm, afar.alpha)
    afar.realm.restart(bravo)

    def warns() -> bool:
        return any(warning.startswith("expired") for warning in bravo.status().warnings)

    wait_for(lambda: not warns(), "bravo is renewed", within_s=30, logs=afar.realm.logs())
    answer = bravo.conflux("ping", "alpha", "-c", "2", "-i", "0.2", within_s=30)
    assert "2 answered" in answer.stdout, afar.realm.tails()


def test_board_joins_by_a_board_between_two_lans(lab: Lab) -> None:
    """alpha ── front ── rod ── back ── bravo: rod is no issuer, and bravo does not reach alpha."""
    front, back = lab.lan("front"), lab.lan("back")
    alpha, rod, bravo = lab.host("alpha", front), lab.host("rod", front, back), lab.host("bravo", back)
    realm = lab.realm(alpha, rod)
    wait_for(
        lambda: realm.daemons["rod"].status().control[0].neighbours,
        "rod is alpha's neighbour",
        within_s=10,
        logs=realm.logs(),
    )
    assert joins(bravo, realm.invite()) < JOIN_S_MAX
    realm.restart(bravo)
    answer = bravo.conflux("ping", "alpha", "-c", "2", "-i", "0.2", within_s=30)
    assert "2 answered" in answer.stdout, realm.tails()


def test_used_expired_and_guessed_tokens_let_nobody_in(lab: Lab) -> None:
    afar = Afar(lab, "bravo", "charlie")
    bravo, charlie = afar.boards
    used, short = afar.realm.invite(), afar.realm.invite(1, "--ttl", "1s")
    joins(bravo, used)
    refused = charlie.conflux("join", used, "--name", "charlie", check=False)
    assert "has been used already" in refused.stderr
    refused = charlie.conflux("join", short, "--name", "charlie", check=False)
    assert "expired" in refused.stderr, refused.stderr
    guessed = replace(Token.parse(used), secret=os.urandom(16)).format()
    refused = charlie.conflux("join", guessed, "--name", "charlie", check=False)
    assert "not its own" in refused.stderr, refused.stderr
    names = [row.name for row in afar.alpha.ask(Members, "realm", "members").members]
    assert sorted(names) == ["alpha", "bravo"]


def test_flood_of_joins_leaves_another_board_its_time(lab: Lab) -> None:
    afar = Afar(lab, "bravo", "thief")
    bravo, _ = afar.boards
    stolen, token = afar.realm.invite(), afar.realm.invite()
    ca = afar.broker.ca
    thief = afar.boards[1].spawn("flood", sys.executable, join_flood.__file__, stolen, ca)
    wait_for(
        lambda: afar.realm.daemons["alpha"].status().drops.get("join-flood", 0) > 200,
        "the flood at the issuer",
        within_s=15,
        logs=(thief, *afar.realm.logs()),
    )
    took_s = joins(bravo, token)
    assert thief.exit_code is None
    assert took_s < JOIN_S_MAX


def test_two_realms_on_one_host_do_not_take_each_others_boards(lab: Lab) -> None:
    afar = Afar(lab, "zulu", "bravo")
    zulu, bravo = afar.boards
    others = Realm(zulu, "other")
    Broker(zulu, afar.server, port=PORT + 1).start()
    until_on_broker(others, zulu)
    ours, theirs = Token.parse(afar.realm.invite()), Token.parse(others.invite())
    assert ours.broker is not None
    assert theirs.broker is not None
    strange = replace(ours, broker=replace(theirs.broker, admission=ours.broker.admission)).format()
    refused = bravo.conflux("join", strange, "--name", "bravo", check=False)
    assert "does not admit this node" in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr, refused.stderr
    joins(bravo, ours.format())
    assert [row.name for row in others.root.ask(Members, "realm", "members").members] == ["zulu"]
