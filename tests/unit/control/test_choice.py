"""The choice among several channels: nearest first, and a retry by all of them."""

from __future__ import annotations

import pytest

from conflux.control.channel import Handoff
from conflux.control.choice import Handed, hand_over
from conflux.control.envelope import Envelope, Reach
from conflux.control.event import Transmit
from conflux.ids import NodeId

BOB = NodeId(b"b" * 16)
ACCEPTED, FORWARDED, DOWN, ABSENT, REFUSED = Handoff


class Recorder:
    """A channel that says what it is told to say."""

    def __init__(self, name: str, far: bool, says: Handoff) -> None:
        self.name, self.far, self.says = name, far, says
        self.sent: list[bool] = []  # whether it was a retry, for every envelope

    def send(self, envelope: Envelope, *, again: bool = False) -> Handoff:
        self.sent.append(again)
        return self.says


def envelope(to: NodeId | None, bucket: int | None = None, reach: Reach = Reach.ALL) -> Envelope:
    return Envelope(to, bytes(16), 8, None, b"x", bucket, reach)


def hand(near: Handoff, far: Handoff, what: Envelope, *, again: bool = False) -> tuple[Handed, list[int]]:
    """Return what became of an envelope, and how many copies the near and the far channel got."""
    channels = [Recorder("lan", False, near), Recorder("nats", True, far)]
    handed = hand_over(Transmit(1, what, again), channels)
    assert all(copy is again for channel in channels for copy in channel.sent)
    return handed, [len(channel.sent) for channel in channels]


@pytest.mark.parametrize(
    ("near", "far", "best", "takers", "copies"),
    [
        (ACCEPTED, ACCEPTED, ACCEPTED, {"lan"}, [1, 0]),
        (FORWARDED, ACCEPTED, ACCEPTED, {"lan", "nats"}, [1, 1]),
        (FORWARDED, ABSENT, FORWARDED, {"lan"}, [1, 1]),
        (ABSENT, ACCEPTED, ACCEPTED, {"nats"}, [1, 1]),
        (ABSENT, DOWN, DOWN, set(), [1, 1]),  # the broker may know the node, when it is back
        (REFUSED, ABSENT, ABSENT, set(), [1, 1]),
        (DOWN, DOWN, DOWN, set(), [1, 1]),
        (DOWN, ACCEPTED, ACCEPTED, {"nats"}, [1, 1]),
    ],
)
def test_first_try_stops_at_the_nearest_channel_that_reaches_the_node(near, far, best, takers, copies) -> None:
    assert hand(near, far, envelope(BOB)) == (Handed(best, frozenset(takers)), copies)


def test_retry_goes_to_every_channel() -> None:
    handed, copies = hand(ACCEPTED, ACCEPTED, envelope(BOB), again=True)
    assert (handed.takers, copies) == ({"lan", "nats"}, [1, 1])


def test_question_and_presence_go_to_every_channel() -> None:
    for what in (envelope(None, bucket=7), envelope(None)):
        assert hand(ACCEPTED, ACCEPTED, what)[1] == [1, 1]


def test_near_presence_stays_on_the_lans() -> None:
    handed, copies = hand(ABSENT, ACCEPTED, envelope(None, reach=Reach.NEAR))
    assert (handed, copies) == (Handed(ABSENT), [1, 0])


def test_without_a_channel_everything_is_down() -> None:
    assert hand_over(Transmit(1, envelope(BOB)), []) == Handed(DOWN)
