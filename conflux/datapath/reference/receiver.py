"""The receiving end of one stream in the reference datapath: it opens bundles and delivers the packets in them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from conflux.anchor import frame as f
from conflux.anchor.codec import Receiver, peek
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import Hop
from conflux.datapath.drop import Drop
from conflux.datapath.interface import Entry
from conflux.datapath.outlets import Outlets
from conflux.datapath.packet import mark_congestion, parse
from conflux.datapath.receiving import Arrived, Receiving, ReceivingEpoch
from conflux.datapath.reference.networks import Networks
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId, StreamId
from conflux.policy.guard import Verdict

_REFUSALS = {Verdict.REFUSED: Drop.POLICY, Verdict.UNFIT: Drop.POLICY_UNFIT, Verdict.PIECE: Drop.POLICY_PIECE}


class ReceiverEpoch(ReceivingEpoch):
    """One epoch of the stream: its keys, and what arrived under them."""

    __slots__ = ("bytes", "data", "highest", "highest_at")

    def __init__(self, data: EpochKey, feedback: EpochKey) -> None:
        super().__init__(feedback)
        self.data = Receiver(data.aead, data.key, data.nonce_prefix, data.epoch)
        self.bytes = 0
        self.highest = -1
        self.highest_at = 0.0  # when the highest counter arrived

    def erase(self) -> None:
        """Erase both keys."""
        self.data.erase()
        super().erase()


class StreamReceiver(Receiving[ReceiverEpoch]):
    """Made by add_receiver(); accepts frames under the labels of its routes."""

    __slots__ = ("_deliver", "_guards", "_own", "_seen_at", "_sources", "frame_bytes", "frame_count", "packet_count")

    def __init__(
        self,
        stream: StreamId,
        source: NodeId,
        inner_sources: tuple[IPv4Network | IPv6Network, ...],
        data: EpochKey,
        feedback: EpochKey,
        outlets: Outlets,
        now: float,
    ) -> None:
        self.frame_bytes = 0  # ever, as the counts
        self.frame_count = 0
        self.packet_count = 0
        self._deliver = outlets.deliver
        self._own = outlets.own
        self._guards = outlets.guards
        self._sources = Networks(inner_sources)
        self._seen_at = now
        super().__init__(stream, source, ReceiverEpoch(data, feedback), outlets, now)

    def rekey(self, data: EpochKey, feedback: EpochKey) -> None:
        """Accept the next epoch too."""
        self._expect_epoch(ReceiverEpoch(data, feedback))

    # ── in ──

    def frame_untrusted(self, hop: Hop, frame: bytes, header: tuple[int, int, int, int], now: float) -> None:
        """Take one frame that came under hop.label_in.  header: peek(frame).  Raises RemoteProtocolError."""
        flags, number, _, counter = header
        entries = self._unseal_untrusted(frame, header, now)
        if hop is not self.hop and number == self._epoch.number and counter == self._epoch.highest:
            self.hop = hop  # the sender's newest frame took this route
        self._came(now)
        marked = flags & f.CE
        own, guards = self._own, self._guards
        sources = self._sources
        for kind, body in entries:
            if kind == f.PACKET:
                try:
                    source, destination, _ = parse(body)
                except RemoteProtocolError as error:
                    self._drop(error.reason)
                    continue
                if source not in sources:
                    self._drop(Drop.SPOOFED)
                elif destination not in own:
                    self._drop(Drop.NOT_OURS)
                elif guards and (verdict := guards[0].incoming(body, now)) is not Verdict.PASS:
                    self._drop(_REFUSALS[verdict])
                else:
                    if marked:
                        # RFC 6040: a relay marked the frame, and the ends of the flow inside must learn of it.
                        body = mark_congestion(body) or body
                    self.packet_count += 1
                    self._deliver(body)
            elif kind in (f.REKEY, f.CONFIRM):
                self._outlets.upcall_untrusted(Entry(self.stream, kind, body, number))
            elif kind == f.REPORT:
                self.ask_untrusted(body)
            elif kind != f.PADDING:
                # END is valid only in a route's teardown; offloads are never agreed on with this datapath.
                self._drop(Drop.MISPLACED_ENTRY)

    def verify_last_untrusted(self, frame: bytes) -> bool:
        """Say whether a frame holds one END entry and is verified for the first time; count why not."""
        try:
            entries = self._unseal_untrusted(frame, peek(frame), self._seen_at)  # the END is no sign of life
        except RemoteProtocolError as error:
            self._drop(error.reason)
            return False
        return entries == [(f.END, b"")]

    def _unseal_untrusted(self, frame: bytes, header: tuple[int, int, int, int], now: float) -> list[tuple[int, bytes]]:
        _, number, _, counter = header
        epoch = self._epoch
        if number != epoch.number:
            epoch = self._other_epoch(number)
        entries = epoch.data.unseal(frame)
        if epoch is self._next:
            self._switch_epoch(epoch, now)
        epoch.bytes += len(frame) - f.HEADER_BYTES - f.TAG_BYTES
        if counter > epoch.highest:
            epoch.highest = counter
            epoch.highest_at = now
        self.frame_count += 1
        self.frame_bytes += len(frame)
        self._seen_at = now
        return entries

    def _other_epoch(self, number: int) -> ReceiverEpoch:
        for epoch in (self._next, self._before):
            if epoch is not None and epoch.number == number:
                return epoch
        raise RemoteProtocolError(Drop.UNKNOWN_EPOCH)

    def _active_at(self) -> float:
        return self._seen_at

    def _arrived(self) -> Arrived:
        epoch = self._epoch
        data = epoch.data
        return Arrived(
            highest=data.highest,
            highest_at=epoch.highest_at,
            received=data.received,
            marked=data.marked,
            bytes=epoch.bytes,
            frames_ever=self.frame_count,
            packets_ever=self.packet_count,
            bytes_ever=self.frame_bytes,
        )
