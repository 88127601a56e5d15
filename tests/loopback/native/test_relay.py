"""Frames that an engine passes on between two others: A ── R ── B."""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kit.native import (
    A4,
    B4,
    B6,
    BINARY,
    CHANNEL_COUNT,
    FORWARD,
    REVERSE,
    SOURCES,
    STREAM,
    TETHER,
    A,
    B,
    Node,
    World,
    keys,
    number_of,
    port_of,
    udp,
    waves,
)

from conflux.anchor import frame as f
from conflux.anchor.codec import Sender, peek, relabel
from conflux.carrier.interface import Hop
from conflux.carrier.wire import WireMessage
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Entry, Feedback
from conflux.datapath.status import RelayStatus
from conflux.errors import LocalProtocolError
from conflux.ids import LinkId

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h

FORWARD_2, REVERSE_2 = 3000, 4000  # B's label for frames, R's label for feedback


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


@contextmanager
def deaf(sock: socket.socket) -> Iterator[None]:
    """Have the kernel drop every datagram for the socket; SCTP sends again later."""
    _keep_of_each_datagram(sock, 0)
    yield
    _keep_of_each_datagram(sock, 65536)  # not SO_DETACH_FILTER: QEMU, which runs this as arm64, does not know it


def _keep_of_each_datagram(sock: socket.socket, size: int) -> None:
    keep = struct.pack("HBBI", 6, 0, 0, size)  # linux/filter.h: BPF_RET
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(_Program(1, keep)))


class Chain:
    """A's stream to B through R.  open() makes B's end of the second link: until then frames wait in R."""

    def __init__(self, made: World, config: DatapathConfig | None = None, *, is_open: bool = True) -> None:
        self.world = made
        self.a, self.r, self.b = made.node(A4), made.node(config=config), made.node(B4, B6)
        self.link_a, self.link_ra = made.join(self.a, self.r)
        self.link_rb, self.link_b = LinkId(80), LinkId(81)
        self.ends, self.dtls = (made.socket(), made.socket()), made.pair_keys()
        made.add_link(self.r, self.link_rb, self.ends[0], self.ends[1].getsockname(), self.dtls[0])
        made.map(self.r, self.link_rb)
        self.before = Hop(self.link_ra, TETHER, CHANNEL_COUNT, label_out=REVERSE, label_in=FORWARD)
        self.ahead = Hop(self.link_rb, TETHER, CHANNEL_COUNT, label_out=FORWARD_2, label_in=REVERSE_2)
        now = time.monotonic()
        self.r.datapath.add_relay(self.before, self.ahead, now=now)
        data, feedback = keys()
        self.a.datapath.add_egress(B, (B4, B6), now=now)
        self.a.datapath.add_sender(B, STREAM, data, feedback, offload_kinds=(f.OFFLOAD,), now=now)
        hop = Hop(self.link_a, TETHER, CHANNEL_COUNT, label_out=FORWARD, label_in=REVERSE)
        self.a.datapath.set_route(STREAM, hop, now=now)
        self.b.datapath.add_receiver(STREAM, A, SOURCES, data, feedback, offload_kinds=(f.OFFLOAD,), now=now)
        hop = Hop(self.link_b, TETHER, CHANNEL_COUNT, label_out=REVERSE_2, label_in=FORWARD_2)
        self.b.datapath.add_receiver_route(STREAM, hop, now=now)
        if is_open:
            self.open()

    def open(self, *, mapped: bool = True) -> None:
        """Make B's end of the second link.

        mapped: B takes frames from the first datagram on.  Else every frame comes up as a message.
        """
        with deaf(self.ends[1]):  # nothing may arrive before the streams are mapped
            self.world.add_link(self.b, self.link_b, self.ends[1], self.ends[0].getsockname(), self.dtls[1])
            if mapped:
                self.world.map(self.b, self.link_b)

    def await_open(self) -> None:
        """Wait until both ends of both links may send."""
        sides = ((self.a, self.link_a), (self.r, self.link_ra), (self.r, self.link_rb), (self.b, self.link_b))
        self.world.until(lambda: all(node.engine.link(link)["open"] for node, link in sides))

    def route(self) -> RelayStatus:
        """Return R's only route, as status shows it."""
        (route,) = self.r.datapath.status().relays
        return route

    def at_relay(self, frame: bytes, stream: int = 0) -> None:
        """Send R a frame on one of the tether's streams."""
        assert self.a.wire.send(self.link_a, stream, BINARY, frame)


def frame(number: int, *, size: int = 0, label: int = FORWARD, flags: int = 0) -> bytes:
    """Return a frame under a key of no stream: R passes it on, B refuses it."""
    sealer = Sender(f.CHACHA20_POLY1305, number.to_bytes(32, "big"), b"npre", 0)
    return sealer.seal(label, flags, [(f.PADDING, bytes(size))])


def messages(node: Node) -> list[WireMessage]:
    """Return the messages that came up."""
    return [upcall for upcall in node.wires if isinstance(upcall, WireMessage)]


def test_packets_pass_whole_and_in_order_of_their_flow(made: World) -> None:
    chain = Chain(made)
    for wave in waves(600):
        for number in wave:
            chain.a.send(udp(number, port=5000 + number % 3, size=number))
        made.until(lambda wave=wave: len(chain.b.packets) == wave.stop)
    for port in range(5000, 5003):
        numbers = [number_of(packet) for packet in chain.b.packets if port_of(packet) == port]
        assert sorted(numbers) == list(range(port - 5000, 600, 3))
    assert chain.a.drops == chain.r.drops == chain.b.drops == {}
    assert chain.r.packets == []


def test_feedback_finds_its_way_back_along_the_labels(made: World) -> None:
    chain = Chain(made)
    chain.a.send(udp())
    made.until(lambda: any(isinstance(upcall, Feedback) for upcall in chain.a.upcalls))
    chain.b.datapath.queue_entry(STREAM, f.REKEY, b"answer")
    made.until(lambda: Entry(STREAM, f.REKEY, b"answer", 0) in chain.a.upcalls)
    assert chain.route().frames_ahead == 1
    assert chain.route().frames_back == 2
    assert chain.r.upcalls == []


def test_only_the_label_changes_and_the_channel_stays(made: World) -> None:
    chain = Chain(made)
    chain.await_open()
    chain.b.wire.unmap(chain.link_b, TETHER)
    chain.b.wires.clear()
    for stream in (0, 2, 4, 6):
        chain.at_relay(frame(stream), stream)
    made.until(lambda: len(messages(chain.b)) == 4)
    assert {(each.stream, each.data) for each in messages(chain.b)} == {
        (stream, relabel(frame(stream), FORWARD_2, False)) for stream in (0, 2, 4, 6)
    }


def test_frames_that_wait_for_the_next_link_go_when_it_opens_and_a_long_queue_is_marked(made: World) -> None:
    chain = Chain(made, DatapathConfig(relay_mark_bytes=4000, relay_age_s_max=15.0), is_open=False)
    for number in range(20):
        chain.a.send(udp(number, size=1000, tos=2))
        made.until(lambda number=number: chain.a.engine.sender(1).counter == number + 1)
    made.until(lambda: chain.r.engine.link(chain.link_ra)["messages_received"] == 20)
    chain.open()
    made.until(lambda: len(chain.b.packets) == 20)
    marks = {number_of(packet): packet[1] & 3 for packet in chain.b.packets}
    assert marks == {number: 3 if number < 16 else 2 for number in range(20)}, "the frames with 4000 bytes behind them"
    made.until(lambda: any(isinstance(upcall, Feedback) and upcall.marked_count == 16 for upcall in chain.a.upcalls))


@pytest.mark.parametrize(
    ("config", "reason", "kept"),
    [
        (DatapathConfig(relay_route_bytes_max=8000, relay_age_s_max=15.0), "relay-full", range(4, 10)),
        (DatapathConfig(relay_bytes_per_s=1000, relay_mark_bytes=2**30, relay_age_s_max=15.0), "relay-rate", None),
    ],
)
def test_frames_without_room_or_allowance_at_a_relay_are_dropped(
    made: World, config: DatapathConfig, reason: str, kept: range | None
) -> None:
    chain = Chain(made, config, is_open=False)
    count = 10 if kept is not None else 80
    for number in range(count):
        chain.at_relay(frame(number, size=1000))
    made.until(lambda: chain.r.engine.link(chain.link_ra)["messages_received"] == count)
    lost = chain.r.drops[reason]
    assert chain.r.drops == {reason: lost}
    chain.open(mapped=False)
    made.until(lambda: len(messages(chain.b)) == count - lost)
    if kept is not None:
        assert [each.data for each in messages(chain.b)] == [
            relabel(frame(number, size=1000), FORWARD_2, each.data[1] & f.CE != 0)
            for number, each in zip(kept, messages(chain.b), strict=True)
        ]


def test_frames_that_waited_too_long_are_dropped(made: World) -> None:
    chain = Chain(made, DatapathConfig(relay_age_s_max=0.05), is_open=False)
    chain.at_relay(frame(1))
    made.until(lambda: chain.r.engine.link(chain.link_ra)["messages_received"])
    made.pass_time(0.1)
    chain.open()
    made.until(lambda: chain.r.drops == {"relay-aged": 1})


def test_frames_of_a_removed_route_are_dropped(made: World) -> None:
    chain = Chain(made, DatapathConfig(relay_age_s_max=15.0), is_open=False)
    for number in range(3):
        chain.at_relay(frame(number))
    made.until(lambda: chain.r.engine.link(chain.link_ra)["messages_received"] == 3)
    chain.r.datapath.remove_relay(chain.link_rb, REVERSE_2)
    chain.r.datapath.remove_relay(chain.link_rb, REVERSE_2)
    assert chain.r.drops == {"relay-gone": 3}
    chain.at_relay(frame(4))
    made.until(lambda: chain.r.drops == {"relay-gone": 3, "unknown-label": 1})


def test_a_frame_for_a_tether_that_is_gone_is_dropped(made: World) -> None:
    chain = Chain(made)
    chain.await_open()
    chain.r.wire.unmap(chain.link_rb, TETHER)
    chain.at_relay(frame(1))
    made.until(lambda: chain.r.drops == {"no-tether": 1})


def test_a_removed_next_link_costs_only_the_frames_for_it(made: World) -> None:
    chain = Chain(made)
    chain.await_open()
    chain.r.wire.remove(chain.link_rb)
    for number in range(5):
        chain.at_relay(frame(number))
    made.until(lambda: chain.r.engine.link(chain.link_ra)["messages_received"] == 5)
    chain.r.datapath.remove_relay(chain.link_ra, FORWARD)
    assert chain.r.drops == {"relay-gone": 5}


def test_frames_from_a_removed_link_still_go_on(made: World) -> None:
    chain = Chain(made, DatapathConfig(relay_age_s_max=15.0), is_open=False)
    chain.a.send(udp(1))
    made.until(lambda: chain.r.engine.link(chain.link_ra)["messages_received"])
    chain.r.wire.remove(chain.link_ra)
    chain.open()
    made.until(lambda: chain.b.packets == [udp(1)])


def test_wrong_labels_flags_and_directions_pass_nothing(made: World) -> None:
    chain = Chain(made)
    chain.await_open()
    chain.at_relay(frame(1, label=FORWARD + 1))
    chain.at_relay(frame(1, label=REVERSE_2))
    made.until(lambda: chain.r.drops == {"unknown-label": 2})
    chain.at_relay(frame(1, flags=f.FEEDBACK))  # it goes up, and Python does not know the label either
    made.until(lambda: chain.r.drops == {"unknown-label": 3})
    chain.at_relay(b"\x02" + frame(1)[1:])
    chain.at_relay(frame(1)[:1] + b"\x80" + frame(1)[2:])
    chain.at_relay(b"short")
    made.until(lambda: chain.r.drops == {"unknown-label": 3, "version": 1, "reserved": 1, "truncated": 1})
    assert chain.route().frames_ahead == 0


def test_a_frame_that_a_relay_forged_is_dropped_at_the_end(made: World) -> None:
    chain = Chain(made)
    chain.await_open()
    chain.r.wire.send(chain.link_rb, 0, BINARY, frame(1, label=FORWARD_2))
    made.until(lambda: chain.b.drops == {"auth": 1})
    assert peek(frame(1, label=FORWARD_2))[2] == FORWARD_2
    assert chain.b.upcalls == []


def test_a_route_back_over_its_own_link_is_refused(made: World) -> None:
    chain = Chain(made)
    back = Hop(chain.link_ra, TETHER, CHANNEL_COUNT, 7, 8)
    with pytest.raises(LocalProtocolError):
        chain.r.datapath.add_relay(Hop(chain.link_ra, TETHER, CHANNEL_COUNT, 5, 6), back, now=time.monotonic())
    assert len(chain.r.datapath.status().relays) == 1
