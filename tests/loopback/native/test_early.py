"""Frames that come before the label that they are under is known: which of them wait, how many, and until when."""

from __future__ import annotations

import time

import pytest
from kit.native import BINARY, STREAM, Pair, keys, number_of, udp

from conflux.anchor import frame as f
from conflux.anchor.codec import Sender
from conflux.carrier.interface import Hop
from conflux.carrier.wire import CHANNEL_OFFERED
from conflux.ids import TetherId

NEW = TetherId(b"new tthr")
STREAM_NUMBER = 8  # the first of an SCTP association's streams that Pair leaves free
LABEL = 3000
HELD_COUNT_MAX = 8  # cext/engine/private.h


def frames(count: int) -> list[bytes]:
    """Return frames of the pair's stream under a label that B does not know, with a packet each."""
    data = keys()[0]
    sender = Sender(data.aead, data.key, data.nonce_prefix, data.epoch)
    return [sender.seal(LABEL, 0, [(f.PACKET, udp(number))]) for number in range(count)]


def offered(pair: Pair) -> None:
    """Have B map a channel that A opened."""
    pair.b.wire.map(pair.link_b, STREAM_NUMBER, NEW, 0, lifetime_ms=2000, how=CHANNEL_OFFERED)


def forge(pair: Pair, count: int) -> None:
    """Have A send frames on that channel, and then one message that shows that they have come."""
    for frame in frames(count):
        assert pair.a.wire.send(pair.link_a, STREAM_NUMBER, BINARY, frame)
    assert pair.a.wire.send(pair.link_a, STREAM_NUMBER, BINARY, b"\xff" * 32)
    pair.world.until(lambda: pair.b.drops.get("version") == 1)


def learn(pair: Pair) -> None:
    """Have B accept its stream under the label."""
    hop = Hop(pair.link_b, NEW, 1, label_out=1, label_in=LABEL)
    pair.b.datapath.add_receiver_route(STREAM, hop, now=time.monotonic())


def test_first_frames_wait_for_their_label_and_are_delivered_in_order(pair: Pair) -> None:
    offered(pair)
    forge(pair, 3)
    assert pair.b.packets == []
    learn(pair)
    pair.world.until(lambda: [number_of(packet) for packet in pair.b.packets] == [0, 1, 2])
    assert pair.b.drops == {"version": 1}


def test_so_many_wait_and_no_more(pair: Pair) -> None:
    offered(pair)
    forge(pair, HELD_COUNT_MAX + 2)
    assert pair.b.drops == {"version": 1, "unknown-label": 2}
    learn(pair)
    pair.world.until(lambda: len(pair.b.packets) == HELD_COUNT_MAX)
    assert pair.b.drops == {"version": 1, "unknown-label": 2}


def test_frames_wait_once_for_a_tether_not_for_ever(pair: Pair) -> None:
    offered(pair)
    forge(pair, HELD_COUNT_MAX)
    learn(pair)
    pair.world.until(lambda: len(pair.b.packets) == HELD_COUNT_MAX)
    pair.b.datapath.remove_receiver_route(pair.link_b, LABEL)
    assert pair.a.wire.send(pair.link_a, STREAM_NUMBER, BINARY, frames(HELD_COUNT_MAX + 1)[-1])
    pair.world.until(lambda: pair.b.drops.get("unknown-label") == 1)


@pytest.mark.parametrize("end", ["tether", "link"])
def test_frames_whose_label_never_comes_are_dropped_with_their_tether_or_link(pair: Pair, end: str) -> None:
    offered(pair)
    forge(pair, 2)
    if end == "tether":
        pair.b.wire.unmap(pair.link_b, NEW)
    else:
        pair.b.wire.remove(pair.link_b)
    assert pair.b.drops["unknown-label"] == 2


def test_frame_that_came_before_its_stream_was_mapped_is_taken_once_it_is(pair: Pair) -> None:
    (frame,) = frames(1)
    assert not pair.b.wire.receive(pair.link_b, STREAM_NUMBER, frame)
    offered(pair)
    assert pair.b.wire.receive(pair.link_b, STREAM_NUMBER, frame)
    learn(pair)
    pair.world.until(lambda: pair.b.packets == [udp(0)])
    assert not pair.b.wire.receive(pair.link_b + 100, STREAM_NUMBER, frame)
