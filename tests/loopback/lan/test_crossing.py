"""A LAN channel at a member that joins its LAN and a broker: what it hands over, and what it takes from there."""

from __future__ import annotations

import os
from dataclasses import replace

from kit.builders import make_member, make_realm
from kit.ear import envelope, node_of
from kit.lan import LanNode, lan

from conflux.control.channel import Handoff
from conflux.control.envelope import HOP_LIMIT_MAX, Envelope, Reach
from conflux.realm.broker.subjects import buckets_of

FAR = node_of("charlie")  # on no LAN here


def own_buckets(name: str) -> frozenset[int]:
    member = make_member(make_realm("home"), name)
    return frozenset(buckets_of(member.node_id, member.name, member.addresses))


def question(bucket: int) -> Envelope:
    return Envelope(None, os.urandom(16), HOP_LIMIT_MAX, None, b"question", bucket)


def transits(rod: LanNode) -> list[Envelope]:
    return [arrival.envelope for arrival in rod.ear.transits]


async def test_neighbours_are_told_and_hand_over_what_no_neighbour_takes() -> None:
    async with lan("alpha", "rod") as (alpha, rod):
        assert alpha.send(envelope(FAR)) is Handoff.ABSENT
        rod.channel.cross(frozenset())
        assert rod.channel.state.detail.endswith("1 neighbour, joins lo and the broker")
        await alpha.ear.until(lambda: alpha.ear.joining == {rod.node_id})
        sent = envelope(FAR)
        assert alpha.send(sent) is Handoff.FORWARDED
        await rod.ear.until(lambda: bool(rod.ear.transits))
        (arrival,) = rod.ear.transits
        assert (arrival.envelope, arrival.via, rod.ear.arrivals) == (sent, alpha.node_id, [])
        rod.channel.cross(None)
        await alpha.ear.until(lambda: alpha.ear.joining == set())
        assert alpha.send(envelope(FAR)) is Handoff.ABSENT
        assert "joins" not in rod.channel.state.detail


async def test_neighbour_that_comes_later_is_told_too() -> None:
    async with lan("rod") as (rod,):
        rod.channel.cross(frozenset())
        async with LanNode("alpha", rod.port) as alpha:
            await alpha.ear.until(lambda: alpha.ear.joining == {rod.node_id})


async def test_nothing_is_asked_for_a_neighbour_that_left() -> None:
    async with lan("rod") as (rod,):
        rod.channel.cross(frozenset())
        async with LanNode("alpha", rod.port) as alpha:
            await alpha.ear.until(lambda: alpha.ear.joining == {rod.node_id})
            assert rod.channel.buckets == own_buckets("alpha")
        await rod.ear.until(lambda: rod.channel.buckets == frozenset())


async def test_questions_and_far_presence_are_delivered_and_handed_over() -> None:
    async with lan("alpha", "rod") as (alpha, rod):
        rod.channel.cross(frozenset())
        asked, near, far = question(7), replace(envelope(None), reach=Reach.NEAR), envelope(None, b"far")
        for each in (asked, near, far, envelope(rod.node_id, b"last")):
            alpha.send(each)
        await rod.ear.heard(b"question", b"sealed", b"far", b"last")
        assert transits(rod) == [asked, far]


async def test_what_comes_by_the_broker_reaches_the_neighbour_it_is_for() -> None:
    async with lan("alpha", "alice", "rod") as (alpha, alice, rod):
        assert rod.channel.buckets == own_buckets("alpha") | own_buckets("alice")
        rod.channel.cross(frozenset())
        (bucket, *_) = own_buckets("alpha") - own_buckets("alice")
        to_alpha, to_bucket, to_all = envelope(alpha.node_id, b"one"), question(bucket), envelope(None, b"all")
        for each in (to_alpha, to_bucket, to_all):
            assert rod.channel.pass_on(each) is Handoff.ACCEPTED
        await alpha.ear.heard(b"one", b"question", b"all")
        await alice.ear.heard(b"all")
        assert {arrival.via for arrival in alpha.ear.arrivals} == {rod.node_id}
        assert rod.channel.pass_on(to_alpha) is Handoff.ABSENT  # it was passed on already
        assert rod.drops == {"duplicate": 1}
        assert rod.channel.pass_on(envelope(FAR)) is Handoff.ABSENT


async def test_copy_of_what_a_neighbour_sent_does_not_come_back_to_the_lan() -> None:
    async with lan("alpha", "alice", "rod") as (alpha, alice, rod):
        rod.channel.cross(frozenset())
        said = envelope(None, b"said")
        alpha.send(said)
        await rod.ear.heard(b"said")
        assert rod.channel.pass_on(replace(said, hop_limit=said.hop_limit - 2)) is Handoff.ABSENT
        alpha.send(envelope(None, b"last"))
        await alice.ear.heard(b"said", b"last")


async def test_stopped_channel_passes_nothing_on() -> None:
    async with lan("rod") as (rod,):
        await rod.channel.stop()
        rod.channel.cross(frozenset())
        assert rod.channel.pass_on(envelope(FAR)) is Handoff.DOWN
