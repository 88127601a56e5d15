"""The native datapath: interface.Tables in front of the engine, which moves every packet and frame without Python.

    node ─tables──►  here  ─►  engine  ◄─► TUN, UDP
         ◄─upcalls─        ◄─          one eventfd for all it has to say

What stays in Python is what happens a few times a second: packets whose destination nobody knows yet wait here, reports
are sealed and read here, and the streams' timers run here.  The engine counts, and says when the first frame after a
silence went or came.
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
from conflux.carrier.wire import WireUpcall
from conflux.datapath import _engine
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Entry, EpochKey, Hop, OutFrame
from conflux.datapath.native_receiver import NativeReceiver
from conflux.datapath.native_sender import NativeSender
from conflux.datapath.native_wire import NativeWire, wire_upcall
from conflux.datapath.packet import parse
from conflux.datapath.tables import Label, StreamTables
from conflux.echo import Echo
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import IPAddress, LinkId, NodeId, StreamId, format_node_id

NO_OFFLOAD: Final = bytes(OFFLOAD_HEADER_BYTES)


class _Egress:
    """One destination: the engine's handle of its queue, and who empties it."""

    __slots__ = ("addresses", "destination", "handle", "sender")

    def __init__(self, destination: NodeId, handle: int) -> None:
        self.destination = destination
        self.handle = handle
        self.addresses: tuple[IPAddress, ...] = ()
        self.sender: NativeSender | None = None


class NativeDatapath(StreamTables[NativeSender, NativeReceiver]):
    """See interface.Tables, which says what every method promises, and tables.py.  wire: what it is to a carrier.

    tun: descriptor of a device opened with offload headers, or -1.  segments_udp: it takes UDP super-packets.
    device_lost: called once, when the device was taken away.
    """

    name = "native"
    offload_kinds: tuple[int, ...] = (OFFLOAD,)

    def __init__(
        self,
        config: DatapathConfig | None = None,
        *,
        tun: int = -1,
        segments_udp: bool = False,
        device_lost: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config, own=set(), deliver=self._no_delivery)
        self._engine = _engine.Engine(tun, segments_udp, self._config)
        self.wire = NativeWire(self._engine)
        self._device_lost = device_lost
        self._wire_upcall: Callable[[WireUpcall], None] = lambda upcall: None
        self._echo: Echo | None = None
        self._egresses: dict[NodeId, _Egress] = {}
        self._senders_by_handle: dict[int, NativeSender] = {}
        self._receivers_by_handle: dict[int, NativeReceiver] = {}
        self._collected: deque[_engine._Upcall] = deque()  # taken from the engine, and not handled yet
        self._stopped = False
        self._counts = (0, 0)

    @property
    def fd(self) -> int:
        """Readable when collect() has something to do."""
        return self._engine.fd

    def attach(self, wire_upcall: Callable[[WireUpcall], None], echo: Echo | None = None) -> None:
        """Say who hears of links, and who waits for echo replies."""
        self._wire_upcall = wire_upcall
        self._echo = echo
        if echo is not None:
            echo.on_change = self._engine.tap

    # ── tables: egress ──

    def configure(self, own: tuple[IPAddress, ...], realm: tuple[IPv4Network | IPv6Network, ...]) -> None:
        self._engine.configure(
            _hosts(own), [(network.network_address.packed, network.netmask.packed) for network in realm]
        )

    def add_egress(self, destination: NodeId, addresses: tuple[IPAddress, ...], *, now: float) -> None:
        egress = self._egresses.get(destination)
        if egress is None:
            egress = self._egresses[destination] = _Egress(destination, self._engine.add_egress())
        egress.addresses = addresses
        self._engine.set_addresses(egress.handle, _hosts(addresses))
        for queued_at, _, (_, packet) in self._pending.take(address.packed for address in addresses):
            self._engine.packet(packet, queued_at)

    def remove_egress(self, destination: NodeId, reason: str) -> None:
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
        self._engine.remove_relay(link, label_in)

    # ── bytes: those few that come from Python ──

    def packet(self, packet: bytes, *, now: float) -> None:
        self._engine.packet(NO_OFFLOAD + packet, now)

    def frame_untrusted(self, link: LinkId, data: bytes, *, now: float, channel: int = 0) -> None:
        """Take one feedback frame, which the engine sends up; all others it takes itself."""
        try:
            label = peek(data)[2]
            sender = self._feedback_labels.get((link, label))
            if sender is None:
                raise RemoteProtocolError("unknown-label")
            sender.feedback_untrusted(data, now)
        except RemoteProtocolError as error:
            self._drop(error.reason)

    def drain(self, wanted: tuple[NodeId, ...], *, now: float) -> None:
        """Send the feedback that is due; all else the engine sends by itself."""
        while (frame := self._next_feedback(now)) is not None:
            self._send(frame)

    def _send(self, frame: OutFrame) -> None:
        hop = Hop(frame.link, frame.tether, frame.channel + 1, label_out=0, label_in=0)
        self._engine.send_frame(hop, frame.channel, frame.data)

    def task_names(self) -> list[str]:
        """No task of ours runs for a destination."""
        return []

    async def close(self) -> None:
        """Stop moving for the pump; links may still say goodbye."""

    def stop(self) -> None:
        """Stop the engine's thread and wipe every key; of all that may be called, only what counts answers still."""
        if self._stopped:
            return
        self._drops.update(self._engine.drops())
        self._counts = self._engine.counts()[:2]
        self._stopped = True
        self._engine.close()

    # ── upcalls ──

    def collect(self, *, now: float) -> None:
        """See interface.Tables.  What follows an upcall whose handling raises is the next call's, which fd asks for."""
        if not self._collected:  # else the engine holds the others back, within its bounds
            self._collected.extend(self._engine.take_upcalls())
        try:
            while self._collected:
                self._collect_one(self._collected.popleft(), now)
        except BaseException:
            os.eventfd_write(self.fd, 1)
            raise

    def _collect_one(self, upcall: _engine._Upcall, now: float) -> None:
        kind, link, handle, a, b, data, address = upcall
        match kind:
            case _engine.SENT:
                if (sender := self._senders_by_handle.get(handle)) is not None:
                    sender.sent(now)
            case _engine.ARRIVED:
                if (receiver := self._receivers_by_handle.get(handle)) is not None:
                    receiver.came(now)
            case _engine.FEEDBACK:
                self.frame_untrusted(LinkId(link), data, now=now)
            case _engine.ENTRY:
                self._entry_untrusted(handle, a, b, data)
            case _engine.PACKET:
                self._hold(data, (a << 32 | b) / 1e9)
            case _engine.ECHO:
                if self._echo is None or not self._echo.take(data, now=time.monotonic()):
                    self._drop("echo-unasked")
            case _engine.DEVICE_LOST:
                self._device_lost()
            case _:
                self._wire_upcall(wire_upcall(kind, LinkId(link), a, b, data, address))

    def _entry_untrusted(self, handle: int, kind: int, epoch: int, body: bytes) -> None:
        receiver = self._receivers_by_handle.get(handle)
        if receiver is None:
            return  # it went while the entry was on its way
        if kind == REPORT:
            receiver.ask_untrusted(body)
        else:
            self._upcall_untrusted(Entry(receiver.stream, kind, body, epoch))

    def _hold(self, data: bytes, came_at: float) -> None:
        """Keep a packet for an address that no egress served when it came."""
        _, destination, flow = parse(data[OFFLOAD_HEADER_BYTES:])
        address = ip_address(destination)
        if any(address in egress.addresses for egress in self._egresses.values()):
            self._engine.packet(data, came_at)  # its egress was made while it was on its way up
        else:
            self._pending.push(destination, (OFFLOAD, data), flow, came_at)

    @staticmethod
    def _no_delivery(packet: bytes) -> None:
        raise LocalProtocolError("the engine delivers")

    # ── what came of it ──

    def drop_counts(self) -> Mapping[str, int]:
        drops = Counter({} if self._stopped else self._engine.drops())
        drops.pop("cleared", None)  # counted under the reason that cleared them
        drops.update(self._drops)
        return dict(drops)

    def device_counts(self) -> tuple[int, int]:
        """Return how many packets the device gave and took."""
        return self._counts if self._stopped else self._engine.counts()[:2]

    def status(self) -> Mapping[str, object]:
        if self._stopped:
            nothing: dict[str, object] = {key: [] for key in ("egresses", "pending", "senders", "receivers", "relays")}
            return {"name": self.name, **nothing, "drops": self.drop_counts()}
        return {
            "name": self.name,
            "egresses": [self._egress_status(egress) for egress in self._egresses.values()],
            "pending": self._pending.status(),
            "senders": [sender.status() for sender in self._senders.values()],
            "receivers": [receiver.status() for receiver in self._receivers.values()],
            "relays": [_relay_status(row) for row in self._engine.relays()],
            "drops": self.drop_counts(),
        }

    def _egress_status(self, egress: _Egress) -> dict[str, object]:
        size, packets, marked, _ = self._engine.egress(egress.handle)
        return {
            "destination": format_node_id(egress.destination),
            "addresses": [str(address) for address in egress.addresses],
            "stream": None if egress.sender is None else egress.sender.stream.hex(),
            "packets": packets,
            "bytes": size,
            "marked": marked,
        }


def _hosts(addresses: tuple[IPAddress, ...]) -> list[tuple[bytes, bytes]]:
    return [(address.packed, b"\xff" * len(address.packed)) for address in addresses]


def _relay_status(row: tuple[tuple[int, int, int], tuple[int, int, int], int, int, int, int]) -> dict[str, object]:
    before, ahead, frames_ahead, bytes_ahead, frames_back, bytes_back = row
    return {
        "before": dict(zip(("link", "label_in", "label_out"), before, strict=True)),
        "ahead": dict(zip(("link", "label_in", "label_out"), ahead, strict=True)),
        "frames_ahead": frames_ahead,
        "bytes_ahead": bytes_ahead,
        "frames_back": frames_back,
        "bytes_back": bytes_back,
    }
