"""What one member may do to a large LAN: the machine between real timers and a ground that only notes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest

from conflux.control.drop import Drop
from conflux.control.envelope import HOP_LIMIT_MAX, Envelope
from conflux.control.lan.errands import OTHERS_COUNT_MAX
from conflux.control.lan.frame import TREE_FRAMES, FrameType
from conflux.control.lan.meeting import TREE
from conflux.control.lan.spreading import id_of
from conflux.control.lan.wide import NEW_BURST, SENDER_BURST, Wide
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId

LAN = "eth0"
COUNT = 20


def name(number: int) -> bytes:
    return bytes((number,)) * 8


def now() -> float:
    return asyncio.get_running_loop().time()


def node(number: int) -> NodeId:
    return NodeId(bytes((number,)) * 16)


class Peer(NamedTuple):
    """What is asked of a peer."""

    node: NodeId
    instance: bytes
    features: frozenset[str] = frozenset({TREE})


class Line:
    """A connection that notes what is sent."""

    backlog_bytes = 0

    def __init__(self) -> None:
        self.sent: list[tuple[FrameType, bytes]] = []
        self.closed: str | None = None

    def send(self, kind: FrameType, body: bytes = b"") -> bool:
        self.sent.append((kind, body))
        return True

    def close(self, reason: str) -> None:
        self.closed = reason


class Near(NamedTuple):
    """A neighbour."""

    peer: Peer
    connection: Line
    dialled: bool = True


class Ground:
    """The channel, as far as it is needed.  placed: the instances that can be dialled; None: all."""

    def __init__(self) -> None:
        self.neighbours: dict[bytes, Near] = {}
        self.woken: Counter[bytes] = Counter()
        self.placed: set[bytes] | None = None
        self.stood: set[bytes] = set()
        self.absents: list[NodeId] = []
        self.drops: Counter[str] = Counter()

    def connected(self, instance: bytes) -> Near | None:
        return self.neighbours.get(instance)

    def wake(self, instances: Iterable[bytes], *, at_once: bool = False) -> frozenset[bytes]:
        asked = frozenset(instances)
        self.woken.update(asked)
        return frozenset() if self.placed is None else asked - self.placed

    def stands(self, neighbour: Near, stands: bool) -> None:
        (self.stood.add if stands else self.stood.discard)(neighbour.peer.instance)

    def absent(self, node: NodeId) -> None:
        self.absents.append(node)

    def drop(self, reason: str) -> None:
        self.drops[reason] += 1


class Here:
    """Node 0 of a LAN of twenty, with the neighbours that it wants."""

    def __init__(self) -> None:
        self.ground = Ground()
        ground: Any = self.ground
        self.wide = Wide(name(0), ground, rng=random.Random(1), drop=self.ground.drop)
        for number in range(1, COUNT):
            self.wide.found(name(number), LAN)
        self.near = [self.meet(each[0]) for each in sorted(self.ground.woken)][:5]

    def meet(self, number: int, instance: bytes | None = None) -> Near:
        """Connect to a node, which wants to be a neighbour for good."""
        near = Near(Peer(node(number), instance or name(number)), Line())
        self.ground.neighbours[near.peer.instance] = near
        held: Any = near
        self.wide.opened(held)
        self.wide.take_untrusted(held, FrameType.NEAR, b"\1")
        return near

    def bring(self, near: Near, envelope: Envelope, *, began: bytes, steps: int = 1) -> bool:
        """Let a neighbour spread an envelope; say whether it was taken."""
        held: Any = near
        data = envelope.encode()
        spread = self.wide.take_untrusted(held, FrameType.SPREAD, bytes((steps,)) + began + data)
        if spread is not None:
            self.wide.received_untrusted(held, spread.data, spread)
        return spread is not None

    @property
    def places(self) -> set[bytes]:
        """The instances that stand, as the LAN has it."""
        standing = self.wide.of(name(1)) or self.wide.of(name(2))
        assert standing is not None
        return set(standing.standing)


def envelope(to: NodeId | None = None) -> Envelope:
    return Envelope(to, os.urandom(16), HOP_LIMIT_MAX, None, os.urandom(8))


async def test_it_stands_beside_those_that_it_wants() -> None:
    here = Here()
    assert here.wide.is_wide
    assert {near.peer.instance for near in here.near} <= here.places


async def test_who_begins_a_message_is_whom_the_handshake_proved() -> None:
    here = Here()
    first, second, *_ = here.near
    assert here.bring(first, envelope(), began=first.peer.instance, steps=0)
    with pytest.raises(RemoteProtocolError) as raised:
        here.bring(first, envelope(), began=second.peer.instance, steps=0)
    assert raised.value.reason == Drop.MALFORMED


async def test_what_is_for_one_node_and_spreads_is_refused_before_it_is_noted_as_passed() -> None:
    here = Here()
    for_one = envelope(node(3))
    with pytest.raises(RemoteProtocolError):
        here.bring(here.near[0], for_one, began=name(3))
    standing = here.wide.of(here.near[0].peer.instance)
    assert standing is not None
    assert not standing.spreading.has(id_of(for_one.encode()))


async def test_one_neighbour_may_bring_so_much_in_other_names_and_no_more() -> None:
    """Whatever senders it makes up: what it may bring of strangers is half of what it may bring in all."""
    here = Here()
    taken = sum(here.bring(here.near[0], envelope(), began=os.urandom(8)) for _ in range(600))
    assert taken <= SENDER_BURST + 1
    names = [name(number) for number in range(1, COUNT)]
    taken += sum(here.bring(here.near[0], envelope(), began=names[each % len(names)]) for each in range(600))
    assert taken <= NEW_BURST + 8
    assert here.ground.drops[Drop.FLOOD] >= 1200 - NEW_BURST - 8


async def test_who_proved_itself_is_heard_although_a_neighbour_floods_in_the_names_of_strangers() -> None:
    here = Here()
    flooder, honest, *_ = here.near
    met = {near.peer.instance for near in here.near}
    names = [name(number) for number in range(1, COUNT) if name(number) not in met]
    for each in range(600):
        here.bring(flooder, envelope(), began=names[each % len(names)])
    assert here.bring(flooder, envelope(), began=honest.peer.instance), "its half is left"


async def test_budgets_are_of_the_node_and_not_of_the_instance_that_it_chose() -> None:
    here = Here()
    for _ in range(200):
        here.bring(here.near[0], envelope(), began=os.urandom(8))
    again = here.meet(here.near[0].peer.node[0], b"chosen..")
    here.wide.found(b"chosen..", LAN)
    assert not here.bring(again, envelope(), began=os.urandom(8))


async def test_what_one_neighbour_brings_over_its_budget_comes_by_another() -> None:
    here = Here()
    flooder, honest, *_ = here.near
    began = name(19)
    while here.bring(flooder, envelope(), began=began):
        pass
    true = envelope()
    assert not here.bring(flooder, true, began=began)
    assert here.bring(honest, true, began=began)


async def test_what_the_bridge_refuses_of_one_neighbour_comes_by_another() -> None:
    here = Here()
    first, second, *_ = here.near
    held: Any = first
    true = envelope()
    spread = here.wide.take_untrusted(held, FrameType.SPREAD, b"\1" + name(19) + true.encode())
    assert spread is not None
    here.wide.refuse(held, spread)
    standing = here.wide.of(first.peer.instance)
    assert standing is not None
    standing.spreading.told([id_of(true.encode())], first.peer.instance, now=0.0)
    assert standing.spreading.next_timeout() is None, "it is not asked for what it brought"
    assert here.bring(second, true, began=name(19))


async def test_notices_above_the_budget_are_counted() -> None:
    here = Here()
    held: Any = here.near[0]
    for _ in range(10):
        here.wide.take_untrusted(held, FrameType.NOTICE, os.urandom(8 * 128))
    assert here.ground.drops[Drop.FLOOD]


async def test_a_node_that_comes_under_another_instance_has_one_place_and_leaves_no_ghost() -> None:
    here = Here()
    number = here.near[0].peer.node[0]
    places = len(here.places)
    instances = [here.near[0].peer.instance]
    for turn in range(50):
        instance = bytes((number, turn)) * 4
        here.ground.neighbours.pop(instances[-1])
        here.wide.found(instance, LAN)
        here.meet(number, instance)
        instances.append(instance)
    standing = here.wide.of(instances[-1])
    assert standing is not None
    assert not any(each in standing or each in standing.circle for each in instances[:-1])
    assert not any(each in standing.spreading for each in instances[:-1])
    assert len(here.places) <= places + 1
    assert len(here.wide._lan_of) <= COUNT


async def test_what_has_no_place_to_dial_takes_no_place_beside_this_node() -> None:
    here = Here()
    here.ground.placed = set()
    here.wide.tend()
    standing = here.wide.of(here.near[0].peer.instance)
    assert standing is not None
    unplaced = [each for each in standing.wanted(1e9) if each not in here.ground.neighbours]
    assert unplaced == [] or len(standing.circle) < COUNT - 1
    assert all(near.peer.instance in standing.circle for near in here.near), "who is connected needs none"


async def test_errands_of_others_leave_room_for_those_of_this_node() -> None:
    here = Here()
    others = [each for each in range(1, COUNT) if name(each) not in here.ground.neighbours]
    for number in others:
        here.wide.ways.heard_untrusted(node(number), name(number), here.near[0].peer.node, now())
    taken = [here.wide.errand(node(number), b"for it", own=False) for number in others]
    assert all(taken), "above the bound they go the way that messages came"
    gone_round = [body for kind, body in here.near[0].connection.sent if kind is FrameType.ENVELOPE]
    assert len(gone_round) == len(others) - OTHERS_COUNT_MAX
    assert here.wide.errand(node(others[-1]), b"our own", own=True)


async def test_what_is_said_first_is_tried_first_and_what_was_said_otherwise_the_next_time() -> None:
    here = Here()
    far = next(each for each in range(1, COUNT) if name(each) not in here.ground.neighbours)
    liar, honest = here.near[0], here.near[1]
    here.wide.ways.heard_untrusted(node(far), name(far), honest.peer.node, now())
    here.wide.ways.heard_untrusted(node(far), liar.peer.instance, liar.peer.node, now())
    here.ground.woken.clear()
    assert here.wide.errand(node(far), b"answer", own=True)
    assert here.ground.woken[name(far)] == 1
    assert here.wide.errand(node(far), b"answer", own=True, again=True)
    assert (FrameType.ENVELOPE, b"answer") in liar.connection.sent


async def test_a_person_s_board_that_started_again_leaves_no_pin() -> None:
    here = Here()
    here.wide.pin(name(7))
    here.wide.found(b"restart.", LAN)
    here.wide.pin(b"restart.", before=name(7))
    standing = here.wide.of(name(7))
    assert standing is not None
    assert standing.circle._pinned == {b"restart."}


async def test_only_who_stands_may_spread() -> None:
    here = Here()
    far = next(each for each in range(1, COUNT) if name(each) not in here.ground.neighbours)
    errand: Any = Near(Peer(node(far), name(far)), Line())
    here.ground.neighbours[name(far)] = errand
    here.wide.opened(errand)
    here.wide.take_untrusted(errand, FrameType.NEAR, b"\0")
    assert name(far) not in here.places
    assert not here.bring(errand, envelope(), began=name(far), steps=0)
    assert here.ground.drops[Drop.NOT_FOR_US] == 1


async def test_what_ends_after_the_end_starts_no_timer() -> None:
    here = Here()
    here.wide.stop()
    for near in here.near:
        here.wide.lost(near.peer.instance, dead=False)
    assert here.wide._tending is None


async def test_noise_in_the_frames_of_a_large_lan_ends_in_a_protocol_error_or_in_nothing() -> None:
    here, rng = Here(), random.Random(7)
    held: Any = here.near[0]
    true = envelope().encode()
    for _ in range(3000):
        kind = rng.choice(sorted(TREE_FRAMES))
        body = bytearray(rng.choice((rng.randbytes(rng.randrange(40)), b"\1" + name(5) + true)))
        if body:
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        with contextlib.suppress(RemoteProtocolError):
            spread = here.wide.take_untrusted(held, kind, bytes(body[: rng.choice((len(body), rng.randrange(60)))]))
            if spread is not None:
                here.wide.received_untrusted(held, spread.data, spread)
    assert {near.peer.instance for near in here.near[1:]} <= here.places, "the other neighbours stand as before"
