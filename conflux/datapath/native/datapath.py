"""The native datapath: interface.Tables in front of the engine, which moves every packet and frame without Python.

    node ─tables──►  here  ─►  engine  ◄─► TUN, UDP
         ◄─upcalls─        ◄─          one eventfd for all it has to say

Python does what happens a few times a second: it keeps packets for addresses that no egress serves, seals and reads
reports, and runs the streams' timers.  The engine counts, and says when the first frame after a silence was sent or
came.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from conflux.anchor.codec import peek
from conflux.anchor.frame import OFFLOAD, OFFLOAD_HEADER_BYTES, REPORT
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import Hop, OutFrame
from conflux.carrier.wire import WireUpcall
from conflux.datapath.config import DatapathConfig
from conflux.datapath.drop import Drop
from conflux.datapath.interface import EchoListener, Entry, Label
from conflux.datapath.native import _engine
from conflux.datapath.native.door import EngineCounts, EngineUpcall, RelayState
from conflux.datapath.native.receiver import NativeReceiver
from conflux.datapath.native.sender import NativeSender
from conflux.datapath.native.wire import NativeWire, wire_upcall
from conflux.datapath.packet import parse
from conflux.datapath.status import DatapathStatus, EgressStatus, RelaySideStatus, RelayStatus
from conflux.datapath.tables import StreamTables
from conflux.errors import RemoteProtocolError
from conflux.ids import IPAddress, LinkId, NodeId, StreamId, format_node_id

TYPE_CHECKING = False  # a node without a policy does without
if TYPE_CHECKING:
    from conflux.policy.guard import PolicyTables

NO_OFFLOAD: Final = bytes(OFFLOAD_HEADER_BYTES)


class _Egress:
    """One destination: the engine's handle of its queue, and the sender that empties it."""

    __slots__ = ("addresses", "destination", "handle", "sender")

    def __init__(self, destination: NodeId, handle: int) -> None:
        self.destination = destination
        self.handle = handle
        self.addresses: tuple[IPAddress, ...] = ()
        self.sender: NativeSender | None = None


class NativeDatapath(StreamTables[NativeSender, NativeReceiver]):
    """interface.Tables in front of the engine; the contracts stand there.  wire: the engine as a carrier sees it.

    tun: descriptor of a device that was opened with offload headers, or -1.  segments_udp: the device takes UDP
    super-packets.  entropy(n): n random bytes.  device_lost: called once, when the device is gone.
    """

    name = "native"
    offload_kinds: tuple[int, ...] = (OFFLOAD,)

    def __init__(
        self,
        config: DatapathConfig | None = None,
        *,
        tun: int = -1,
        segments_udp: bool = False,
        entropy: Callable[[int], bytes] = os.urandom,
        device_lost: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config, own=set(), deliver=self._deliver)
        self._engine = _engine.Engine(tun, segments_udp, self._config, entropy)
        self.wire = NativeWire(self._engine)
        self._entropy = entropy
        self._device_lost = device_lost
        self._wire_upcall: Callable[[WireUpcall], None] = lambda upcall: None
        self._echo: EchoListener | None = None
        self._egresses: dict[NodeId, _Egress] = {}
        self._senders_by_handle: dict[int, NativeSender] = {}
        self._receivers_by_handle: dict[int, NativeReceiver] = {}
        self._collected: deque[EngineUpcall] = deque()  # taken from the engine, and not handled yet
        self._counts_last: EngineCounts | None = None  # once stopped

    @property
    def fd(self) -> int:
        """Readable when collect() has something to do."""
        return self._engine.fd

    def attach(self, wire_upcall: Callable[[WireUpcall], None], echo: EchoListener | None = None) -> None:
        """Say what to call for upcalls about links, and what takes echo replies."""
        self._wire_upcall = wire_upcall
        self._echo = echo
        if echo is not None:
            echo.on_change = self._engine.tap

    # ── tables: egress ──

    def configure(self, own: tuple[IPAddress, ...], realm: tuple[IPv4Network | IPv6Network, ...]) -> None:
        """Say which addresses are ours and which networks the realm spans."""
        self._engine.configure(
            _hosts(own), [(network.network_address.packed, network.netmask.packed) for network in realm]
        )

    def set_policy(self, tables: PolicyTables | None) -> None:
        """Judge every packet by these tables from now on; None: all pass."""
        if tables is None:
            self._engine.clear_policy()
        else:
            incoming, outgoing = tables.incoming.encode(), tables.outgoing.encode()
            self._engine.set_policy(incoming, outgoing, int.from_bytes(self._entropy(8)))

    def add_egress(self, destination: NodeId, addresses: tuple[IPAddress, ...], *, now: float) -> None:
        """Give a destination its queue, or its queue other addresses."""
        if self.meets is not None:
            self.meets(destination)
        egress = self._egresses.get(destination)
        if egress is None:
            egress = self._egresses[destination] = _Egress(destination, self._engine.add_egress())
        egress.addresses = addresses
        self._engine.set_addresses(egress.handle, _hosts(addresses))
        for waiting in self._pending.take(address.packed for address in addresses):
            self._engine.packet(waiting.entry[1], waiting.came_at)

    def remove_egress(self, destination: NodeId, reason: str) -> None:
        """Remove a destination's queue, and detach its sender."""
        egress = self._egresses.pop(destination, None)
        if egress is None:
            return
        if egress.sender is not None:
            egress.sender.detach()
        if dropped := self._engine.remove_egress(egress.handle):
            self._drops[reason] += dropped

    # ── tables: sender ──

    def _make_sender(
        self,
        destination: NodeId,
        stream: StreamId,
        data: EpochKey,
        feedback: EpochKey,
        offload_kinds: tuple[int, ...],
        now: float,
    ) -> NativeSender:
        sender = NativeSender(
            self._engine,
            self._egresses[destination].handle,
            destination,
            stream,
            data,
            feedback,
            self._outlets,
            offloads=OFFLOAD in offload_kinds,
            now=now,
        )
        self._senders_by_handle[sender.handle] = sender
        return sender

    def _empties(self, sender: NativeSender) -> bool:
        egress = self._egresses.get(sender.destination)
        return egress is not None and egress.sender is sender

    def _erase_sender(self, sender: NativeSender) -> None:
        del self._senders_by_handle[sender.handle]
        if self._empties(sender):
            self._egresses[sender.destination].sender = None
        sender.erase()

    def _queue_sender_entry(self, sender: NativeSender, kind: int, body: bytes) -> None:
        sender.queue_entry(kind, body)

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
    ) -> NativeReceiver:
        receiver = NativeReceiver(
            self._engine,
            stream,
            source,
            inner_sources,
            data,
            feedback,
            self._outlets,
            offloads=OFFLOAD in offload_kinds,
            now=now,
        )
        self._receivers_by_handle[receiver.handle] = receiver
        return receiver

    def _take_label(self, receiver: NativeReceiver, hop: Hop) -> bool:
        return self._engine.add_label(receiver.handle, hop.link, hop.label_in)

    def remove_receiver_route(self, link: LinkId, label: int) -> None:
        """Accept no more frames under a label."""
        self._engine.remove_label(link, label)
        for receiver in self._receivers.values():
            receiver.remove_route(link, label)

    def _give_labels_back(self, receiver: NativeReceiver) -> None:
        del self._receivers_by_handle[receiver.handle]
        for link, label in receiver.routes:
            self._engine.remove_label(link, label)

    def _receives(self, label: Label) -> bool:
        return self._engine.holds_label(*label)

    # ── tables: relay ──

    def _relays_under(self, label: Label, *, feedback: bool) -> bool:
        return self._engine.relay_holds(*label, feedback)

    def _make_relay(self, before: Hop, ahead: Hop, now: float) -> None:
        self._engine.add_relay(before, ahead)

    def remove_relay(self, link: LinkId, label_in: int) -> None:
        """Pass nothing on under a label any more."""
        self._engine.remove_relay(link, label_in)

    # ── bytes: those few that come from Python ──

    def packet(self, packet: bytes, *, now: float) -> None:
        """Take one IP packet that Python made."""
        self._engine.packet(NO_OFFLOAD + packet, now)

    def frame_untrusted(self, link: LinkId, data: bytes, *, now: float, channel: int = 0) -> None:
        """Take one feedback frame that the engine sent up; the engine takes every other frame itself."""
        try:
            _, _, label, _ = peek(data)
            sender = self._feedback_labels.get((link, label))
            if sender is None:
                raise RemoteProtocolError(Drop.UNKNOWN_LABEL)
            sender.feedback_untrusted(data, now)
        except RemoteProtocolError as error:
            self._drop(error.reason)

    def drain(self, wanted: tuple[NodeId, ...], *, now: float) -> None:
        """Send the feedback that is due; the engine sends the rest by itself."""
        while (frame := self._next_feedback(now)) is not None:
            self._send(frame)

    def _send(self, frame: OutFrame) -> None:
        hop = Hop(frame.link, frame.tether, frame.channel + 1, label_out=0, label_in=0)
        self._engine.send_frame(hop, frame.channel, frame.data)

    def task_names(self) -> list[str]:
        """Return no name: no task runs per destination."""
        return []

    async def close(self) -> None:
        """No-op for the pump: links may still say goodbye; stop() ends the engine."""

    def stop(self) -> None:
        """Stop the engine's thread and wipe every key.  Only counts and status may be asked for afterwards."""
        if self._counts_last is not None:
            return
        self._drops.update(self._engine.drops())
        self._counts_last = self._engine.counts()
        self._engine.close()

    # ── upcalls ──

    def collect(self, *, now: float) -> None:
        """Handle what the engine has to say.  If an upcall raises, fd stays readable: the next call does the rest."""
        if not self._collected:  # until these are handled, the engine keeps the others, within its bounds
            self._collected.extend(self._engine.take_upcalls())
        try:
            while self._collected:
                self._collect_one(self._collected.popleft(), now)
        except BaseException:
            os.eventfd_write(self.fd, 1)
            raise

    def _collect_one(self, upcall: EngineUpcall, now: float) -> None:
        match upcall.kind:
            case _engine.SENT:
                if (sender := self._senders_by_handle.get(upcall.handle)) is not None:
                    sender.sent(now)
            case _engine.ARRIVED:
                if (receiver := self._receivers_by_handle.get(upcall.handle)) is not None:
                    receiver.came(now)
            case _engine.FEEDBACK:
                self.frame_untrusted(LinkId(upcall.link), upcall.data, now=now)
            case _engine.ENTRY:
                self._entry_untrusted(upcall.handle, upcall.a, upcall.b, upcall.data)
            case _engine.PACKET:
                self._hold(upcall.data, upcall.came_at)
            case _engine.ECHO:
                # A ping is timed by the clock: now is from before the upcalls ahead of this one.
                packet = upcall.data[OFFLOAD_HEADER_BYTES:]
                if self._echo is None or not self._echo.take(packet, now=time.monotonic()):
                    self._engine.deliver(upcall.data)  # it is another program's
            case _engine.REFUSED:
                self._pending.answer(upcall.data[OFFLOAD_HEADER_BYTES:], Drop.POLICY_SENT, now)
            case _engine.DEVICE_LOST:
                self._device_lost()
            case _:
                self._wire_upcall(wire_upcall(upcall))

    def _entry_untrusted(self, handle: int, kind: int, epoch: int, body: bytes) -> None:
        receiver = self._receivers_by_handle.get(handle)
        if receiver is None:
            return  # the receiver was removed while the entry was on its way
        if kind == REPORT:
            receiver.ask_untrusted(body)
        else:
            self._upcall_untrusted(Entry(receiver.stream, kind, body, epoch))

    def _hold(self, data: bytes, came_at: float) -> None:
        """Keep a packet for an address that no egress served when it came."""
        _, destination, flow = parse(data[OFFLOAD_HEADER_BYTES:])
        address = ip_address(destination)
        if any(address in egress.addresses for egress in self._egresses.values()):
            self._engine.packet(data, came_at)  # its egress was made in the meantime
        else:
            self._pending.push(destination, (OFFLOAD, data), flow, came_at)

    def _deliver(self, packet: bytes) -> None:
        """Give the TUN device a packet that Python made; what arrives in frames, the engine delivers."""
        self._engine.deliver(NO_OFFLOAD + packet)

    # ── what came of it ──

    def drop_counts(self) -> Mapping[str, int]:
        """Return every drop so far, by reason: the engine's and those made here."""
        drops = Counter({} if self._counts_last is not None else self._engine.drops())
        drops.pop(Drop.CLEARED, None)  # remove_egress() counted them under its reason
        drops.update(self._drops)
        return dict(drops)

    def device_counts(self) -> tuple[int, int]:
        """Return how many packets came from the device and went to it."""
        counts = self._counts_last or self._engine.counts()
        return counts.tun_read, counts.tun_written

    def status(self) -> DatapathStatus:
        """Return streams, queues and counters; after stop(), drops alone."""
        if self._counts_last is not None:
            return DatapathStatus(self.name, (), (), (), (), (), self.drop_counts())
        return DatapathStatus(
            name=self.name,
            egresses=tuple(self._egress_status(egress) for egress in self._egresses.values()),
            pending=self._pending.status(),
            senders=tuple(sender.status() for sender in self._senders.values()),
            receivers=tuple(receiver.status() for receiver in self._receivers.values()),
            relays=tuple(_relay_status(state) for state in self._engine.relays()),
            drops=self.drop_counts(),
            traffic=self._traffic(),
        )

    def _egress_status(self, egress: _Egress) -> EgressStatus:
        state = self._engine.egress(egress.handle)
        return EgressStatus(
            destination=format_node_id(egress.destination),
            addresses=tuple(str(address) for address in egress.addresses),
            stream=None if egress.sender is None else egress.sender.stream.hex(),
            packets=state.packets,
            bytes=state.bytes,
            marked_packets=state.marked,
        )


def _hosts(addresses: tuple[IPAddress, ...]) -> list[tuple[bytes, bytes]]:
    return [(address.packed, b"\xff" * len(address.packed)) for address in addresses]


def _relay_status(state: RelayState) -> RelayStatus:
    return RelayStatus(
        before=RelaySideStatus(*state.before),
        ahead=RelaySideStatus(*state.ahead),
        frames_ahead=state.frames_ahead,
        bytes_ahead=state.bytes_ahead,
        frames_back=state.frames_back,
        bytes_back=state.bytes_back,
    )
