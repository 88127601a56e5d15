"""What is for one node on a LAN so large that not everybody is a neighbour."""

from __future__ import annotations

import os
from collections import Counter

from conflux.control.drop import Drop
from conflux.control.envelope import HOP_LIMIT_MAX, Envelope
from conflux.control.lan.bridge import Bridge
from conflux.ids import NodeId


def node(name: str) -> NodeId:
    return NodeId(name.encode().ljust(16, b"."))


ROD, ALPHA, ALICE, BRAVO, FAR = map(node, ("rod", "alpha", "alice", "bravo", "far"))


def envelope(to: NodeId, *, hop_limit: int = HOP_LIMIT_MAX) -> Envelope:
    return Envelope(to, os.urandom(16), hop_limit, None, b"sealed")


class Rod:
    """A node with alpha and alice beside it on a large LAN, and with bravo on another one if it joins two."""

    def __init__(self, *, joins: bool = False) -> None:
        self.drops: Counter[str] = Counter()
        self.ways: dict[NodeId, NodeId] = {}
        self.near: set[NodeId] = set()
        self.bridge = Bridge(ROD, self.drop, wide=lambda: True, way=self.ways.get, near=lambda each: each in self.near)
        for name, lan in ((ALPHA, "one"), (ALICE, "one"), *(((BRAVO, "two"),) if joins else ())):
            self.bridge.place(name, lan)

    def drop(self, reason: str) -> None:
        self.drops[reason] += 1


def test_it_goes_on_to_a_neighbour_or_the_way_that_is_known_and_never_back() -> None:
    rod = Rod()
    assert rod.bridge.receive_untrusted(envelope(ALICE).encode(), ALPHA, now=0.0).to == (ALICE,)
    rod.ways[FAR] = ALICE
    passage = rod.bridge.receive_untrusted(envelope(FAR).encode(), ALPHA, now=0.0)
    assert passage.to == (ALICE,)
    assert Envelope.decode_untrusted(passage.onward).hop_limit == HOP_LIMIT_MAX - 1
    assert rod.bridge.receive_untrusted(envelope(FAR).encode(), ALICE, now=0.0).to == ()
    assert rod.bridge.receive_untrusted(envelope(FAR, hop_limit=0).encode(), ALPHA, now=0.0).to == ()
    assert rod.drops == {Drop.NOT_FOR_US: 1, Drop.HOP_LIMIT: 1}


def test_without_a_way_it_goes_nowhere() -> None:
    rod = Rod()
    passage = rod.bridge.receive_untrusted(envelope(FAR).encode(), ALPHA, now=0.0)
    assert passage.to == ()
    assert not passage.errand
    assert rod.drops == {Drop.NOT_FOR_US: 1}


def test_own_envelopes_take_the_way_that_is_known() -> None:
    rod = Rod()
    assert rod.bridge.send(envelope(FAR), now=0.0) == ()
    rod.ways[FAR] = ALICE
    assert rod.bridge.send(envelope(FAR), now=0.0) == (ALICE,)
    rod.ways[FAR] = BRAVO  # no neighbour any more
    assert rod.bridge.send(envelope(FAR), now=0.0) == ()


def test_a_bridge_runs_an_errand_to_who_is_at_a_known_place_and_a_plain_node_does_not() -> None:
    for joins in (True, False):
        rod = Rod(joins=joins)
        rod.near.add(FAR)
        passage = rod.bridge.receive_untrusted(envelope(FAR).encode(), BRAVO if joins else ALPHA, now=0.0)
        assert passage.errand is joins
        assert passage.to == ()
        assert bool(passage.onward) is joins
