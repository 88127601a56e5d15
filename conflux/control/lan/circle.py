"""Which nodes of one LAN a node stands beside: all of a small one, at most ten of a large one.  Sans-IO.

    up to 10 nodes    everybody is a neighbour
    from 11 on        a ring in the order of the instances that mDNS shows: two each way, which keeps the LAN in one
                      piece; and chords across it, two that this node picks at random and a few that others picked,
                      which keep ways short and outlast the loss of many at once

Any device can announce instances, and a member can choose its own and so stand beside anybody.  So nobody gives up a
neighbour that proved itself for one that has not, the chords that a node picks are its own choice, and one node has one
place.  What is believed dead is tried again, one each minute: two halves of a LAN find each other again.
"""

from __future__ import annotations

import enum
import random
from bisect import bisect
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

RING_FROM: Final = 11  # nodes, this one included
RING_UNTIL: Final = 8  # then everybody is a neighbour again: the border does not flap
SIDE_COUNT: Final = 2  # neighbours on the ring, each way
CHORD_COUNT: Final = 2  # that a node picks
STANDING_COUNT_MAX: Final = 10
SEEK_COUNT: Final = 8  # chords, while there are hardly any neighbours and dials fail: one of many may be a member
FLOOR: Final = 4  # so many neighbours stay, whatever is thought of them
DISTRUSTED_COUNT_MAX: Final = 2  # at once
GUEST_COUNT_MAX: Final = STANDING_COUNT_MAX - 2 * SIDE_COUNT - CHORD_COUNT  # chords that others picked
DEAD_S_MIN, DEAD_S = 5.0, 600.0  # a node is left alone twice as long each time that it cannot be reached
DECLINED_S, DECLINED_RING_S = 60.0, 5.0  # of a chord, and of one that may see the ring otherwise for a moment
LARGE_S: Final = 60.0  # so long counts a neighbour's word that the LAN is large
REVIVE_S: Final = 60.0
KNOWN_COUNT_MAX: Final = 2048


class Role(enum.IntEnum):
    """What one end of a connection wants it for."""

    ERRAND = 0  # for what is for one node; closed when idle
    RING = 1
    CHORD = 2
    GUEST = 3  # the other end picked this one; if both ends say so, neither did


class Circle:
    """One LAN as one of its nodes sees it.  me: its own instance."""

    def __init__(self, me: bytes, rng: random.Random) -> None:
        self._me = me
        self._rng = rng
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._dead: dict[bytes, float] = {}  # until when it is believed dead, or is not trusted with a place
        self._failures: dict[bytes, int] = {}  # since it was met last
        self._declined: dict[bytes, float] = {}
        self._distrusted: dict[bytes, float] = {}
        self._proved: set[bytes] = set()
        self._pinned: set[bytes] = set()
        self._ring: frozenset[bytes] = frozenset()
        self._chords: dict[bytes, None] = {}
        self._is_ring = False
        self._large_until = 0.0
        self._revive_at = 0.0
        self._revived: bytes | None = None
        self._is_stale = True  # something changed since the last plan
        self._stale_at = 0.0  # or changes by itself then
        self._planned_for: frozenset[bytes] = frozenset()

    # ── what is known ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_ring(self) -> bool:
        """Whether the LAN is too large for everybody to be a neighbour of everybody."""
        return self._is_ring

    @property
    def ring(self) -> frozenset[bytes]:
        """The neighbours on the ring, as they should be."""
        return self._ring

    @property
    def chords(self) -> frozenset[bytes]:
        """The chords that this node picked."""
        return frozenset(self._chords)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, instance: bytes) -> bool:
        return instance in self._known

    def nodes(self) -> tuple[bytes, ...]:
        """Return every node that is known, dead or alive."""
        return tuple(self._known)

    def wishes(self) -> tuple[bytes, ...]:
        """Return the nodes that this one dials when they are not connected."""
        if not self._is_ring:
            return tuple(self._known)
        wished = self._ring | self._chords.keys() | self._pinned
        return tuple(wished) if self._revived is None else (*wished, self._revived)

    def role(self, instance: bytes) -> Role:
        """Return what this node wants a connection to that node for."""
        if not self._is_ring or instance in self._ring:
            return Role.RING
        is_pinned = instance in self._pinned and instance not in self._declined
        return Role.CHORD if instance in self._chords or is_pinned else Role.ERRAND

    def wants(self, instance: bytes) -> bool:
        """Say whether this node dials that one when they are not connected."""
        return self.role(instance) is not Role.ERRAND or instance == self._revived

    # ── inputs ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def alive(self, instance: bytes) -> bytes | None:
        """Take note of a sign of life: mDNS shows the node, or it was met; return the node forgotten for it."""
        if instance == self._me or (instance in self._known and instance not in self._dead):
            return None
        self._is_stale = True
        self._dead.pop(instance, None)
        evicted = None
        if instance not in self._known and len(self._known) >= KNOWN_COUNT_MAX:
            evicted = next((each for each in self._known if each not in self._proved), next(iter(self._known)))
            self.gone(evicted)
        self._known[instance] = None
        return evicted

    def met(self, instance: bytes) -> None:
        """Take note that a member proved to be there."""
        self.alive(instance)
        self._failures.pop(instance, None)
        self._is_stale = self._is_stale or instance not in self._proved
        self._proved.add(instance)

    def is_proved(self, instance: bytes) -> bool:
        """Say whether a node proved to be there, and was not lost since."""
        return instance in self._proved

    def has_met(self, instance: bytes) -> bool:
        """Say whether a node proved to be there, or cannot be met now."""
        return instance in self._proved or instance in self._dead

    def pin(self, instance: bytes) -> None:
        """Always stand beside this node: a person named it."""
        self._is_stale = True
        self._pinned.add(instance)

    def unpin(self, instance: bytes) -> None:
        """Stand beside this node only as beside any other: the one that a person named is another instance now."""
        self._is_stale = self._is_stale or instance in self._pinned
        self._pinned.discard(instance)

    def gone(self, instance: bytes) -> None:
        """Take note that a node has left, or is another one by now."""
        self._is_stale = True
        for table in (self._known, self._dead, self._failures, self._declined, self._distrusted, self._chords):
            table.pop(instance, None)
        self._proved.discard(instance)
        self._pinned.discard(instance)

    def failed(self, instance: bytes, now: float) -> None:
        """Take note that a node could not be dialled, or fell silent."""
        self._is_stale = True
        self._revived = None if instance == self._revived else self._revived
        if instance in self._known:
            count = self._failures[instance] = self._failures.get(instance, 0) + 1
            self._dead[instance] = now + min(DEAD_S_MIN * 2.0 ** min(count - 1, 16), DEAD_S)
            self._proved.discard(instance)  # nobody gives way to it before it is met again
        self._chords.pop(instance, None)

    def distrust(self, instance: bytes, now: float) -> None:
        """Take note that a neighbour does not pass on what it should: it has no place beside this node for a while.

        No-op for more than two at once: others might have made them look so.
        """
        if instance not in self._distrusted and len(self._distrusted) >= DISTRUSTED_COUNT_MAX:
            return
        self._is_stale = True
        self._distrusted[instance] = now + DEAD_S
        self._chords.pop(instance, None)

    def trusts(self, instance: bytes) -> bool:
        """Say whether a node may have a place beside this one."""
        return instance not in self._distrusted

    def declined(self, instance: bytes, now: float) -> None:
        """Take note that a node has neighbours enough, or that this one has."""
        self._is_stale = True
        self._declined[instance] = now + (DECLINED_RING_S if instance in self._ring else DECLINED_S)
        self._chords.pop(instance, None)

    def heed(self, instance: bytes) -> None:
        """Take note that a node wants to be a neighbour after all."""
        self._is_stale = self._declined.pop(instance, None) is not None or self._is_stale

    def hear_large(self, now: float) -> None:
        """Take note that a neighbour says that the LAN is large; it may see more of it."""
        self._is_stale = True
        self._large_until = now + LARGE_S

    # ── decisions ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def plan(self, now: float, standing: Iterable[bytes] = ()) -> None:
        """Choose again who should be a neighbour.  standing: who is one now."""
        held = frozenset(standing)
        if self._is_stale or now >= self._stale_at or held != self._planned_for:
            self._plan(now, held)
            self._is_stale, self._planned_for = False, held
            ends = [*self._dead.values(), *self._declined.values(), *self._distrusted.values(), self._revive_at]
            self._stale_at = min([*ends, *([self._large_until] if self._large_until > now else ())])

    def _plan(self, now: float, held: frozenset[bytes]) -> None:
        for table in (self._dead, self._declined, self._distrusted):
            for instance in [each for each, until in table.items() if until <= now]:
                del table[instance]
        there = sorted(each for each in self._known if each not in self._dead)
        living = [each for each in there if each not in self._distrusted]
        if len(there) + 1 >= RING_FROM or now < self._large_until:
            self._is_ring = True
        elif len(self._known) + 1 <= RING_UNTIL:  # many that cannot be reached for now make no small LAN
            self._is_ring = False
        if not self._is_ring:
            self._ring, self._chords = frozenset(there), {}
            self._revive_at = now + REVIVE_S
            return
        at = bisect(living, self._me)
        turned = [each for each in living[at:] + living[:at] if each not in self._declined]
        self._ring = frozenset((*self._side(turned), *self._side(turned[::-1])))
        alive = set(living)
        count = SEEK_COUNT if len(held) < SIDE_COUNT and self._dead else CHORD_COUNT
        kept = [each for each in self._chords if each in alive and each not in self._ring]
        self._chords = dict.fromkeys(sorted(kept, key=lambda each: each not in held)[:count])
        free = [each for each in living if each not in self._ring | self._chords.keys() | self._declined.keys() | held]
        self._pick([each for each in free if each in self._proved], count - 1)  # the last may be anybody
        self._pick([each for each in free if each not in self._chords], count)
        if now >= self._revive_at:
            self._revive(now)

    def _pick(self, free: list[bytes], count: int) -> None:
        """Pick chords at random until there are so many."""
        lack = max(0, count - len(self._chords))
        self._chords |= dict.fromkeys(self._rng.sample(free, min(lack, len(free))))

    def _side(self, nodes: list[bytes]) -> list[bytes]:
        """Return the nearest on one side: two that proved themselves, and two nearer ones that have not."""
        found: list[bytes] = []
        proved = strangers = 0
        for each in nodes:
            if proved == SIDE_COUNT:
                break
            if each in self._proved:
                proved += 1
                found.append(each)
            elif strangers < SIDE_COUNT:
                strangers += 1
                found.append(each)
        return found

    def _revive(self, now: float) -> None:
        """Once a minute, try one of those that are believed dead."""
        dead = [each for each in self._known if each in self._dead]
        self._revived = self._rng.choice(dead) if dead else None
        self._revive_at = now + REVIVE_S * self._rng.uniform(0.8, 1.2)

    def takes(self, instance: bytes, guests: int) -> bool:
        """Say whether a node may stand beside this one that wants to.  guests: how many of that sort there are."""
        if instance in self._dead or instance in self._distrusted:
            return False
        return self.role(instance) is not Role.ERRAND or guests < GUEST_COUNT_MAX
