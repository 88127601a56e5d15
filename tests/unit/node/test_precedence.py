"""A link's description before a handshake: whose handshakes wait, for how long, and that none is lost."""

from __future__ import annotations

import random

from kit.nodes import id_of

from conflux.carrier.interface import CarrierEnd, Closed, Described, Description
from conflux.control.envelope import Kind
from conflux.control.event import Message
from conflux.ids import BootId
from conflux.link.links import Links
from conflux.node import precedence
from conflux.node.precedence import AHEAD_S, Precedence

ALPHA, BRAVO, CHARLIE = id_of("alpha"), id_of("bravo"), id_of("charlie")
LOCAL = Description("ufrag", "pwd", bytes(32), 5000, 65536, ())


def made() -> tuple[Precedence, Links]:
    rng = random.Random(1)
    links = Links(ALPHA, rng=rng, entropy=rng.randbytes)
    return Precedence(links), links


def open_of(peer=BRAVO, seq=1) -> Message:
    return Message(peer, Kind.OPEN, b"", seq, 0, BootId(bytes(8)))


def dialled(links: Links):
    links.acquire(BRAVO, "user", now=0.0)
    return links.next_command().link


def test_handshake_waits_while_the_description_of_the_link_is_made_and_a_moment_more():
    first, links = made()
    assert first.lets(BRAVO, 0.0), "no link is being opened"
    link = dialled(links)
    assert not first.lets(BRAVO, 0.1)
    assert first.next_timeout() is None, "the carrier says when it is made"
    links.carrier_event(Described(link, LOCAL), now=0.2)
    assert not first.lets(BRAVO, 0.2)
    assert first.next_timeout() == 0.2 + AHEAD_S
    first.handle_timeout(now=0.2 + AHEAD_S)
    assert first.lets(BRAVO, 0.2 + AHEAD_S)
    assert first.next_timeout() is None


def test_other_nodes_do_not_wait_for_the_link_of_one():
    first, links = made()
    dialled(links)
    assert first.lets(CHARLIE, 0.0)
    assert not first.holds(open_of(CHARLIE), 0.0)


def test_open_that_waited_comes_out_once():
    first, links = made()
    link = dialled(links)
    message = open_of()
    assert first.holds(message, 0.0)
    assert first.next_message(0.0) is None
    links.carrier_event(Described(link, LOCAL), now=0.2)
    assert first.next_message(0.2 + AHEAD_S) == message
    assert first.next_message(9.0) is None


def test_handshake_goes_on_when_the_dial_comes_to_nothing():
    first, links = made()
    link = dialled(links)
    assert first.holds(open_of(), 0.0)
    links.carrier_event(Closed(link, CarrierEnd.FAILED), now=0.1)
    assert first.next_timeout() == 0.0, "now"
    assert first.next_message(0.1) is not None


def test_flood_of_opens_is_answered_as_it_comes(monkeypatch):
    monkeypatch.setattr(precedence, "HELD_COUNT_MAX", 2)
    first, links = made()
    dialled(links)
    assert [first.holds(open_of(seq=seq), 0.0) for seq in range(3)] == [True, True, False]
