"""Any interleaving of packets, frames, tables and time keeps the contracts, and no bytes of a peer raise."""

from __future__ import annotations

import struct
from collections import Counter, deque
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from conflux.anchor import frame as f
from conflux.anchor.codec import Sender, relabel
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import Hop
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Feedback, Miss, RekeyDue, Suspect
from conflux.datapath.packet import mark_congestion, parse
from conflux.datapath.reference.datapath import ReferenceDatapath
from conflux.errors import RemoteProtocolError
from conflux.ids import LinkId, NodeId, StreamId, TetherId

HERE, THERE = ip_address("100.64.0.1"), ip_address("100.64.0.2")
REALM = (ip_network("100.64.0.0/16"),)
DESTINATION, STREAM, TETHER = NodeId(b"d" * 16), StreamId(b"s" * 16), TetherId(b"t" * 8)
HOPS = tuple(Hop(LinkId(link), TETHER, 3, label_out=link + 10, label_in=link + 20) for link in (1, 2))
HOPS_BACK = tuple(Hop(hop.link, TETHER, 3, label_out=hop.label_in, label_in=hop.label_out) for hop in HOPS)
FLOWS = st.integers(0, 5)


def epoch_keys(epoch: int) -> tuple[EpochKey, EpochKey]:
    """Return the data key and the feedback key of an epoch."""

    def one(letter: bytes) -> EpochKey:
        return EpochKey(epoch % 256, f.CHACHA20_POLY1305, letter + epoch.to_bytes(31, "big"), b"npre")

    return one(b"d"), one(b"b")


def packet(number: int, flow: int, size: int = 0) -> bytes:
    """Return one packet that says its flow and number."""
    payload = struct.pack(">HHHH", 5000 + flow, 7, 0, 0) + number.to_bytes(4, "big") + bytes(size)
    ecn = number % 2 * 2
    head = struct.pack(">BBHHHBBH", 0x45, ecn, 20 + len(payload), 0, 0, 64, 17, 0) + HERE.packed + THERE.packed
    return head + payload


def flow_and_number(delivered: bytes) -> tuple[int, int]:
    """Return what packet() wrote into a packet."""
    return int.from_bytes(delivered[20:22], "big"), int.from_bytes(delivered[28:32], "big")


class Conversation(RuleBasedStateMachine):
    """One sender, one receiver, two routes.  The carrier keeps each route's order, and loses frames only when told."""

    lossless = True

    @initialize()
    def begin(self) -> None:
        """Make both ends and their tables."""
        config = DatapathConfig(queue_packets_max=40, queue_bytes_max=40_000, bundle_bytes_max=4000, epoch_s=3.0)
        self.near, self.far = ReferenceDatapath(config), ReferenceDatapath(config)
        self.near.configure((HERE,), REALM)
        self.far.configure((THERE,), REALM)
        self.now = 100.0
        self.number = 0
        self.accepted: dict[tuple[int, int], bytes] = {}
        self.delivered: list[bytes] = []
        self.flight: deque[tuple[Hop, bytes]] = deque()
        self.feedback_flight: deque[tuple[LinkId, bytes]] = deque()
        self.egress = self.sender = self.routed = False
        self.epoch = 0
        self.lost_packets = 0
        self.suspects = self.rekeys = 0
        self.far.add_receiver(STREAM, NodeId(b"n" * 16), (ip_network(f"{HERE}/32"),), *epoch_keys(0), now=self.now)
        for hop in HOPS_BACK:
            self.far.add_receiver_route(STREAM, hop, now=self.now)

    @rule(flow=FLOWS, size=st.sampled_from([0, 0, 1000, 3000, 5000]), count=st.integers(1, 12))
    def send(self, flow: int, size: int, count: int) -> None:
        """Packets come from the near device."""
        for _ in range(count):
            self.number += 1
            body = packet(self.number, flow, size)
            self.accepted[flow_and_number(body)] = body
            self.near.packet(body, now=self.now)

    @rule()
    @precondition(lambda self: not self.sender)
    def open(self) -> None:
        """The near end gets its stream."""
        if not self.egress:
            self.near.add_egress(DESTINATION, (THERE,), now=self.now)
            self.egress = True
        self.near.add_sender(DESTINATION, STREAM, *epoch_keys(0), now=self.now)
        self.sender = True

    @rule(which=st.sampled_from([0, 1, None]))
    @precondition(lambda self: self.sender)
    def route(self, which: int | None) -> None:
        """The stream takes another route, or none."""
        self.near.set_route(STREAM, None if which is None else HOPS[which], now=self.now)
        self.routed = which is not None

    @rule(count=st.integers(1, 5))
    def pull(self, count: int) -> None:
        """The carrier takes frames from the near end."""
        for _ in range(count):
            promised = DESTINATION in self.near.sendable()
            out = self.near.next_frame(DESTINATION, now=self.now)
            assert (out is not None) == promised
            if out is not None:
                assert len(out.data) <= f.FRAME_BYTES_MAX
                self.flight.append((next(hop for hop in HOPS if hop.link == out.link), out.data))

    @rule(count=st.integers(1, 8), twice=st.booleans(), marked=st.booleans())
    def arrive(self, count: int, twice: bool, marked: bool) -> None:
        """Frames arrive at the far end, perhaps twice, perhaps marked."""
        for _ in range(min(count, len(self.flight))):
            hop, data = self.flight.popleft()
            for _ in range(1 + twice):
                self.far.frame_untrusted(hop.link, relabel(data, hop.label_out, marked), now=self.now)
        while (body := self.far.next_delivery()) is not None:
            self.delivered.append(body)

    @rule()
    @precondition(lambda self: not self.lossless and self.flight)
    def lose(self) -> None:
        """The carrier loses a frame."""
        self.flight.popleft()

    @rule()
    def report(self) -> None:
        """The carrier takes feedback from the far end."""
        while (out := self.far.next_feedback(now=self.now)) is not None:
            self.feedback_flight.append((out.link, out.data))

    @rule(lose=st.booleans())
    def report_arrives(self, lose: bool) -> None:
        """Feedback arrives at the near end, or is lost."""
        while self.feedback_flight:
            link, data = self.feedback_flight.popleft()
            if not lose:
                self.near.frame_untrusted(link, data, now=self.now)

    @rule()
    @precondition(lambda self: self.sender and not self.flight)
    def rekey(self) -> None:
        """Both agree on the next epoch."""
        self.epoch += 1
        self.far.rekey_receiver(STREAM, *epoch_keys(self.epoch), now=self.now)
        self.near.rekey_sender(STREAM, *epoch_keys(self.epoch), now=self.now)
        self.rekeys = 0

    @rule(elapsed_s=st.sampled_from([0.0, 0.0005, 0.01, 0.1, 0.3, 1.0]))
    def wait(self, elapsed_s: float) -> None:
        """Time passes."""
        self.now += elapsed_s
        for datapath in (self.near, self.far):
            at = datapath.next_timeout()
            if at is not None and at <= self.now:
                datapath.handle_timeout(now=self.now)
            at = datapath.next_timeout()
            assert at is None or at > self.now, "a timeout that was handled is not due again"

    @rule(data=st.binary(max_size=80), link=st.integers(1, 2))
    def noise(self, data: bytes, link: int) -> None:
        """Bytes that no end sealed arrive."""
        self.far.frame_untrusted(LinkId(link), data, now=self.now)
        self.near.frame_untrusted(LinkId(link), data, now=self.now)

    @invariant()
    def upcalls_make_sense(self) -> None:
        """Both ends report what can be true, once."""
        if not hasattr(self, "near"):
            return
        while (upcall := self.near.next_upcall()) is not None:
            if isinstance(upcall, Miss):
                assert not self.egress
            elif isinstance(upcall, RekeyDue):
                self.rekeys += 1
                assert self.rekeys == 1, "once per epoch"
            elif isinstance(upcall, Suspect):
                assert self.routed
            elif isinstance(upcall, Feedback):
                assert 0 < upcall.received_count <= upcall.counter_highest + 1
                assert upcall.rtt_s is None or upcall.rtt_s >= 0
                assert upcall.delay_change_us is None or upcall.delay_change_us >= 0
        while self.far.next_upcall() is not None:
            pass

    @invariant()
    def delivered_once_unchanged_and_in_order(self) -> None:
        """The far end delivers what the near end accepted: once, unchanged, and each flow in order."""
        if not hasattr(self, "near"):
            return
        seen = [flow_and_number(body) for body in self.delivered]
        assert len(seen) == len(set(seen))
        for flow in {port for port, _ in seen}:
            numbers = [number for port, number in seen if port == flow]
            assert numbers == sorted(numbers)
        for body, name in zip(self.delivered, seen, strict=True):
            sent = self.accepted[name]
            assert body in (sent, mark_congestion(sent))

    @invariant()
    def every_packet_is_somewhere(self) -> None:
        """Every packet was delivered, was dropped under a reason, is queued, or is in flight."""
        if not hasattr(self, "near") or not self.lossless:
            return
        status = self.near.status()
        queued = sum(each.packets for each in status.egresses) + sum(each.packets for each in status.pending)
        sealed = sum(sender.packets for sender in status.senders)
        drops = Counter(self.near.drop_counts())
        lost = drops["queue-full"] + drops["aged"] + drops["codel"] + drops["pending-full"]
        assert len(self.accepted) == queued + sealed + lost
        if not self.flight:
            assert sealed == len(self.delivered)

    def teardown(self) -> None:
        """In the end every packet has one fate."""
        if not hasattr(self, "near") or not self.lossless or not self.sender:
            return
        self.near.set_route(STREAM, HOPS[0], now=self.now)
        while self.near.sendable():
            self.pull(1)
        self.arrive(len(self.flight) + 1, False, False)
        self.delivered_once_unchanged_and_in_order()
        self.every_packet_is_somewhere()


class LossyConversation(Conversation):
    """The same, over a carrier that loses frames."""

    lossless = False


Conversation.TestCase.settings = LossyConversation.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestConversation = Conversation.TestCase
TestLossyConversation = LossyConversation.TestCase


def pair() -> tuple[ReferenceDatapath, ReferenceDatapath]:
    """A's stream to B."""
    near, far = ReferenceDatapath(), ReferenceDatapath()
    near.configure((HERE,), REALM)
    far.configure((THERE,), REALM)
    near.add_egress(DESTINATION, (THERE,), now=0.0)
    near.add_sender(DESTINATION, STREAM, *epoch_keys(0), now=0.0)
    near.set_route(STREAM, HOPS[0], now=0.0)
    far.add_receiver(STREAM, NodeId(b"n" * 16), (ip_network(f"{HERE}/32"),), *epoch_keys(0), now=0.0)
    far.add_receiver_route(STREAM, HOPS_BACK[0], now=0.0)
    return near, far


@given(data=st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_from_the_carrier_are_a_counted_drop(data: bytes) -> None:
    for datapath in pair():
        before = sum(datapath.drop_counts().values())
        datapath.frame_untrusted(LinkId(1), data, now=1.0)
        assert sum(datapath.drop_counts().values()) == before + 1
        assert datapath.next_delivery() is None
        assert datapath.next_upcall() is None
        assert datapath.next_feedback(now=1.0) is None


@given(
    flags=st.integers(0, 255),
    epoch=st.integers(0, 255),
    label=st.sampled_from([11, 21, 0]),
    body=st.binary(max_size=64),
)
@settings(deadline=None)
def test_any_bytes_behind_a_good_header_are_a_counted_drop(flags: int, epoch: int, label: int, body: bytes) -> None:
    data = struct.pack(">BBBBIQ", f.VERSION, flags, epoch, 0, label, 0) + body
    for datapath in pair():
        datapath.frame_untrusted(LinkId(1), data, now=1.0)
        assert sum(datapath.drop_counts().values()) == 1


ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(sorted(f.KINDS)),
        st.one_of(
            st.binary(min_size=11, max_size=64),
            st.builds(lambda raw: b"\x45" + raw, st.binary(min_size=10, max_size=40)),
            st.builds(packet, st.integers(0, 9), FLOWS),
            st.builds(
                lambda counts, times: struct.pack(">QQQQQII", *counts, *times),
                st.tuples(*[st.integers(0, 3) | st.integers(0, 2**64 - 1)] * 5),
                st.tuples(*[st.integers(0, 2**32 - 1)] * 2),
            ),
        ),
    ),
    max_size=8,
)


@given(forward=st.lists(ENTRIES, max_size=4), back=st.lists(ENTRIES, max_size=4))
@settings(deadline=None)
def test_frames_that_an_authenticated_peer_seals_never_raise(
    forward: list[list[tuple[int, bytes]]], back: list[list[tuple[int, bytes]]]
) -> None:
    near, far = pair()
    near.packet(packet(1, 1), now=0.0)
    near.next_frame(DESTINATION, now=0.0)
    data, feedback = (Sender(each.aead, each.key, each.nonce_prefix, each.epoch) for each in epoch_keys(0))
    for index, entries in enumerate(forward):
        far.frame_untrusted(LinkId(1), data.seal(11, 0, entries), now=1.0 + index)
    for index, entries in enumerate(back):
        near.frame_untrusted(LinkId(1), feedback.seal(21, f.FEEDBACK, entries), now=1.0 + index)
    while (body := far.next_delivery()) is not None:
        source, destination, _ = parse(body)
        assert (source, destination) == (HERE.packed, THERE.packed)
    assert near.next_delivery() is None
    for datapath in (near, far):
        datapath.handle_timeout(now=10.0)
        while datapath.next_upcall() is not None:
            pass


@given(
    body=st.one_of(
        st.binary(max_size=80),
        st.builds(lambda raw: b"\x45\0\0" + bytes([len(raw) + 4]) + raw, st.binary(min_size=16, max_size=80)),
        st.builds(lambda raw: b"\x60\0\0\0\0" + bytes([len(raw) - 34]) + raw, st.binary(min_size=34, max_size=80)),
    )
)
def test_parse_refuses_or_reads_within_bounds(body: bytes) -> None:
    try:
        source, destination, flow = parse(body)
    except RemoteProtocolError:
        return
    assert len(source) == len(destination) == (4 if body[0] >> 4 == 4 else 16)
    assert 0 <= flow < 2**32
    marked = mark_congestion(body)
    assert marked is None or parse(marked) == (source, destination, flow)
