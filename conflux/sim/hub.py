"""The simulated control network: nodes on LANs, and what happens to their envelopes on the way.  Sans-IO.

    alpha ───── lan 1 ───── rod ───── lan 2 ───── bravo      rod is on both LANs, so it is a bridge between them

An envelope goes in by send() with the time and comes out by next_delivery() when it is due.  On the way it may be lost,
repeated, delayed and overtaken, by an injected random.Random.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from conflux.control.channel import Arrival, Handoff
from conflux.control.envelope import Envelope, Reach
from conflux.errors import LocalProtocolError
from conflux.ids import NodeId
from conflux.sim.flights import Flights, Weather

ONE_LAN = ("lan",)


@dataclass(frozen=True, slots=True)
class Delivery:
    """An envelope has arrived at a node.  transit: for another channel to carry on; else for the node itself."""

    to: NodeId
    arrival: Arrival
    transit: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """A neighbour of observer came up or went down.  joins: it is a bridge; for one that went down, it was one.

    moved: False if it was up before, and only joins changed.
    """

    observer: NodeId
    node: NodeId
    up: bool
    joins: bool
    moved: bool = True


class Hub:
    """All LANs of a simulated area.  Nodes that share a LAN are neighbours unless they are cut from each other."""

    def __init__(self, *, rng: random.Random, weather: Weather | None = None, name: str = "sim") -> None:
        self.name = name
        self.weather = weather or Weather()
        self._lans: dict[NodeId, tuple[str, ...]] = {}  # of every node that ever came up
        self._up: dict[NodeId, None] = {}  # in order of coming up: a set of bytes has another order in every process
        self._cuts: dict[frozenset[NodeId], bool] = {}  # pair → silent
        self._crossing: set[NodeId] = set()
        self._flights: Flights[Delivery] = Flights(rng)
        self._changes: deque[Change] = deque()

    # ── the world ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def attach(self, node: NodeId, lans: tuple[str, ...] = ONE_LAN) -> None:
        """Bring a node up; it and its neighbours see each other come."""
        if node in self._up:
            raise LocalProtocolError("the node is on the hub already")
        self._lans[node] = lans
        for other in self.neighbours(node):
            self._change(other, node, up=True)
        self._up[node] = None

    def detach(self, node: NodeId, *, silent: bool = False) -> None:
        """Take a node down; an envelope on its way there is lost.  silent: its neighbours do not notice."""
        if node not in self._up:
            return
        bridge = self._is_bridge(node)
        del self._up[node]
        self._crossing.discard(node)
        self._changes = deque(change for change in self._changes if change.observer != node)
        if not silent:
            for other in self.neighbours(node):
                self._changes.append(Change(other, node, False, bridge))

    def cut(self, a: NodeId, b: NodeId, *, silent: bool = False) -> None:
        """Let nothing pass between two nodes.  silent: neither notices, and envelopes vanish."""
        noticed = not silent and self._adjacent(a, b)
        self._cuts[frozenset((a, b))] = silent
        if noticed and a in self._up and b in self._up:
            self._change(a, b, up=False)

    def mend(self, a: NodeId, b: NodeId) -> None:
        """Undo cut().  No-op if nothing was cut."""
        silent = self._cuts.pop(frozenset((a, b)), True)
        if not silent and self._adjacent(a, b) and a in self._up and b in self._up:
            self._change(a, b, up=True)

    def is_cut(self, a: NodeId, b: NodeId) -> bool:
        """Say whether cut() holds between two nodes."""
        return frozenset((a, b)) in self._cuts

    def passes(self, a: NodeId, b: NodeId) -> bool:
        """Say whether two nodes that are up would reach each other without a bridge."""
        return self._adjacent(a, b) and not self.is_cut(a, b)

    def neighbours(self, node: NodeId) -> list[NodeId]:
        """Return the nodes that a node sees on its LANs."""
        return [other for other in self._up if other != node and self._adjacent(node, other)]

    def path(self, src: NodeId, to: NodeId) -> list[NodeId] | None:
        """Return the nodes that an envelope comes to on its way, the last is its receiver; None: there is no way."""
        if self._adjacent(src, to) and to in self._up:
            return [to]
        paths, seen = [[src]], {src}
        while paths:
            so_far = paths.pop(0)
            for node in self.neighbours(so_far[-1]):
                if node == to:
                    return [*so_far[1:], to]
                if node not in seen and self._is_bridge(node):
                    seen.add(node)
                    paths.append([*so_far, node])
        return None

    def __contains__(self, node: NodeId) -> bool:
        return node in self._up

    # ── envelopes ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, src: NodeId, envelope: Envelope, *, now: float) -> Handoff:
        """Take an envelope for one node, or for all."""
        if src not in self._up:
            return Handoff.DOWN
        envelope.encode()  # raises LocalProtocolError for an envelope that no engine could carry
        neighbours, to = self.neighbours(src), envelope.to
        for other in [node for node in self._up if to in (None, node) or node in self._crossing]:
            if other == src or (path := self.path(src, other)) is None:
                continue
            if to in (None, other):
                self._fly(src, path, envelope, now)
            if other in self._crossing and self._goes_across(envelope, src, other):
                self._fly(src, path, envelope, now, transit=True)
        if to in neighbours or (to is None and neighbours):
            return Handoff.ACCEPTED
        return Handoff.FORWARDED if any(map(self._is_bridge, neighbours)) else Handoff.ABSENT

    def pass_on(self, src: NodeId, envelope: Envelope, answering: Callable[[NodeId], bool], *, now: float) -> Handoff:
        """Take an envelope that comes from another channel.  answering: says which neighbours are in its bucket."""
        if envelope.bucket is None:
            return self.send(src, envelope, now=now)
        for other in filter(answering, self.neighbours(src)):
            self._fly(src, [other], envelope, now)
        return Handoff.ACCEPTED

    def cross(self, node: NodeId, crosses: bool) -> None:
        """Let a node be a bridge to another channel, or no longer; its neighbours hear of it."""
        before = self._is_bridge(node)
        (self._crossing.add if crosses else self._crossing.discard)(node)
        if self._is_bridge(node) != before:
            for other in self.neighbours(node):
                self._changes.append(Change(other, node, True, self._is_bridge(node), moved=False))

    def next_delivery(self, now: float) -> Delivery | None:
        """Return the next envelope that is due."""
        while (delivery := self._flights.land(now)) is not None:
            via = delivery.arrival.via
            if delivery.to in self._up and (via is None or not self.is_cut(via, delivery.to)):
                return delivery
        return None

    def next_change(self) -> Change | None:
        """Return the next neighbour that came or went."""
        return self._changes.popleft() if self._changes else None

    def next_timeout(self) -> float | None:
        """Return when next_delivery() has something to return; None: nothing is on its way."""
        return self._flights.next_timeout()

    def _goes_across(self, envelope: Envelope, src: NodeId, bridge: NodeId) -> bool:
        """Say whether a bridge to another channel may have to carry an envelope on."""
        if envelope.to is None:
            return envelope.reach is not Reach.NEAR
        return not {envelope.to} & {src, bridge, *self.neighbours(src), *self.neighbours(bridge)}

    def _fly(self, src: NodeId, path: list[NodeId], envelope: Envelope, now: float, *, transit: bool = False) -> None:
        steps = list(zip([src, *path], path, strict=False))
        if not any(self.is_cut(*step) for step in steps):
            delivery = Delivery(path[-1], Arrival(envelope, steps[-1][0], self.name), transit)
            self._flights.launch(delivery, len(steps), self.weather, now=now)

    def _adjacent(self, a: NodeId, b: NodeId) -> bool:
        """Say whether two nodes share a LAN and have not noticed a cut."""
        shared = not set(self._lans.get(a, ())).isdisjoint(self._lans.get(b, ()))
        return shared and self._cuts.get(frozenset((a, b))) is not False

    def _is_bridge(self, node: NodeId) -> bool:
        return len(self._lans[node]) > 1 or node in self._crossing

    def _change(self, a: NodeId, b: NodeId, *, up: bool) -> None:
        """Let two nodes see each other come or go."""
        self._changes.append(Change(a, b, up, self._is_bridge(b)))
        self._changes.append(Change(b, a, up, self._is_bridge(a)))
