"""Data channels over a pair of queues in place of an association."""

from __future__ import annotations

from collections import Counter, deque

import pytest

from conflux.carrier.native.channels import (
    CHANNEL_COUNT_MAX,
    STREAM_COUNT_MAX,
    WAITING_BYTES_MAX,
    WAITING_COUNT_MAX,
    ChannelDown,
    ChannelEvent,
    ChannelMessage,
    ChannelOffered,
    Channels,
    ChannelUp,
    Reset,
    Send,
)
from conflux.carrier.native.dcep import (
    PPID_BINARY,
    PPID_BINARY_EMPTY,
    PPID_DCEP,
    PPID_STRING,
    PPID_STRING_EMPTY,
    Reliability,
    decode_open_untrusted,
    encode_open,
)
from conflux.errors import LocalProtocolError, RemoteProtocolError

OPEN = encode_open("label", "", Reliability())
ACK = b"\x02"
UNORDERED = Reliability(ordered=False, lifetime_ms_max=250)


class Side:
    """One side's channels, its drops, and answers on their way to it."""

    def __init__(self, *, is_client: bool) -> None:
        self.drops: Counter[str] = Counter()
        self.channels = Channels(is_client=is_client, drop_counts=self.drops)
        self.answers: deque[tuple[int, ...]] = deque()  # to our resets, on their way

    def events(self) -> list[ChannelEvent]:
        """Return every event that waits."""
        found = []
        while (event := self.channels.next_event()) is not None:
            found.append(event)
        return found

    def commands(self) -> list[Send | Reset]:
        """Return every command that waits."""
        found = []
        while (command := self.channels.next_command()) is not None:
            found.append(command)
        return found


class Pair:
    """Two sides; client's streams are even."""

    def __init__(self) -> None:
        self.client, self.server = Side(is_client=True), Side(is_client=False)

    def run(self) -> None:
        """Carry out commands, both ways, until there is none; resets are answered at once."""
        busy = True
        while busy:
            busy = False
            for one, other in ((self.client, self.server), (self.server, self.client)):
                for command in one.commands():
                    busy = True
                    deliver(command, other)
                    if isinstance(command, Reset):
                        one.channels.reset_untrusted(command.streams, incoming=False, accepted=True)


def deliver(command: Send | Reset, to: Side) -> None:
    """Carry out one side's command at the other."""
    if isinstance(command, Send):
        to.channels.message_untrusted(command.stream, command.ppid, command.data)
    else:
        to.channels.reset_untrusted(command.streams, incoming=True, accepted=True)


@pytest.fixture
def pair() -> Pair:
    """Two sides."""
    return Pair()


def opened(pair: Pair) -> int:
    """Open one channel from client to server, drop its events, and return its stream."""
    stream = pair.client.channels.open("label")
    pair.run()
    pair.server.channels.accept(stream)
    pair.run()
    assert pair.client.events() == [ChannelUp(stream)]
    pair.server.events()
    return stream


def test_channel_is_offered_with_its_label_protocol_and_reliability(pair: Pair) -> None:
    stream = pair.client.channels.open("conflux.tether.1", "0123/0/2", UNORDERED)
    pair.run()
    assert pair.server.events() == [ChannelOffered(stream, "conflux.tether.1", "0123/0/2", UNORDERED)]
    assert not pair.client.channels.is_up(stream)
    pair.server.channels.accept(stream)
    pair.run()
    assert pair.client.events() == [ChannelUp(stream)]
    assert pair.client.channels.is_up(stream)
    assert pair.server.channels.is_up(stream)


def test_client_opens_even_streams_and_server_odd_ones(pair: Pair) -> None:
    assert [pair.client.channels.open("x") for _ in range(3)] == [0, 2, 4]
    assert [pair.server.channels.open("x") for _ in range(3)] == [1, 3, 5]


@pytest.mark.parametrize(
    ("data", "ppid", "raw"),
    [
        (b"bytes", PPID_BINARY, b"bytes"),
        (b"", PPID_BINARY_EMPTY, b"\0"),
        ("täxt", PPID_STRING, "täxt".encode()),
        ("", PPID_STRING_EMPTY, b"\0"),
    ],
)
def test_message_of_every_kind_arrives_unchanged(pair: Pair, data: bytes | str, ppid: int, raw: bytes) -> None:
    stream = opened(pair)
    assert pair.server.channels.send(stream, data)
    (command,) = pair.server.commands()
    assert command == Send(stream, ppid, raw)
    deliver(command, pair.client)
    assert pair.client.events() == [ChannelMessage(stream, data)]


def test_closed_channel_is_down_on_the_far_side_and_its_stream_is_free_on_both(pair: Pair) -> None:
    stream = opened(pair)
    pair.client.channels.close(stream)
    pair.client.channels.close(stream)
    assert not pair.client.channels.send(stream, b"late")
    pair.run()
    assert pair.server.events() == [ChannelDown(stream)]
    assert pair.client.events() == []
    assert (pair.client.channels.stream_count, pair.server.channels.stream_count) == (0, 0)
    assert opened(pair) == stream


def test_channels_that_close_in_order_count_no_drop(pair: Pair) -> None:
    stream = opened(pair)
    pair.client.channels.close(stream)
    pair.run()
    assert (dict(pair.client.drops), dict(pair.server.drops)) == ({}, {}), "not even a reason with a count of 0"


def test_both_sides_may_close_at_once(pair: Pair) -> None:
    stream = opened(pair)
    pair.client.channels.close(stream)
    pair.server.channels.close(stream)
    pair.run()
    assert (pair.client.events(), pair.server.events()) == ([], [])
    assert (pair.client.channels.stream_count, pair.server.channels.stream_count) == (0, 0)


def test_stream_is_not_used_again_before_both_sides_have_reset_it(pair: Pair) -> None:
    stream = opened(pair)
    client = pair.client.channels
    client.close(stream)
    assert client.next_command() == Reset((stream,))
    assert client.open("next") != stream
    client.reset_untrusted((stream,), incoming=False, accepted=True)
    assert client.open("next") != stream
    client.reset_untrusted((stream,), incoming=True, accepted=True)
    assert client.open("next") == stream


def test_stream_whose_reset_was_refused_stays_taken(pair: Pair) -> None:
    stream = opened(pair)
    client = pair.client.channels
    client.close(stream)
    client.reset_untrusted((stream,), incoming=False, accepted=False)
    client.reset_untrusted((stream,), incoming=True, accepted=True)
    assert client.open("next") != stream
    assert pair.client.drops["reset-refused"] == 1


@pytest.fixture
def reopened(pair: Pair) -> int:
    """A stream that the client opens again while the server still waits for the answer to its reset."""
    stream = opened(pair)
    server = pair.server.channels
    server.reset_untrusted((stream,), incoming=True, accepted=True)
    assert pair.server.commands() == [Reset((stream,), is_answer=True)]
    assert pair.server.events() == [ChannelDown(stream)]
    server.message_untrusted(stream, PPID_DCEP, OPEN)
    assert [type(event) for event in pair.server.events()] == [ChannelOffered]
    return stream


@pytest.mark.parametrize("accepted", [True, False])
def test_peer_may_open_a_stream_again_before_we_have_its_answer_to_our_reset(
    pair: Pair, reopened: int, accepted: bool
) -> None:
    server = pair.server.channels
    server.accept(reopened)
    assert pair.server.commands() == []  # nothing may be sent on a stream that is being reset
    assert not server.is_up(reopened)
    assert not server.send(reopened, b"x")
    server.message_untrusted(reopened, PPID_BINARY, b"early")
    assert pair.server.events() == [ChannelMessage(reopened, b"early")]
    server.reset_untrusted((reopened,), incoming=False, accepted=accepted)  # the answer to the earlier reset
    assert pair.server.commands() == [Send(reopened, PPID_DCEP, ACK)]
    assert server.is_up(reopened)
    server.close(reopened)
    assert pair.server.commands() == [Reset((reopened,))]
    server.reset_untrusted((reopened,), incoming=True, accepted=True)
    assert server.stream_count == 1
    server.reset_untrusted((reopened,), incoming=False, accepted=True)
    assert server.stream_count == 0


def test_channel_accepted_after_the_answer_is_acknowledged_at_once(pair: Pair, reopened: int) -> None:
    server = pair.server.channels
    server.reset_untrusted((reopened,), incoming=False, accepted=True)
    assert pair.server.commands() == []
    server.accept(reopened)
    assert pair.server.commands() == [Send(reopened, PPID_DCEP, ACK)]


@pytest.mark.parametrize("is_accepted", [True, False])
@pytest.mark.parametrize("by_peer", [True, False])
def test_channel_closed_before_the_answer_to_the_last_reset_is_reset_after_it(
    pair: Pair, reopened: int, is_accepted: bool, by_peer: bool
) -> None:
    server = pair.server.channels
    if is_accepted:
        server.accept(reopened)
    if not by_peer:
        server.close(reopened)
    server.reset_untrusted((reopened,), incoming=True, accepted=True)
    assert pair.server.events() == ([ChannelDown(reopened)] if by_peer else [])
    assert pair.server.commands() == []  # two resets of one stream at once would be one
    with pytest.raises(RemoteProtocolError, match="dcep"):
        server.message_untrusted(reopened, PPID_DCEP, OPEN)  # the peer may not open it anew: we have not reset it
    server.reset_untrusted((reopened,), incoming=False, accepted=True)
    assert pair.server.commands() == [Reset((reopened,), is_answer=True)]
    assert server.stream_count == 1
    server.reset_untrusted((reopened,), incoming=False, accepted=True)
    assert server.stream_count == 0


def test_stream_whose_reset_was_refused_and_that_the_peer_opens_again_waits_for_no_answer(pair: Pair) -> None:
    stream = opened(pair)
    server = pair.server.channels
    server.reset_untrusted((stream,), incoming=True, accepted=True)
    server.reset_untrusted((stream,), incoming=False, accepted=False)
    pair.server.commands()
    server.message_untrusted(stream, PPID_DCEP, OPEN)
    server.accept(stream)
    assert pair.server.commands() == [Send(stream, PPID_DCEP, ACK)]


def test_reset_that_names_no_stream_resets_all(pair: Pair) -> None:
    streams = [opened(pair) for _ in range(3)]
    pair.server.channels.reset_untrusted((), incoming=True, accepted=True)
    assert pair.server.events() == [ChannelDown(stream) for stream in streams]


def test_channel_closed_while_opening_never_comes_up(pair: Pair) -> None:
    stream = pair.client.channels.open("x")
    pair.client.channels.close(stream)
    for command in pair.client.commands():
        deliver(command, pair.server)
    pair.server.channels.accept(stream)
    assert pair.server.commands() == [Reset((stream,), is_answer=True)]
    pair.client.channels.message_untrusted(stream, PPID_DCEP, ACK)
    assert pair.client.events() == []
    assert [type(event) for event in pair.server.events()] == [ChannelOffered, ChannelDown]


def test_offered_channel_may_be_refused(pair: Pair) -> None:
    stream = pair.client.channels.open("x")
    pair.run()
    pair.server.channels.close(stream)
    pair.run()
    assert pair.client.events() == [ChannelDown(stream)]
    assert (pair.client.channels.stream_count, pair.server.channels.stream_count) == (0, 0)


def test_channels_without_end_are_refused(pair: Pair) -> None:
    server = pair.server.channels
    for stream in range(0, STREAM_COUNT_MAX, 2):
        server.message_untrusted(stream, PPID_DCEP, OPEN)
    assert len(pair.server.events()) == CHANNEL_COUNT_MAX
    with pytest.raises(LocalProtocolError):
        server.open("one more")
    crowded = Side(is_client=False)
    for _ in range(3):
        crowded.channels.open("ours")
    for stream in range(0, STREAM_COUNT_MAX, 2):
        crowded.channels.message_untrusted(stream, PPID_DCEP, OPEN)
    assert len(crowded.events()) == CHANNEL_COUNT_MAX - 3
    assert crowded.drops["channel-refused"] == 3
    assert [command for command in crowded.commands() if isinstance(command, Reset)] == [
        Reset((stream,)) for stream in (4090, 4092, 4094)
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x04" + OPEN[1:],
        OPEN[:-1],
        OPEN + b"x",
        OPEN[:11],
        bytes([3, 0x03]) + OPEN[2:],
        bytes([3, 0x84]) + OPEN[2:],
        OPEN[:-1] + b"\xff",
        OPEN[:8] + b"\xff\xff\xff\xff",
    ],
)
def test_malformed_dcep_ends_the_link_and_takes_no_stream(pair: Pair, data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="dcep"):
        pair.server.channels.message_untrusted(0, PPID_DCEP, data)
    assert pair.server.channels.stream_count == 0


@pytest.mark.parametrize("stream", [1, 4096, 65534])
def test_open_on_a_stream_that_is_not_the_peers_ends_the_link(pair: Pair, stream: int) -> None:
    with pytest.raises(RemoteProtocolError, match="dcep"):
        pair.server.channels.message_untrusted(stream, PPID_DCEP, OPEN)


def test_open_on_a_stream_in_use_and_ack_of_ones_own_channel_end_the_link(pair: Pair) -> None:
    stream = opened(pair)
    for data in (OPEN, ACK):
        with pytest.raises(RemoteProtocolError, match="dcep"):
            pair.server.channels.message_untrusted(stream, PPID_DCEP, data)


def test_messages_outside_an_open_channel_are_counted(pair: Pair) -> None:
    client = pair.client.channels
    client.message_untrusted(0, PPID_DCEP, ACK)
    client.message_untrusted(7, PPID_BINARY, b"x")
    stream = opened(pair)
    client.message_untrusted(stream, PPID_DCEP, ACK)
    client.message_untrusted(stream, 54, b"x")
    client.message_untrusted(stream, PPID_STRING, b"\xff")
    client.reset_untrusted((9, 11), incoming=True, accepted=True)
    client.reset_untrusted((9, stream), incoming=False, accepted=True)
    assert pair.client.events() == []
    assert pair.client.drops == {"channel-closed": 3, "ppid-unknown": 1, "text-malformed": 1}
    assert client.is_up(stream)


def offered(pair: Pair) -> int:
    """Have the client open a channel that the server has not accepted yet; return its stream."""
    stream = pair.client.channels.open("label")
    pair.server.channels.message_untrusted(stream, PPID_DCEP, OPEN)
    pair.server.events()
    return stream


def test_messages_behind_an_open_wait_until_the_channel_is_accepted(pair: Pair) -> None:
    stream, server = offered(pair), pair.server.channels
    for data in (b"first", b"second"):
        server.message_untrusted(stream, PPID_BINARY, data)
    assert pair.server.events() == []
    server.accept(stream)
    assert pair.server.events() == [ChannelMessage(stream, b"first"), ChannelMessage(stream, b"second")]
    assert pair.server.drops == {}


@pytest.mark.parametrize(("count", "size"), [(WAITING_COUNT_MAX, 1), (2, WAITING_BYTES_MAX // 2)])
def test_so_many_messages_wait_and_no_more(pair: Pair, count: int, size: int) -> None:
    stream, server = offered(pair), pair.server.channels
    for _ in range(count + 1):
        server.message_untrusted(stream, PPID_BINARY, bytes(size))
    assert pair.server.drops == {"channel-closed": 1}
    server.accept(stream)
    assert len(pair.server.events()) == count


def test_messages_that_wait_are_dropped_with_a_channel_that_is_refused(pair: Pair) -> None:
    stream, server = offered(pair), pair.server.channels
    server.message_untrusted(stream, PPID_BINARY, b"x")
    server.close(stream)
    assert pair.server.drops == {"channel-closed": 1}
    assert pair.server.events() == []


def test_message_before_the_acknowledgement_of_ones_own_channel_is_dropped(pair: Pair) -> None:
    stream = pair.client.channels.open("label")
    pair.client.channels.message_untrusted(stream, PPID_BINARY, b"x")
    assert pair.client.drops == {"channel-closed": 1}


def test_accepting_a_channel_that_is_not_offered_is_a_bug_of_the_caller(pair: Pair) -> None:
    stream = pair.client.channels.open("x")
    for side, what in ((pair.client, stream), (pair.server, stream)):
        with pytest.raises(LocalProtocolError):
            side.channels.accept(what)


@pytest.mark.parametrize(
    "reliability",
    [
        Reliability(),
        Reliability(ordered=False),
        Reliability(retransmits_max=0),
        Reliability(ordered=False, retransmits_max=2**32 - 1),
        Reliability(lifetime_ms_max=1),
        UNORDERED,
    ],
)
def test_open_encodes_every_reliability(reliability: Reliability) -> None:
    assert decode_open_untrusted(encode_open("läbel", "protocol", reliability)) == ("läbel", "protocol", reliability)


def test_open_is_laid_out_as_in_the_standard() -> None:
    assert encode_open("ab", "c", UNORDERED).hex(" ", -2) == "0382 0000 0000 00fa 0002 0001 6162 63"


def test_two_bounds_at_once_and_names_too_long_are_bugs_of_the_caller() -> None:
    with pytest.raises(LocalProtocolError):
        encode_open("", "", Reliability(retransmits_max=1, lifetime_ms_max=1))
    with pytest.raises(LocalProtocolError):
        encode_open("x" * 257, "", Reliability())
