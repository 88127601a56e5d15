"""The reference datapath: small, readable Python behind interface.Datapath.  It holds the tables and joins the parts.

packet ─► packet.parse ─► egress ─► queue ─► sender.frame ──────────► next_frame
                └► pending (Miss)              ▲ reports
frame_untrusted ─► label ─┬► sender.feedback_untrusted
                          ├► receiver.frame_untrusted ─► next_delivery
                          │             └► receiver.feedback ───────► next_feedback
                          └► relay ─────────────────────────────────► next_relayed

Every drop has a reason, counted:

    from the TUN device   packet-short packet-version packet-length packet-too-big bad-source no-destination
                          pending-full queue-full aged codel, and what refuse() and remove_egress() are given
    from the carrier      truncated oversized version reserved unknown-label unknown-epoch replay auth
                          malformed unknown-kind misplaced-entry bad-report upcall-full entry-full
    while passed on       relay-full relay-rate relay-aged relay-gone
    inside a good frame   packet-short packet-version packet-length spoofed not-ours delivery-full
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network

from conflux.anchor.codec import peek
from conflux.anchor.frame import BUNDLE_BYTES_MAX, ENTRY_HEADER_BYTES, FEEDBACK, PACKET
from conflux.datapath.config import DatapathConfig
from conflux.datapath.egress import Egress
from conflux.datapath.interface import EpochKey, Hop, OutFrame
from conflux.datapath.networks import Networks
from conflux.datapath.packet import parse
from conflux.datapath.receiver import StreamReceiver
from conflux.datapath.relay import RelayTable
from conflux.datapath.sender import StreamSender
from conflux.datapath.tables import Label, StreamTables
from conflux.errors import RemoteProtocolError
from conflux.ids import IPAddress, LinkId, NodeId, StreamId

PACKET_BYTES_MAX = BUNDLE_BYTES_MAX - ENTRY_HEADER_BYTES  # what one frame can carry


class ReferenceDatapath(StreamTables[StreamSender, StreamReceiver]):
    """See interface.Datapath, which says what every method promises, and tables.py."""

    name = "reference"
    offload_kinds: tuple[int, ...] = ()

    def __init__(self, config: DatapathConfig | None = None) -> None:
        self._own: set[bytes] = set()
        super().__init__(config, own=self._own, deliver=self._deliver)
        self._realm = Networks(())
        self._egresses: dict[NodeId, Egress] = {}
        self._by_address: dict[bytes, Egress] = {}
        self._ready: dict[NodeId, Egress] = {}  # those with something to send, the longest unserved first
        self._labels: dict[Label, tuple[StreamReceiver, Hop]] = {}
        self._deliveries: deque[bytes] = deque()
        self._delivery_bytes = 0
        self._relays = RelayTable(self._config, self._drop)

    # ── tables: egress ──

    def configure(self, own: tuple[IPAddress, ...], realm: tuple[IPv4Network | IPv6Network, ...]) -> None:
        self._own.clear()
        self._own.update(address.packed for address in own)
        self._realm = Networks(realm)

    def add_egress(self, destination: NodeId, addresses: tuple[IPAddress, ...], *, now: float) -> None:
        egress = self._egresses.get(destination)
        if egress is None:
            egress = self._egresses[destination] = Egress(destination, self._outlets, now)
        self._forget_addresses(egress)
        egress.addresses = tuple(address.packed for address in addresses)
        for address in egress.addresses:
            self._by_address[address] = egress
        for queued_at, flow, entry in self._pending.take(egress.addresses):
            egress.push(entry, flow, queued_at)
        egress.active_at = now
        self._update(egress, now)

    def remove_egress(self, destination: NodeId, reason: str) -> None:
        egress = self._egresses.pop(destination, None)
        if egress is None:
            return
        self._forget_addresses(egress)
        self._ready.pop(destination, None)
        egress.close(reason)
        if egress.sender is not None:
            egress.sender.detach()
            egress.sender = None

    def _forget_addresses(self, egress: Egress) -> None:
        for address in egress.addresses:
            if self._by_address.get(address) is egress:
                del self._by_address[address]

    def _update(self, egress: Egress, now: float) -> None:
        """Take note that the way out of an egress may have opened or closed."""
        egress.update(now)
        if egress.moving and (egress.queue.packet_count or (egress.sender is not None and egress.sender.entries)):
            self._ready.setdefault(egress.destination, egress)
        else:
            self._ready.pop(egress.destination, None)

    # ── tables: sender ──

    def _make_sender(
        self,
        destination: NodeId,
        stream: StreamId,
        data: EpochKey,
        feedback: EpochKey,
        offload_kinds: tuple[int, ...],
        now: float,
    ) -> StreamSender:
        return StreamSender(stream, self._egresses[destination], data, feedback, self._outlets, now)

    def _empties(self, sender: StreamSender) -> bool:
        return sender.egress.sender is sender

    def _rerouted(self, sender: StreamSender, now: float) -> None:
        self._update(sender.egress, now)

    def _erase_sender(self, sender: StreamSender) -> None:
        sender.erase()
        if self._empties(sender):
            sender.egress.sender = None
            sender.egress.hold()
            self._ready.pop(sender.egress.destination, None)

    def _queue_sender_entry(self, sender: StreamSender, kind: int, body: bytes) -> None:
        sender.entries.push(kind, body)
        if sender.hop is not None:
            self._ready.setdefault(sender.egress.destination, sender.egress)

    # ── tables: receiver ──

    def _make_receiver(
        self,
        stream: StreamId,
        source: NodeId,
        inner_sources: tuple[IPv4Network | IPv6Network, ...],
        data: EpochKey,
        feedback: EpochKey,
        offload_kinds: tuple[int, ...],
        now: float,
    ) -> StreamReceiver:
        return StreamReceiver(stream, source, inner_sources, data, feedback, self._outlets, now)

    def _take_label(self, receiver: StreamReceiver, hop: Hop) -> bool:
        label = (hop.link, hop.label_in)
        if self._labels.get(label, (receiver, hop))[0] is not receiver:
            return False
        self._labels[label] = (receiver, hop)
        return True

    def remove_receiver_route(self, link: LinkId, label: int) -> None:
        found = self._labels.pop((link, label), None)
        if found is not None:
            found[0].remove_route(link, label)

    def _give_labels_back(self, receiver: StreamReceiver) -> None:
        for label in receiver.routes:
            del self._labels[label]

    def _receives(self, label: Label) -> bool:
        return label in self._labels

    # ── tables: relay ──

    def _relays_under(self, label: Label, *, feedback: bool) -> bool:
        return self._relays.holds(label, feedback=feedback)

    def _make_relay(self, before: Hop, ahead: Hop, now: float) -> None:
        self._relays.add(before, ahead, now)

    def remove_relay(self, link: LinkId, label_in: int) -> None:
        self._relays.remove((link, label_in))

    # ── bytes ──

    def packet(self, packet: bytes, *, now: float) -> None:
        try:
            source, destination, flow = parse(packet)
        except RemoteProtocolError as error:
            self._drop(error.reason)
            return
        if source not in self._own:
            self._drop("bad-source")
            return
        if len(packet) > PACKET_BYTES_MAX:
            self._drop("packet-too-big")
            return
        egress = self._by_address.get(destination)
        if egress is not None:
            egress.push((PACKET, packet), flow, now)
            if egress.destination not in self._ready and egress.moving:
                self._ready[egress.destination] = egress
        elif destination in self._realm and destination not in self._own:
            self._pending.push(destination, (PACKET, packet), flow, now)
        else:
            self._drop("no-destination")  # multicast, another network, ourselves

    def frame_untrusted(self, link: LinkId, data: bytes, *, now: float, channel: int = 0) -> None:
        try:
            header = peek(data)
            label = (link, header[2])
            feedback = header[0] & FEEDBACK != 0
            if feedback:
                sender = self._feedback_labels.get(label)
                if sender is not None:
                    sender.feedback_untrusted(data, now)
                    return
            else:
                found = self._labels.get(label)
                if found is not None:
                    found[0].frame_untrusted(found[1], data, header, now)
                    return
            if not self._relays.receive_untrusted(label, feedback, channel, data, now):
                self._drop("unknown-label")
        except RemoteProtocolError as error:
            self._drop(error.reason)

    def sendable(self) -> tuple[NodeId, ...]:
        return tuple(self._ready)

    def hop(self, destination: NodeId) -> Hop | None:
        egress = self._egresses.get(destination)
        return None if egress is None or egress.sender is None else egress.sender.hop

    def next_frame(self, destination: NodeId, *, now: float) -> OutFrame | None:
        egress = self._ready.pop(destination, None)
        if egress is None or egress.sender is None:
            return None
        frame = egress.sender.frame(now)
        if egress.queue.packet_count:
            self._ready[destination] = egress  # behind all others
        return frame

    def next_feedback(self, *, now: float) -> OutFrame | None:
        return self._next_feedback(now)

    def relayable(self) -> tuple[LinkId, ...]:
        return self._relays.ready()

    def next_relayed(self, link: LinkId, *, now: float) -> OutFrame | None:
        return self._relays.next(link, now)

    def next_delivery(self) -> bytes | None:
        if not self._deliveries:
            return None
        packet = self._deliveries.popleft()
        self._delivery_bytes -= len(packet)
        return packet

    def collect(self, *, now: float) -> None:
        """There is no such thread."""

    # ── what came of it ──

    def drop_counts(self) -> Mapping[str, int]:
        return dict(self._drops)

    def status(self) -> Mapping[str, object]:
        return {
            "name": self.name,
            "egresses": [egress.status() for egress in self._egresses.values()],
            "pending": self._pending.status(),
            "senders": [sender.status() for sender in self._senders.values()],
            "receivers": [receiver.status() for receiver in self._receivers.values()],
            "relays": self._relays.status(),
            "drops": dict(self._drops),
        }

    def _deliver(self, packet: bytes) -> None:
        if self._delivery_bytes + len(packet) > self._config.delivery_bytes_max:
            self._drop("delivery-full")
            return
        self._deliveries.append(packet)
        self._delivery_bytes += len(packet)
