"""LANs joined in any shape: an envelope comes to its receiver, once, and no node is kept busy."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from conflux.control.envelope import HOP_LIMIT_MAX, Envelope
from conflux.control.lan.bridge import Bridge
from conflux.ids import NodeId

Lans = tuple[int, ...]

# A tree of LANs: lan i > 0 hangs on an earlier one by one shared node.  Eight LANs in a row need seven hops.
trees = st.lists(st.integers(0, 100), min_size=1, max_size=7)
seeds = st.integers(0, 2**32)


class Map:
    """Nodes, each on one LAN or several; those that share one are neighbours, over one connection on one of them."""

    def __init__(self, nodes: list[Lans], rng: random.Random) -> None:
        self.rng = rng
        self.on = {NodeId(number.to_bytes(16, "big")): lans for number, lans in enumerate(nodes)}
        self.drops: Counter[str] = Counter()
        self.bridges = {node: Bridge(node, self._drop) for node in self.on}
        self.degree: Counter[NodeId] = Counter()
        for a, b in combinations(self.on, 2):
            shared = sorted(set(self.on[a]) & set(self.on[b]))
            if shared:
                lan = f"lan{rng.choice(shared)}"
                self.bridges[a].place(b, lan)
                self.bridges[b].place(a, lan)
                self.degree.update((a, b))
        for node in self.on:
            for other in self.on:
                self.bridges[other].hear(node, joins=self.bridges[node].joins)

    def _drop(self, reason: str) -> None:
        self.drops[reason] += 1

    def reached(self, src: NodeId) -> set[NodeId]:
        """Return the nodes that can be reached from a node at all."""
        found, lans = {src}, set(self.on[src])
        while more := {node for node, on in self.on.items() if node not in found and lans & set(on)}:
            found |= more
            lans.update(lan for node in more for lan in self.on[node])
        return found - {src}

    def send(self, src: NodeId, to: NodeId | None) -> tuple[Counter[NodeId], Counter[NodeId]]:
        """Carry one envelope and all its copies, in any order; return how often each node got it, and handled it."""
        envelope = Envelope(to, self.rng.randbytes(16), HOP_LIMIT_MAX, None, b"x")
        flying = [(src, other, envelope.encode()) for other in self.bridges[src].send(envelope, now=0.0)]
        got: Counter[NodeId] = Counter()
        handled: Counter[NodeId] = Counter()
        while flying:
            via, node, data = flying.pop(self.rng.randrange(len(flying)))
            handled[node] += 1
            passage = self.bridges[node].receive_untrusted(data, via, now=0.0)
            got[node] += passage.delivered is not None
            flying += [(node, other, passage.onward) for other in passage.to]
        return +got, handled


def tree_of(shape: list[int], rng: random.Random) -> list[Lans]:
    """Every LAN has up to two nodes of its own; each but the first shares a node with an earlier LAN."""
    nodes: list[Lans] = [(0,)]
    for lan, pick in enumerate(shape, start=1):
        parent = pick % lan
        bridges_at = [at for at, lans in enumerate(nodes) if parent in lans and len(lans) > 1]
        if bridges_at and pick % 3 == 0:
            at = rng.choice(bridges_at)  # one bridge between several LANs
            nodes[at] = (*nodes[at], lan)
        else:
            nodes.append((parent, lan))
        nodes += [(lan,)] * rng.randrange(1, 3)
    return nodes


@given(trees, seeds)
def test_in_a_tree_of_lans_every_node_hears_an_envelope_for_all_once(shape: list[int], seed: int) -> None:
    rng = random.Random(seed)
    town = Map(tree_of(shape, rng), rng)
    src = rng.choice(list(town.on))
    got, handled = town.send(src, None)
    assert got == Counter(town.on.keys() - {src})
    assert handled == got  # no copy too many anywhere
    assert not town.drops


@given(trees, seeds)
def test_in_a_tree_of_lans_an_envelope_comes_to_its_node_once_and_to_no_bystander(shape: list[int], seed: int) -> None:
    rng = random.Random(seed)
    town = Map(tree_of(shape, rng), rng)
    src, to = rng.sample(list(town.on), 2)
    got, handled = town.send(src, to)
    assert got == Counter([to])
    assert max(handled.values()) == 1
    assert all(node == to or town.bridges[node].joins for node in handled)


@given(st.lists(st.frozensets(st.integers(0, 4), min_size=1, max_size=3), min_size=2, max_size=12), seeds)
def test_in_any_tangle_of_lans_copies_end_and_each_is_heard_once(nodes: list[frozenset[int]], seed: int) -> None:
    rng = random.Random(seed)
    town = Map([tuple(sorted(lans)) for lans in nodes], rng)
    src, to = rng.sample(list(town.on), 2)
    for receiver, expected in ((None, town.reached(src)), (to, town.reached(src) & {to})):
        got, handled = town.send(src, receiver)
        assert got == Counter(expected)
        for node, count in handled.items():
            assert count <= town.degree[node] * HOP_LIMIT_MAX
