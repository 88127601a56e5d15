"""The simulated control network: who is a neighbour, which way envelopes go, and what the weather does to them."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from conflux.control.channel import Handoff
from conflux.control.envelope import ENVELOPE_BYTES_MAX, HOP_LIMIT_MAX, Envelope
from conflux.errors import LocalProtocolError
from conflux.ids import NodeId
from conflux.sim.flights import Weather
from conflux.sim.hub import Change, Delivery, Hub


def node(name: str) -> NodeId:
    return NodeId(name.encode().ljust(16, b"."))


ALPHA, ROD, BRAVO, CHARLIE = map(node, ("alpha", "rod", "bravo", "charlie"))
STILL = Weather(delay_s=0.25, jitter_s=0.0)
RNG = random.Random


def envelope(to: NodeId | None, payload: bytes = b"sealed") -> Envelope:
    return Envelope(to, bytes(16), HOP_LIMIT_MAX, None, payload)


def one_lan(weather: Weather = STILL) -> Hub:
    """alpha, rod and bravo on one LAN; their comings are told."""
    hub = Hub(rng=RNG(1), weather=weather)
    for each in (ALPHA, ROD, BRAVO):
        hub.attach(each)
    changes(hub)
    return hub


def row() -> Hub:
    """alpha ─ rod ─ bravo: rod is a bridge."""
    hub = Hub(rng=RNG(1), weather=STILL)
    hub.attach(ALPHA, ("one",))
    hub.attach(ROD, ("one", "two"))
    hub.attach(BRAVO, ("two",))
    return hub


def changes(hub: Hub) -> list[Change]:
    return list(iter(hub.next_change, None))


def deliveries(hub: Hub, now: float) -> list[Delivery]:
    return list(iter(lambda: hub.next_delivery(now), None))


# ── neighbours ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nodes_of_a_lan_see_each_other_come_and_go() -> None:
    hub = Hub(rng=RNG(1))
    hub.attach(ALPHA)
    hub.attach(BRAVO)
    assert changes(hub) == [Change(ALPHA, BRAVO, True, False), Change(BRAVO, ALPHA, True, False)]
    hub.detach(BRAVO)
    assert changes(hub) == [Change(ALPHA, BRAVO, False, False)]
    hub.detach(BRAVO)  # twice does no harm
    assert changes(hub) == []


def test_node_that_is_up_cannot_come_up_again() -> None:
    with pytest.raises(LocalProtocolError):
        one_lan().attach(ALPHA)


def test_node_on_two_lans_is_seen_as_a_bridge() -> None:
    seen = {(change.observer, change.node): change.joins for change in changes(row())}
    assert seen == {(ALPHA, ROD): True, (ROD, ALPHA): False, (BRAVO, ROD): True, (ROD, BRAVO): False}


def test_silent_death_is_not_noticed() -> None:
    hub = one_lan()
    hub.detach(BRAVO, silent=True)
    assert changes(hub) == []
    assert hub.neighbours(ALPHA) == [ROD]


def test_cut_and_mended_neighbours_see_each_other_go_and_come() -> None:
    hub = one_lan()
    hub.cut(ALPHA, BRAVO)
    hub.cut(ALPHA, BRAVO)  # twice does no harm
    assert changes(hub) == [Change(ALPHA, BRAVO, False, False), Change(BRAVO, ALPHA, False, False)]
    assert (hub.passes(ALPHA, BRAVO), hub.neighbours(ALPHA)) == (False, [ROD])
    hub.mend(ALPHA, BRAVO)
    assert changes(hub) == [Change(ALPHA, BRAVO, True, False), Change(BRAVO, ALPHA, True, False)]
    assert hub.passes(ALPHA, BRAVO)


def test_cut_between_nodes_of_other_lans_is_not_noticed() -> None:
    hub = row()
    changes(hub)
    hub.cut(ALPHA, BRAVO)
    hub.mend(ALPHA, BRAVO)
    assert changes(hub) == []


# ── envelopes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_envelope_arrives_after_its_delay_from_its_sender() -> None:
    hub, sent = one_lan(), envelope(BRAVO)
    assert hub.send(ALPHA, sent, now=1.0) is Handoff.ACCEPTED
    assert hub.next_timeout() == 1.25
    assert deliveries(hub, 1.2) == []
    (delivery,) = deliveries(hub, 1.25)
    assert (delivery.to, delivery.arrival.envelope, delivery.arrival.via) == (BRAVO, sent, ALPHA)
    assert hub.next_timeout() is None


def test_envelope_for_all_goes_to_all_but_its_sender() -> None:
    hub = one_lan()
    assert hub.send(ALPHA, envelope(None), now=0.0) is Handoff.ACCEPTED
    assert [delivery.to for delivery in deliveries(hub, 1.0)] == [ROD, BRAVO]


def test_bridge_hands_envelopes_on_a_delay_later() -> None:
    hub = row()
    assert hub.path(ALPHA, BRAVO) == [ROD, BRAVO]
    hub.send(ALPHA, envelope(BRAVO), now=0.0)
    assert hub.next_timeout() == 0.5
    (delivery,) = deliveries(hub, 0.5)
    assert delivery.arrival.via == ROD


def test_node_that_is_no_bridge_hands_nothing_on() -> None:
    hub = one_lan()
    hub.cut(ALPHA, BRAVO)
    assert hub.path(ALPHA, BRAVO) is None
    assert hub.send(ALPHA, envelope(BRAVO), now=0.0) is Handoff.ABSENT
    assert deliveries(hub, 9.0) == []


def test_behind_a_bridge_no_one_knows_which_node_is_absent() -> None:
    hub = row()
    assert hub.send(ALPHA, envelope(CHARLIE), now=0.0) is Handoff.FORWARDED
    assert hub.send(BRAVO, envelope(None), now=0.0) is Handoff.ACCEPTED
    hub.detach(ROD)
    assert hub.send(ALPHA, envelope(CHARLIE), now=0.0) is Handoff.ABSENT
    assert hub.send(ALPHA, envelope(None), now=0.0) is Handoff.ABSENT
    assert hub.send(ROD, envelope(None), now=0.0) is Handoff.DOWN


def test_envelope_to_a_node_that_went_down_or_was_cut_off_is_lost() -> None:
    hub = one_lan()
    for to in (ROD, BRAVO):
        hub.send(ALPHA, envelope(to), now=0.0)
    hub.detach(ROD)
    hub.cut(ALPHA, BRAVO)
    assert deliveries(hub, 9.0) == []


def test_silent_cut_swallows_envelopes() -> None:
    hub = one_lan()
    hub.cut(ALPHA, BRAVO, silent=True)
    assert changes(hub) == []
    assert hub.send(ALPHA, envelope(BRAVO), now=0.0) is Handoff.ACCEPTED
    assert deliveries(hub, 9.0) == []


def test_oversized_envelope_is_our_own_bug() -> None:
    with pytest.raises(LocalProtocolError):
        one_lan().send(ALPHA, envelope(BRAVO, bytes(ENVELOPE_BYTES_MAX)), now=0.0)


def test_weather_loses_repeats_and_reorders() -> None:
    hub = one_lan(Weather(delay_s=0.1, jitter_s=0.2, control_loss=0.2, control_repeat=0.2))
    for number in range(1000):
        hub.send(ALPHA, envelope(BRAVO, number.to_bytes(2, "big")), now=0.0)
    payloads = [delivery.arrival.envelope.payload for delivery in deliveries(hub, 0.3)]
    copies = Counter(Counter(payloads).values())
    assert 900 < len(payloads) < 1020  # 1.2 copies of each, of which a fifth is lost
    assert copies[2] > 80
    assert payloads != sorted(payloads)


# ── a bridge to another channel ──────────────────────────────────────────────────────────────────────────────────────


def test_bridge_to_another_channel_is_seen_as_one_and_handed_what_no_neighbour_takes() -> None:
    hub = one_lan()
    hub.cross(ROD, True)
    hub.cross(ROD, True)
    assert changes(hub) == [Change(ALPHA, ROD, True, True, False), Change(BRAVO, ROD, True, True, False)]
    assert hub.send(ALPHA, envelope(CHARLIE), now=0.0) is Handoff.FORWARDED
    assert [(delivery.to, delivery.transit) for delivery in deliveries(hub, 1.0)] == [(ROD, True)]
    hub.send(ALPHA, envelope(BRAVO), now=0.0)
    assert [(delivery.to, delivery.transit) for delivery in deliveries(hub, 1.0)] == [(BRAVO, False)]
    hub.send(ALPHA, envelope(None), now=0.0)
    assert [(delivery.to, delivery.transit) for delivery in deliveries(hub, 1.0)] == [
        (ROD, False),
        (ROD, True),
        (BRAVO, False),
    ]
    hub.cross(ROD, False)
    assert hub.send(ALPHA, envelope(CHARLIE), now=0.0) is Handoff.ABSENT


def test_question_from_another_channel_goes_to_those_of_its_bucket_alone() -> None:
    hub = one_lan()
    question = Envelope(None, bytes(16), HOP_LIMIT_MAX, None, b"who", 7)
    assert hub.pass_on(ROD, question, lambda node: node == BRAVO, now=0.0) is Handoff.ACCEPTED
    assert [delivery.to for delivery in deliveries(hub, 1.0)] == [BRAVO]
    assert hub.pass_on(ROD, envelope(ALPHA), lambda node: False, now=0.0) is Handoff.ACCEPTED
    assert [delivery.to for delivery in deliveries(hub, 1.0)] == [ALPHA]
