"""Data channels over the association itself: what conflux.carrier.native.link connects, without a link."""

from __future__ import annotations

import ctypes
import struct
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from kit.sctp import MS, SECOND, Association, chunks_of, opened_pair, run_until

from conflux.carrier.native.channels import (
    ChannelDown,
    ChannelEvent,
    ChannelMessage,
    ChannelOffered,
    Channels,
    ChannelUp,
    Send,
)

RECONFIG = 130
ROUND_TRIP = 20 * MS


class End:
    """One end: what comes goes to its channels, what they send goes to the association, as in native/link.py."""

    def __init__(self, association: Association, *, is_client: bool) -> None:
        self.association = association
        self.channels = Channels(is_client=is_client, drop_counts=Counter())
        self.events: list[ChannelEvent] = []
        self._heard = self._reset = 0

    def settle(self, now: int) -> None:
        association, channels = self.association, self.channels
        for message in association.messages[self._heard :]:
            channels.message_untrusted(message.stream, message.ppid, message.data)
        for incoming, accepted, streams in association.resets[self._reset :]:
            channels.reset_untrusted(tuple(streams), incoming=incoming, accepted=accepted)
        self._heard, self._reset = len(association.messages), len(association.resets)
        while (event := channels.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, ChannelOffered):
                channels.accept(event.stream)
        while (command := channels.next_command()) is not None:
            if isinstance(command, Send):
                assert association.send(command.data, now, stream=command.stream, ppid=command.ppid), command
            else:
                assert association.reset_streams(command.streams, now)

    def told(self) -> list[type]:
        found, self.events = [type(event) for event in self.events], []
        return found


class Line:
    """Both ends, and the packets between them.  lost(packet): whether it is lost."""

    def __init__(self, a: Association, b: Association) -> None:
        self.now = SECOND
        self.client, self.server = End(a, is_client=True), End(b, is_client=False)

    def run(self, seconds: float, lost: Callable[[bytes], bool] = lambda packet: False) -> None:
        """Let time pass; every packet takes half a round trip."""
        until = self.now + int(seconds * SECOND)
        while self.now < until:
            for end, far in ((self.client, self.server), (self.server, self.client)):
                end.settle(self.now)
                if end.association.next_timeout <= self.now:
                    end.association.handle_timeout(self.now)
                for packet in list(end.association.packets(self.now)):
                    if end is self.client and lost(packet):
                        continue
                    far.association.receive(packet, self.now + ROUND_TRIP // 2)
            self.now += ROUND_TRIP // 2


@pytest.fixture
def line(sctp: ctypes.CDLL) -> Iterator[Line]:
    a, b = opened_pair(sctp)
    run_until(a, b, 0, 50 * MS)
    yield Line(a, b)
    a.delete()
    b.delete()


def is_answer(packet: bytes) -> bool:
    return any(kind == RECONFIG and struct.unpack_from("!H", body)[0] == 16 for kind, _, body in chunks_of(packet))


def test_stream_opened_again_while_the_answer_to_its_reset_is_lost_opens(line: Line) -> None:
    client, server = line.client, line.server
    stream = client.channels.open("first")
    line.run(0.2)
    assert (client.told(), server.told()) == ([ChannelUp], [ChannelOffered])
    for _ in range(3):
        assert server.channels.send(stream, b"sets the stream sequence number apart from zero")
    line.run(0.2)
    assert client.told() == [ChannelMessage] * 3

    lost: list[bytes] = []

    def first_answer(packet: bytes) -> bool:
        if lost or not is_answer(packet):
            return False
        lost.append(packet)
        return True

    client.channels.close(stream)
    line.run(0.06, first_answer)
    assert len(lost) == 1
    assert client.channels.stream_count == 0  # both sides are reset, as far as the client knows
    assert server.channels.stream_count == 1
    assert client.channels.open("second") == stream
    line.run(2.0)
    assert (client.told(), server.told()) == ([ChannelUp], [ChannelDown, ChannelOffered])
    assert server.channels.send(stream, b"in order again")
    line.run(0.2)
    assert client.events == [ChannelMessage(stream, b"in order again")]

    client.channels.close(stream)
    line.run(0.5)
    assert (client.channels.stream_count, server.channels.stream_count) == (0, 0)


def test_stream_opened_again_and_closed_while_the_answer_to_its_reset_is_lost_is_free_in_the_end(line: Line) -> None:
    client, server = line.client, line.server
    stream = client.channels.open("first")
    line.run(0.2)
    client.channels.close(stream)
    lost: list[bytes] = []
    line.run(0.06, lambda packet: is_answer(packet) and not lost.append(packet))
    assert lost
    assert client.channels.open("second") == stream
    line.run(0.03, is_answer)
    client.channels.close(stream)
    line.run(0.06, is_answer)
    assert server.told() == [ChannelOffered, ChannelDown, ChannelOffered, ChannelDown]
    line.run(3.0)
    assert (client.channels.stream_count, server.channels.stream_count) == (0, 0)
