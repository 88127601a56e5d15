"""The simulated broker: who hears what, who vouches for whom, and what is said of those who are not there."""

from __future__ import annotations

import dataclasses
import random

import pytest

from conflux.control.channel import Arrival, Handoff
from conflux.control.envelope import ENVELOPE_BYTES_MAX, HOP_LIMIT_MAX, Envelope
from conflux.errors import LocalProtocolError
from conflux.ids import NodeId
from conflux.realm.broker.subjects import bucket_of
from conflux.sim.broker import Broker, Missed, Turn
from conflux.sim.flights import Weather
from conflux.sim.hub import Delivery

ALPHA, BRAVO, ROD = (NodeId(name.encode().ljust(16, b".")) for name in ("alpha", "bravo", "rod"))
FAR = NodeId(b"behind rod......")


def key(node: NodeId) -> bytes:
    return node + node


def envelope(to: NodeId | None, bucket: int | None = None, payload: bytes = b"x") -> Envelope:
    return Envelope(to, bytes(16), HOP_LIMIT_MAX, None, payload, bucket)


def broker() -> Broker:
    """alpha, bravo and rod, in buckets 1, 2 and 3."""
    made = Broker(rng=random.Random(1), weather=Weather(delay_s=0.1, jitter_s=0.0))
    for number, node in enumerate((ALPHA, BRAVO, ROD), start=1):
        made.attach(node, key(node), frozenset({number}))
    turns(made)
    return made


def turns(made: Broker) -> list[Turn]:
    return list(iter(made.next_turn, None))


def heard(made: Broker, now: float = 1.0) -> list[Delivery | Missed]:
    return list(iter(lambda: made.next_delivery(now), None))


def test_envelope_comes_to_the_inbox_of_a_key_with_the_key_of_its_sender() -> None:
    made, sent = broker(), envelope(BRAVO)
    assert made.send(ALPHA, sent, key(BRAVO), now=0.0) is Handoff.ACCEPTED
    assert made.next_timeout() == 0.2
    assert heard(made) == [Delivery(BRAVO, Arrival(sent, None, "broker", key(ALPHA)))]


def test_question_comes_to_its_bucket_and_presence_to_all() -> None:
    made = broker()
    made.send(ALPHA, envelope(None, 2), now=0.0)
    made.send(ALPHA, envelope(None, 9), now=0.0)
    assert [item.to for item in heard(made)] == [BRAVO]
    made.send(ALPHA, envelope(None), now=0.0)
    assert [item.to for item in heard(made)] == [BRAVO, ROD]


def test_inbox_without_a_listener_is_told_of_and_an_unknown_key_is_absent() -> None:
    made = broker()
    sealed = dataclasses.replace(envelope(FAR), key_id=b"a key id")
    assert made.send(ALPHA, sealed, None, now=0.0) is Handoff.ABSENT
    made.lose(BRAVO)
    assert made.send(ALPHA, envelope(BRAVO), key(BRAVO), now=0.0) is Handoff.ACCEPTED
    assert heard(made) == [Missed(ALPHA, BRAVO, key(BRAVO))]


def test_plain_envelope_for_a_node_whose_key_is_unknown_comes_to_that_node_by_the_bucket_of_its_id() -> None:
    made = broker()
    for node in (BRAVO, ROD):
        made.detach(node)
        made.attach(node, key(node), frozenset({bucket_of(BRAVO)}))  # rod is asked for there too
    plain = envelope(BRAVO)
    assert made.send(ALPHA, plain, None, now=0.0) is Handoff.FORWARDED
    assert heard(made) == [Delivery(BRAVO, Arrival(plain, None, "broker", key(ALPHA)))]


def test_bridge_hears_for_others_and_is_handed_what_is_for_them() -> None:
    made, sent = broker(), envelope(FAR)
    made.send(ALPHA, sent, key(ROD), now=0.0)
    assert heard(made) == []  # it crosses nothing yet
    made.cross(ROD, frozenset({7}))
    made.send(ALPHA, sent, key(ROD), now=0.0)
    made.send(ALPHA, envelope(None, 7), now=0.0)
    assert [(item.to, item.transit) for item in heard(made)] == [(ROD, True), (ROD, False), (ROD, True)]


def test_lost_connection_is_noticed_unless_it_is_silent() -> None:
    made = broker()
    made.lose(ALPHA)
    made.lose(ALPHA, silent=True)  # there is nothing left to lose
    assert (made.is_up(ALPHA), made.send(ALPHA, envelope(None), now=0.0)) == (False, Handoff.DOWN)
    made.restore(ALPHA)
    assert turns(made) == [Turn(ALPHA, False), Turn(ALPHA, True)]
    made.lose(ALPHA, silent=True)
    assert (made.is_up(ALPHA), made.send(ALPHA, envelope(None), now=0.0)) == (True, Handoff.ACCEPTED)
    assert (heard(made), turns(made)) == ([], [])


def test_halves_of_a_split_broker_do_not_hear_each_other() -> None:
    made = broker()
    made.split(ALPHA, BRAVO)
    made.send(ALPHA, envelope(BRAVO), key(BRAVO), now=0.0)
    made.send(ALPHA, envelope(None), now=0.0)
    assert [type(item).__name__ for item in heard(made)] == ["Missed", "Delivery"]
    made.split(ALPHA, BRAVO, heal=True)
    made.send(ALPHA, envelope(BRAVO), key(BRAVO), now=0.0)
    assert [item.to for item in heard(made)] == [BRAVO]


def test_node_that_left_hears_nothing() -> None:
    made = broker()
    made.send(ALPHA, envelope(BRAVO), key(BRAVO), now=0.0)
    made.detach(BRAVO)
    assert (heard(made), BRAVO in made, ALPHA in made) == ([], False, True)
    with pytest.raises(LocalProtocolError):
        made.attach(ALPHA, key(ALPHA), frozenset())


def test_oversized_envelope_is_our_own_bug() -> None:
    with pytest.raises(LocalProtocolError):
        broker().send(ALPHA, envelope(None, payload=bytes(ENVELOPE_BYTES_MAX)), now=0.0)
