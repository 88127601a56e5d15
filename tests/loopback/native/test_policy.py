"""The policy in the engine: what no rule allows is dropped by its receiver, and told to its sender's program."""

from __future__ import annotations

import os

import pytest
from kit.native import A4, A6, B4, B6, Pair, tcp_super, udp
from kit.policy import NOW, policy, rule

from conflux.datapath.native.datapath import NO_OFFLOAD
from conflux.errors import LocalProtocolError
from conflux.policy.rules import Node
from conflux.policy.sides import Member, Sides

ALPHA, BRAVO = Member(Node("alpha"), (A4, A6)), Member(Node("bravo"), (B4, B6))
DENY = 'default = "deny"\n'


def hold(pair: Pair, text: str, *, here: str) -> None:
    """Have one end hold to rules."""
    me, peer = (ALPHA, BRAVO) if here == "a" else (BRAVO, ALPHA)
    tables = Sides(policy(text), me, at_unix=NOW).tables((peer,))
    (pair.a if here == "a" else pair.b).datapath.set_policy(tables)


@pytest.mark.parametrize(("source", "destination"), [(A4, B4), (A6, B6)], ids=["IPv4", "IPv6"])
def test_receiver_lets_in_what_a_rule_allows_and_counts_the_rest(pair: Pair, source: object, destination: object):
    hold(pair, DENY + rule("alpha", "bravo", "udp/7"), here="b")
    allowed, other = (udp(number, source=source, destination=destination) for number in (1, 2))
    pair.a.send(allowed)
    pair.world.until(lambda: allowed in pair.b.packets)
    hold(pair, DENY + rule("alpha", "bravo", "udp/8"), here="b")
    pair.a.send(other)
    pair.world.until(lambda: pair.b.drops == {"policy": 1})
    assert pair.b.packets == [allowed]


def test_packets_pass_again_when_there_is_no_policy_any_more(pair: Pair):
    hold(pair, DENY, here="b")
    pair.a.send(udp(1))
    pair.world.until(lambda: pair.b.drops == {"policy": 1})
    pair.b.datapath.set_policy(None)
    pair.a.send(udp(2))
    pair.world.until(lambda: pair.b.packets == [udp(2)])


def test_super_packet_is_judged_once(pair: Pair):
    hold(pair, DENY + rule("alpha", "bravo", "tcp"), here="b")
    whole = tcp_super(os.urandom(2800), 1400)
    pair.a.device.send(whole)
    pair.world.until(lambda: pair.b.raw == [whole])
    hold(pair, DENY, here="b")
    pair.a.device.send(whole)
    pair.world.until(lambda: pair.b.drops == {"policy": 1})


def test_sender_refuses_what_its_far_end_would_and_tells_the_program(pair: Pair):
    hold(pair, DENY, here="a")
    packet = udp(1)
    pair.a.send(packet)
    pair.world.until(lambda: pair.a.packets)
    (answer,) = pair.a.packets
    assert (answer[9], answer[20], answer[21]) == (1, 3, 13)  # ICMP: administratively prohibited
    assert answer[12:20] == B4.packed + A4.packed
    assert answer[28:] == packet
    assert pair.a.drops == {"policy-sent": 1}
    assert pair.b.packets == []


def test_few_programs_are_told_at_once(pair: Pair):
    hold(pair, DENY, here="a")
    for number in range(100):
        pair.a.send(udp(number))
    pair.world.until(lambda: pair.a.drops.get("policy-sent") == 100)
    pair.world.until(lambda: pair.a.packets)
    pair.world.settle()
    assert len(pair.a.packets) <= 12


def test_packet_that_cannot_be_judged_is_dropped_by_its_name(pair: Pair):
    hold(pair, "", here="b")
    cut = bytearray(udp(1))
    cut[9] = 6  # TCP, and shorter than its header
    pair.a.device.send(NO_OFFLOAD + bytes(cut))
    pair.world.until(lambda: pair.b.drops == {"policy-unfit": 1})


def test_bytes_that_are_no_tables_are_refused_and_nothing_changes(pair: Pair):
    hold(pair, DENY, here="b")
    with pytest.raises(LocalProtocolError):
        pair.b.engine.set_policy(b"none", b"none", 7)
    pair.a.send(udp(1))
    pair.world.until(lambda: pair.b.drops == {"policy": 1})
