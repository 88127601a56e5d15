"""Nodes to connect to, found by mDNS or named in the configuration: where each may be, and when it is dialled."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from conflux.budget import TokenBucket
from conflux.control.drop import Drop
from conflux.control.lan.config import (
    DIAL_COUNT_MAX,
    REDIAL_S_MAX,
    REDIAL_S_MIN,
    SHUN_S_MAX,
    SHUN_S_MIN,
    TARGET_COUNT_MAX,
    Place,
)
from conflux.control.lan.handshake import Peer
from conflux.host.names import NAMES
from conflux.ids import NodeId

YIELD_S = 0.5  # the node with the larger instance waits this long for the other to dial: one handshake instead of two
# Times that all are dialled because an address came, per second and at once: anything on the LAN can give us addresses.
HURRY_RATE, HURRY_BURST = 0.1, 4.0


class Backoff:
    """Waits between tries: each twice the last, with jitter over its upper half, so that nodes do not dial in step."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._delay_s = REDIAL_S_MIN

    def next_s(self) -> float:
        """Return how long to wait now."""
        delay_s = self._delay_s * self._rng.uniform(0.5, 1.0)
        self._delay_s = min(self._delay_s * 2, REDIAL_S_MAX)
        return delay_s

    def reset(self) -> None:
        """Start from the shortest wait again."""
        self._delay_s = REDIAL_S_MIN


class Shunned:
    """Places where something answers that does not prove to be a member: each is left alone, twice as long each time.

    Any device can announce them, under as many names as it likes, so it is the place that counts.
    """

    def __init__(self) -> None:
        self._places: OrderedDict[Place, tuple[float, float]] = OrderedDict()  # for how long, and until when

    def failed(self, place: Place, now: float) -> None:
        """Take note that a handshake there failed."""
        lasts_s = min(2 * self._places.pop(place, (SHUN_S_MIN / 2, 0.0))[0], SHUN_S_MAX)
        if len(self._places) >= TARGET_COUNT_MAX:
            self._places.popitem(last=False)
        self._places[place] = lasts_s, now + lasts_s

    def proved(self, place: Place) -> None:
        """Take note that a member is there."""
        self._places.pop(place, None)

    def holds(self, place: Place, now: float) -> bool:
        """Say whether a place is to be left alone."""
        return place in self._places and now < self._places[place][1]

    def clear(self) -> None:
        """Forget all: this node proves itself by something new, and they may let it in."""
        self._places.clear()


class Target:
    """One node.  instance: the name under which mDNS announces it; None for a configured one until it is met."""

    def __init__(self, places: tuple[Place, ...], instance: bytes | None, *, yields: bool, rng: random.Random) -> None:
        self.places = places
        self.instance = instance
        self.announced = instance is not None
        self.node: NodeId | None = None  # once met
        self.over = False  # nothing is there any more
        self.failed = False  # the last try did
        self.is_waiting = False  # for the time of its next try
        self.at_once = False  # its connection ended by our doing: it does not know yet, so it will not dial
        self.backoff = Backoff(rng)
        self.task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._extra_s = YIELD_S if yields else 0.0

    def wake(self) -> None:
        """Something changed: look again, now."""
        self._wake.set()

    async def wait(self, delay_s: float | None) -> None:
        """Wait until woken, or for delay_s; None: until woken."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        self._wake.clear()

    def delay_s(self) -> float:
        """Return how long to wait before the next try."""
        if self.at_once:
            self.at_once = False
            return 0.0
        return self.backoff.next_s() + self._extra_s


class Targets:
    """All targets, each with a task that dials it whenever it is not connected.

    instance: our own.  connected(target): whether it is.  wants(target): whether it should be.  dial(target): try every
    place of it once.
    """

    def __init__(
        self,
        instance: bytes,
        *,
        rng: random.Random,
        drop: Callable[[str], None],
        connected: Callable[[Target], bool],
        dial: Callable[[Target], Awaitable[None]],
        wants: Callable[[Target], bool] = lambda target: True,
        count_max: int = TARGET_COUNT_MAX,
    ) -> None:
        self._instance = instance
        self._rng = rng
        self._drop = drop
        self._connected = connected
        self._wants = wants
        self._count_max = count_max
        self._dial = dial
        self._targets: list[Target] = []
        self._own: frozenset[object] = frozenset()  # our addresses
        self._hurries = TokenBucket(HURRY_RATE, HURRY_BURST)
        self._dial_slots = asyncio.Semaphore(DIAL_COUNT_MAX)

    def all(self) -> list[Target]:
        """Return every target."""
        return list(self._targets)

    def follow(self, places: tuple[Place, ...]) -> None:
        """Keep a node connected at each place that the configuration names, and at no other that it named before.

        What is connected there stays so until it ends.
        """
        kept = set()
        for target in self._targets:
            if not target.announced and not target.over:
                if target.places[0] in places:
                    kept.add(target.places[0])
                else:
                    target.over = True
                    target.wake()
        for place in places:
            if place not in kept:
                self._pursue(Target((place,), None, yields=False, rng=self._rng))

    def found(self, instance: bytes, places: tuple[Place, ...]) -> None:
        """Take note that mDNS shows a node of the realm, perhaps again: dial it now unless it is connected."""
        for target in self._targets:
            if target.announced and target.instance == instance:
                target.places = places
                target.over = False
                if target.failed:
                    target.backoff.reset()
                    target.wake()
                return
        if len(self._targets) >= self._count_max:
            self._drop(Drop.TARGET_COUNT)
            unmet = next((each for each in self._targets if each.announced and each.failed and each.node is None), None)
            if unmet is None:
                return
            self._forget(unmet)
            unmet.over = True
            unmet.wake()
        # Both see each other at the same time.  The smaller instance dials; the other waits, in case it cannot.
        self._pursue(Target(places, instance, yields=instance < self._instance, rng=self._rng))

    def gone(self, instance: bytes) -> None:
        """Take note that mDNS no longer shows a node.  If it is connected, it stays so."""
        for target in self._targets:
            if target.announced and target.instance == instance:
                target.over = True
                target.wake()

    def want(self, instances: frozenset[bytes], *, at_once: bool) -> frozenset[bytes]:
        """Dial these nodes now, unless they are connected; return those of which no place is known.

        at_once: also those whose last try failed a moment ago.
        """
        found = [target for target in self._targets if target.instance in instances and not target.over]
        for target in found:
            if target.announced and (at_once or not target.is_waiting):
                target.wake()
        return instances - {target.instance for target in found}

    def hurry(self, own: frozenset[object], now: float) -> None:
        """Take note of our own addresses: if one came, what could not be dialled may be in reach."""
        if own <= self._own:
            self._own = own
            return
        if not self._hurries.take(now):
            return  # its coming is still news at the next change
        self._own = own
        for target in self._targets:
            if not self._connected(target):  # one that is being dialled just now is dialled again
                target.backoff.reset()
                target.wake()

    def lost(self, peer: Peer, *, steady: bool, ours: bool = False) -> None:
        """Take note that the connection to a node ended.

        steady: it lived long, so the first wait is the shortest.  ours: at this end alone, so there is none.
        """
        for target in self._targets:
            if target.instance == peer.instance or target.node == peer.node:
                if steady:
                    target.backoff.reset()
                target.at_once = ours
                target.wake()

    async def stop(self) -> None:
        """Dial no more."""
        tasks = [target.task for target in self._targets if target.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._targets.clear()

    def _pursue(self, target: Target) -> None:
        self._targets.append(target)
        target.task = asyncio.create_task(self._keep_connected(target))
        target.task.add_done_callback(lambda _: self._forget(target))

    def _forget(self, target: Target) -> None:
        if target in self._targets:
            self._targets.remove(target)

    async def _keep_connected(self, target: Target) -> None:
        """Dial whenever the target is not connected, until it is over."""
        delay_s: float | None = target.delay_s()
        was_connected = False
        while True:
            target.is_waiting = delay_s is not None
            await target.wait(delay_s)
            if self._connected(target):
                was_connected, delay_s = True, None
                continue
            if target.over:
                return
            if not self._wants(target):
                was_connected, delay_s = False, None
                target.backoff.reset()
                continue
            if was_connected:
                was_connected, delay_s = False, target.delay_s()
                continue
            await NAMES.prepare(target.places)  # before the slot: a resolver may not answer, and others need no names
            async with self._dial_slots:
                if not self._connected(target):
                    await self._dial(target)
            was_connected = self._connected(target)
            target.failed = not was_connected
            delay_s = None if was_connected else target.delay_s()
