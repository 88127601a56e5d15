"""The reference datapath: readable Python behind interface.Datapath.  It holds the tables and joins the parts.

packet ─► packet.parse ─► egress ─► queue ─► sender.frame ──────────► next_frame
                └► pending (Miss)              ▲ reports
frame_untrusted ─► label ─┬► sender.feedback_untrusted
                          ├► receiver.frame_untrusted ─► next_delivery
                          │             └► receiver.feedback ───────► next_feedback
                          └► relay ─────────────────────────────────► next_relayed

Every drop is counted under a reason: those of drop.Drop, and those that refuse() and remove_egress() are given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network

from conflux.anchor.codec import peek
from conflux.anchor.frame import BUNDLE_BYTES_MAX, ENTRY_HEADER_BYTES, FEEDBACK, PACKET
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import Hop, OutFrame
from conflux.datapath.config import DatapathConfig
from conflux.datapath.drop import Drop
from conflux.datapath.interface import Label
from conflux.datapath.packet import parse
from conflux.datapath.reference.egress import Egress
from conflux.datapath.reference.networks import Networks
from conflux.datapath.reference.queue import AllQueues
from conflux.datapath.reference.receiver import StreamReceiver
from conflux.datapath.reference.relay import RelayTable
from conflux.datapath.reference.sender import StreamSender
from conflux.datapath.status import DatapathStatus
from conflux.datapath.tables import StreamTables
from conflux.errors import RemoteProtocolError
from conflux.ids import IPAddress, LinkId, NodeId, StreamId
from conflux.policy.guard import Guard, PolicyTables, Verdict

PACKET_BYTES_MAX = BUNDLE_BYTES_MAX - ENTRY_HEADER_BYTES  # what one frame can carry


class ReferenceDatapath(StreamTables[StreamSender, StreamReceiver]):
    """interface.Datapath in Python; the contracts stand there."""

    name = "reference"
    offload_kinds: tuple[int, ...] = ()

    def __init__(self, config: DatapathConfig | None = None) -> None:
        self._own: set[bytes] = set()
        self._guards: list[Guard] = []
        super().__init__(config, own=self._own, guards=self._guards, deliver=self._deliver)
        self._realm = Networks(())
        self._queues = AllQueues(self._config.queues_bytes_max)
        self._egresses: dict[NodeId, Egress[StreamSender]] = {}
        self._by_address: dict[bytes, Egress[StreamSender]] = {}
        self._ready: dict[NodeId, Egress[StreamSender]] = {}  # have something to send; the longest unserved first
        self._labels: dict[Label, tuple[StreamReceiver, Hop]] = {}
        self._deliveries: deque[bytes] = deque()
        self._delivery_bytes = 0
        self._relays = RelayTable(self._config, self._drop)

    # ── tables: egress ──

    def configure(self, own: tuple[IPAddress, ...], realm: tuple[IPv4Network | IPv6Network, ...]) -> None:
        """Say which addresses are ours and which networks the realm spans."""
        self._own.clear()
        self._own.update(address.packed for address in own)
        self._realm = Networks(realm)

    def set_policy(self, tables: PolicyTables | None) -> None:
        """Judge every packet by these tables from now on; None: all pass."""
        if tables is None:
            self._guards.clear()
            return
        if not self._guards:
            self._guards.append(Guard())
        self._guards[0].load(tables)

    def _refuses(self, packet: bytes, now: float) -> bool:
        """Say whether no rule lets a packet of this host to its destination, which is then counted and told."""
        if all(guard.outgoing(packet, now) is Verdict.PASS for guard in self._guards):
            return False
        self._drop(Drop.POLICY_SENT)
        self._pending.answer(packet, Drop.POLICY_SENT, now)
        return True

    def add_egress(self, destination: NodeId, addresses: tuple[IPAddress, ...], *, now: float) -> None:
        """Give a destination its queue, or its queue other addresses."""
        if self.meets is not None:
            self.meets(destination)
        egress = self._egresses.get(destination)
        if egress is None:
            egress = self._egresses[destination] = Egress(destination, self._queues, self._outlets, now)
        self._forget_addresses(egress)
        egress.addresses = tuple(address.packed for address in addresses)
        for address in egress.addresses:
            self._by_address[address] = egress
        for waiting in self._pending.take(egress.addresses):
            if not self._guards or not self._refuses(waiting.entry[1], now):
                egress.push(waiting.entry, waiting.flow, waiting.came_at)
        egress.active_at = now
        self._update(egress, now)

    def remove_egress(self, destination: NodeId, reason: str) -> None:
        """Remove a destination's queue, and detach its sender."""
        egress = self._egresses.pop(destination, None)
        if egress is None:
            return
        self._forget_addresses(egress)
        self._ready.pop(destination, None)
        egress.close(reason)
        if egress.sender is not None:
            egress.sender.detach()
            egress.sender = None

    def _forget_addresses(self, egress: Egress[StreamSender]) -> None:
        for address in egress.addresses:
            if self._by_address.get(address) is egress:
                del self._by_address[address]

    def _update(self, egress: Egress[StreamSender], now: float) -> None:
        """Take note that an egress may have gained or lost its route."""
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
        """Accept no more frames under a label."""
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
        """Pass nothing on under a label any more."""
        self._relays.remove((link, label_in))

    # ── bytes ──

    def packet(self, packet: bytes, *, now: float) -> None:
        """Take one IP packet from the TUN device."""
        try:
            source, destination, flow = parse(packet)
        except RemoteProtocolError as error:
            self._drop(error.reason)
            return
        if source not in self._own:
            self._drop(Drop.BAD_SOURCE)
            return
        if len(packet) > PACKET_BYTES_MAX:
            self._drop(Drop.PACKET_TOO_BIG)
            return
        egress = self._by_address.get(destination)
        if egress is not None:
            if self._guards and self._refuses(packet, now):
                return
            egress.push((PACKET, packet), flow, now)
            if egress.destination not in self._ready and egress.moving:
                self._ready[egress.destination] = egress
        elif destination in self._realm and destination not in self._own:
            self._pending.push(destination, (PACKET, packet), flow, now)
        else:
            self._drop(Drop.NO_DESTINATION)  # multicast, another network, ourselves

    def frame_untrusted(self, link: LinkId, data: bytes, *, now: float, channel: int = 0) -> None:
        """Take one message of a tether's data channel: feedback, data, or a frame to pass on."""
        try:
            header = flags, _, label_in, _ = peek(data)
            label = (link, label_in)
            feedback = flags & FEEDBACK != 0
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
                self._drop(Drop.UNKNOWN_LABEL)
        except RemoteProtocolError as error:
            self._drop(error.reason)

    def sendable(self) -> tuple[NodeId, ...]:
        """Return the destinations that have something to send, the longest unserved first."""
        return tuple(self._ready)

    def hop(self, destination: NodeId) -> Hop | None:
        """Return the hop that a destination's next frame will take."""
        egress = self._egresses.get(destination)
        return None if egress is None or egress.sender is None else egress.sender.hop

    def next_frame(self, destination: NodeId, *, now: float) -> OutFrame | None:
        """Return a destination's next frame, or None."""
        egress = self._ready.pop(destination, None)
        if egress is None or egress.sender is None:
            return None
        frame = egress.sender.frame(now)
        if egress.queue.packet_count:
            self._ready[destination] = egress  # behind all other destinations
        return frame

    def next_feedback(self, *, now: float) -> OutFrame | None:
        """Return one feedback frame that is due, or None."""
        return self._next_feedback(now)

    def relayable(self) -> tuple[LinkId, ...]:
        """Return the links that relayed frames wait for."""
        return self._relays.ready()

    def next_relayed(self, link: LinkId, *, now: float) -> OutFrame | None:
        """Return the next frame to pass on over a link, or None."""
        return self._relays.next(link, now)

    def next_delivery(self) -> bytes | None:
        """Return one IP packet for the TUN device, or None."""
        if not self._deliveries:
            return None
        packet = self._deliveries.popleft()
        self._delivery_bytes -= len(packet)
        return packet

    def collect(self, *, now: float) -> None:
        """No-op: the reference datapath has no thread."""

    # ── what came of it ──

    def drop_counts(self) -> Mapping[str, int]:
        """Return every drop so far, by reason."""
        return dict(self._drops)

    def status(self) -> DatapathStatus:
        """Return streams, queues and counters."""
        return DatapathStatus(
            name=self.name,
            egresses=tuple(egress.status() for egress in self._egresses.values()),
            pending=self._pending.status(),
            senders=tuple(sender.status() for sender in self._senders.values()),
            receivers=tuple(receiver.status() for receiver in self._receivers.values()),
            relays=self._relays.status(),
            drops=self.drop_counts(),
            traffic=self._traffic(),
        )

    def _deliver(self, packet: bytes) -> None:
        if self._delivery_bytes + len(packet) > self._config.delivery_bytes_max:
            self._drop(Drop.DELIVERY_FULL)
            return
        self._deliveries.append(packet)
        self._delivery_bytes += len(packet)
