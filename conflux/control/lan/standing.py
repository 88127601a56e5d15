"""The connections of a node on one LAN: which of them are for good, and which for an errand.  Sans-IO.

    NEAR role     each end says what it wants the connection for: for an errand, or to stand beside the other on the
                  ring or at a chord.  It stands while both want it to.  Only what stands belongs to the tree.

The dialler speaks first.  On a small LAN nobody says anything, and all that is open stands, as ever; whoever is told
there that a connection is for an errand takes it that the LAN is large.  What does not stand is closed when idle.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from conflux.control.lan.circle import FLOOR, GUEST_COUNT_MAX, Circle, Role
from conflux.control.lan.spreading import Spreading

IDLE_S: Final = 5.0  # of a connection that does not stand
GRACE_S: Final = 2.0  # of two on the ring the smaller instance dials, and the other after so long: one handshake
WORD_S: Final = 1.0  # so long the accepting end waits to be told what a connection is for


class Say(NamedTuple):
    """Tell a neighbour what its connection is for."""

    instance: bytes
    role: Role


class Close(NamedTuple):
    """Close an idle connection."""

    instance: bytes


class Stands(NamedTuple):
    """A connection stands from now on, or no longer."""

    instance: bytes
    stands: bool


Act = Say | Close | Stands


@dataclass(slots=True)
class _End:
    """One connection.  mine, theirs: what each end wants it for; None: it has not said.  told: what was said last."""

    dialled: bool
    spreads: bool
    opened_at: float
    used_at: float
    mine: Role = Role.ERRAND
    theirs: Role | None = None
    told: Role | None = None
    stands: bool = False


class Standing:
    """The connections on one LAN, by the instance of the node at the other end.

    A node that does not spread is of an earlier build: it stands, and is in no tree.
    """

    def __init__(self, me: bytes, rng: random.Random) -> None:
        self.circle = Circle(me, rng)
        self.spreading = Spreading(rng)
        self._ends: dict[bytes, _End] = {}
        self._acts: deque[Act] = deque()
        self._me = me
        self._since: dict[bytes, float] = {}  # those on the ring that are to dial this node, and have not

    def __contains__(self, instance: bytes) -> bool:
        return instance in self._ends

    @property
    def standing(self) -> frozenset[bytes]:
        """The neighbours that stand."""
        return frozenset(each for each, end in self._ends.items() if end.stands)

    def stands(self, instance: bytes) -> bool:
        """Say whether a connection is one that stands."""
        return instance in self._ends and self._ends[instance].stands

    # ── inputs ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def gone(self, instance: bytes, now: float) -> None:
        """Take note that mDNS shows a node no longer; one that is connected is there all the same."""
        if instance not in self._ends:
            self.circle.gone(instance)
            self.tend(now)

    def opened(self, instance: bytes, *, dialled: bool, spreads: bool, now: float) -> None:
        """Take note of a connection whose other end proved itself."""
        self.circle.met(instance)
        self._ends[instance] = _End(dialled, spreads, now, now)
        self.tend(now)

    def closed(self, instance: bytes, now: float, *, dead: bool = False) -> None:
        """Take note that a connection ended.  dead: the node fell silent."""
        end = self._ends.pop(instance, None)
        if end is not None and end.stands:
            self.spreading.leave(instance)
        if dead:
            self.circle.failed(instance, now)
        self.tend(now)

    def failed(self, instance: bytes, now: float) -> None:
        """Take note that a node could not be dialled."""
        self.circle.failed(instance, now)
        self.tend(now)

    def distrust(self, instance: bytes, now: float) -> None:
        """Let a neighbour that does not pass on what it should have no place any more, if enough others are left."""
        if len(self.standing - {instance}) >= FLOOR:
            self.circle.distrust(instance, now)
        self.tend(now)

    def reopened(self, instance: bytes, *, dialled: bool, now: float) -> None:
        """Take note that another connection to the same node takes the place of the one that was open."""
        end = self._ends.get(instance)
        if end is not None:
            end.dialled, end.told, end.opened_at = dialled, None, now
            self.tend(now)

    def used(self, instance: bytes, now: float) -> None:
        """Take note that something for one node went over a connection."""
        if instance in self._ends:
            self._ends[instance].used_at = now

    def near(self, instance: bytes, role: Role, now: float) -> None:
        """Take note of what the other end wants a connection for."""
        end = self._ends.get(instance)
        if end is None:
            return
        before, end.theirs = end.theirs, role
        if role is Role.ERRAND:
            if not self.circle.is_ring:
                self.circle.hear_large(now)
            elif (before is not None or end.dialled) and end.mine is not Role.ERRAND:
                end.mine = Role.ERRAND
                self.circle.declined(instance, now)
        else:
            self.circle.heed(instance)
            if end.mine is Role.ERRAND and self.circle.is_ring:
                fits = self.circle.takes(instance, len(self._guests()))
                end.mine = (self.circle.role(instance) or self._guest(end)) if fits else Role.ERRAND
                if not fits:
                    end.told = None  # it asked, so it is answered
            self._say(instance, end)
        self.tend(now)

    # ── decisions ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def tend(self, now: float) -> None:
        """Look at everything again: who should be a neighbour, and which connections do not fit."""
        circle, was_ring = self.circle, self.circle.is_ring
        circle.plan(now, self.standing)
        for end in self._ends.values() if circle.is_ring and not was_ring else ():
            if end.stands and end.theirs is None:
                end.theirs = Role.RING  # it was a small LAN until now
        for instance, end in self._ends.items():
            if not end.spreads or not circle.is_ring:
                end.mine = Role.RING
                continue
            role = circle.role(instance)
            if role is not Role.ERRAND:
                end.mine = role
            elif end.mine is not Role.ERRAND:
                end.mine = self._guest(end) if circle.trusts(instance) else Role.ERRAND
            elif end.theirs is None and not end.dialled and now >= end.opened_at + WORD_S:
                end.theirs = Role.RING  # it says nothing: to it, this LAN is a small one
                end.mine = Role.GUEST if circle.takes(instance, len(self._guests())) else Role.ERRAND
                end.told = None
        guests = self._guests()
        for instance in sorted(guests, key=lambda each: self._ends[each].theirs is Role.RING)[
            : -GUEST_COUNT_MAX or None
        ]:
            self._ends[instance].mine = Role.ERRAND
        for instance, end in self._ends.items():
            self._say(instance, end)
            self._see(instance, end)
            if circle.is_ring and not end.stands and now >= end.used_at + IDLE_S:
                end.used_at = now
                self._acts.append(Close(instance))

    def wants(self, instance: bytes, now: float) -> bool:
        """Say whether a node is to be dialled now, if it is not connected."""
        circle = self.circle
        if not circle.is_ring or instance not in circle.ring or instance > self._me:
            return circle.wants(instance)
        return now >= self._since.setdefault(instance, now) + GRACE_S

    def wanted(self, now: float) -> list[bytes]:
        """Return the nodes to dial."""
        self._since = {each: at for each, at in self._since.items() if each in self.circle.ring}
        return [each for each in self.circle.wishes() if each not in self._ends and self.wants(each, now)]

    def next_act(self) -> Act | None:
        """Return the next thing to do."""
        return self._acts.popleft() if self._acts else None

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _guests(self) -> list[bytes]:
        """Return who stands beside this node by its own wish alone."""
        if not self.circle.is_ring:
            return []
        return [
            each
            for each, end in self._ends.items()
            if end.spreads and end.mine is not Role.ERRAND and self.circle.role(each) is Role.ERRAND
        ]

    @staticmethod
    def _guest(end: _End) -> Role:
        """Return what an end is to be that this node did not pick."""
        return Role.GUEST if end.theirs in (Role.RING, Role.CHORD) else Role.ERRAND

    def _say(self, instance: bytes, end: _End) -> None:
        """Tell the other end what is news to it."""
        if not end.spreads or end.told is end.mine:
            return
        if not self.circle.is_ring and end.told is None and end.theirs is None:
            return  # a small LAN: nobody says anything
        if end.mine is Role.ERRAND and end.told is None and end.theirs is None and not end.dialled:
            return  # the dialler speaks first
        end.told = end.mine
        self._acts.append(Say(instance, end.mine))

    def _see(self, instance: bytes, end: _End) -> None:
        theirs = end.theirs if end.theirs is not None else Role.ERRAND if self.circle.is_ring else Role.RING
        stands = not end.spreads or (end.mine is not Role.ERRAND and theirs is not Role.ERRAND)
        if stands is end.stands:
            return
        end.stands = stands
        end.used_at = max(end.used_at, end.opened_at)
        if end.spreads:
            (self.spreading.join if stands else self.spreading.leave)(instance)
        self._acts.append(Stands(instance, stands))
