"""Any message of a peer about channels ends in a state or in a RemoteProtocolError, and no stream is lost."""

from __future__ import annotations

from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from conflux.carrier.native.channels import CHANNEL_COUNT_MAX, ChannelDown, ChannelOffered, Channels, Send
from conflux.carrier.native.dcep import PPID_DCEP, Reliability, encode_open
from conflux.errors import RemoteProtocolError

STREAMS = st.integers(0, 6)
OPEN = encode_open("label", "protocol", Reliability())

PEERS_DOING = st.one_of(
    st.tuples(
        st.just("message"), STREAMS, st.sampled_from([50, 51, 53, 54, 56, 57]), st.sampled_from([OPEN, b"\2", b""])
    ),
    st.tuples(st.just("message"), STREAMS, st.just(PPID_DCEP), st.binary(max_size=40)),
    st.tuples(st.just("reset"), st.lists(STREAMS, max_size=3).map(tuple)),
    st.tuples(st.just("answer"), st.lists(STREAMS, max_size=3).map(tuple), st.booleans()),
)
OUR_DOING = st.one_of(
    st.tuples(st.just("open")), st.tuples(st.just("close"), STREAMS), st.tuples(st.just("send"), STREAMS)
)


REOPENED = [("message", 0, PPID_DCEP, OPEN), ("reset", (0,)), ("message", 0, PPID_DCEP, OPEN)]  # before our answer


@example(False, REOPENED)
@example(False, [*REOPENED, ("close", 0)])
@given(st.booleans(), st.lists(st.one_of(PEERS_DOING, OUR_DOING), max_size=40))
def test_no_peer_brings_the_channels_out_of_step(is_client: bool, doings: list[tuple[object, ...]]) -> None:
    channels = Channels(is_client=is_client, drop_counts=Counter())
    up: set[int] = set()
    resetting: set[int] = set()  # nothing may be sent on these
    for doing in doings:
        try:
            match doing:
                case ("message", int(stream), int(ppid), bytes(data)):
                    channels.message_untrusted(stream, ppid, data)
                case ("reset", tuple(streams)):
                    channels.reset_untrusted(streams, incoming=True, accepted=True)
                case ("answer", tuple(streams), bool(accepted)):
                    channels.reset_untrusted(streams, incoming=False, accepted=accepted)
                    resetting.difference_update(streams)
                case ("open",):
                    up.add(channels.open("ours"))
                case ("close", int(stream)):
                    channels.close(stream)
                    up.discard(stream)
                case ("send", int(stream)):
                    # What we open takes messages at once; what the peer opens does when we have accepted it.
                    sent, opened_by_us = channels.send(stream, b"x"), stream % 2 == (0 if is_client else 1)
                    assert sent == channels.is_up(stream) or (sent and opened_by_us and stream in up)
        except RemoteProtocolError:
            continue  # a real link would end here; going on must do no harm
        while (event := channels.next_event()) is not None:
            if isinstance(event, ChannelOffered):
                assert event.stream not in up
                up.add(event.stream)
                channels.accept(event.stream)
            elif isinstance(event, ChannelDown):
                assert event.stream in up
                up.discard(event.stream)
        while (command := channels.next_command()) is not None:
            streams = (command.stream,) if isinstance(command, Send) else command.streams
            assert streams
            assert not resetting & set(streams)
            if not isinstance(command, Send):
                resetting.update(streams)
        assert channels.stream_count <= CHANNEL_COUNT_MAX
        assert {stream for stream in range(8) if channels.is_up(stream)} <= up
