"""The sending end of one stream in the reference datapath: it seals bundles."""

from __future__ import annotations

from math import nan

from conflux.anchor import frame as f
from conflux.anchor.codec import Sender
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import OutFrame
from conflux.datapath.entries import Entries
from conflux.datapath.feedback import SentTimes, encode_interval
from conflux.datapath.outlets import Outlets
from conflux.datapath.reference.egress import Egress
from conflux.datapath.sending import Moved, Sending, SendingEpoch
from conflux.errors import LocalProtocolError
from conflux.ids import NodeId, StreamId


class SenderEpoch(SendingEpoch):
    """One epoch of the stream: its keys, and what was sent under them."""

    __slots__ = ("data", "sent")

    def __init__(self, data: EpochKey, feedback: EpochKey) -> None:
        super().__init__(feedback)
        self.data = Sender(data.aead, data.key, data.nonce_prefix, data.epoch)
        self.sent = SentTimes()

    def erase_data(self) -> None:
        """Erase the key of the data."""
        self.data.erase()


class StreamSender(Sending[SenderEpoch]):
    """Made by add_sender(); it sends nothing before it has a hop."""

    __slots__ = ("_interval_asked", "bytes_sent", "egress", "entries", "frame_count", "packet_count")

    def __init__(
        self,
        stream: StreamId,
        egress: Egress[StreamSender],
        data: EpochKey,
        feedback: EpochKey,
        outlets: Outlets,
        now: float,
    ) -> None:
        self.egress = egress
        self.entries = Entries(
            count_max=outlets.config.entry_count_max, bytes_max=outlets.config.bundle_bytes_max, drop=outlets.drop
        )
        self.frame_count = 0
        self.packet_count = 0
        self.bytes_sent = 0  # whole frames
        self._interval_asked: float | None = None  # goes with the next frame
        super().__init__(stream, SenderEpoch(data, feedback), outlets, now)

    def rekey(self, data: EpochKey, feedback: EpochKey, now: float) -> None:
        """Start the next epoch."""
        self._switch_epoch(SenderEpoch(data, feedback), now)

    # ── out ──

    def frame(self, now: float) -> OutFrame:
        """Seal one frame of what waits.  Something must wait, and there must be a hop: else LocalProtocolError."""
        hop = self.hop
        if hop is None:
            raise LocalProtocolError("no route")
        egress = self.egress
        bucket = 0
        entries, size = self.entries.take()
        if self._interval_asked is not None:
            entries.append((f.REPORT, encode_interval(self._interval_asked)))
            size += f.ENTRY_HEADER_BYTES + len(entries[-1][1])
            self._interval_asked = None
        if egress.queue.packet_count:
            bucket, packets = egress.queue.take(self._config.bundle_bytes_max - size, now)
            self.packet_count += len(packets)
            entries = entries + packets if entries else packets
            egress.active_at = now
        epoch = self._epoch
        frame = epoch.data.seal(hop.label_out, 0, entries)
        epoch.sent.sent(now)
        self.frame_count += 1
        self.bytes_sent += len(frame)
        self._sent(now)
        if epoch.data.bytes_sealed >= self._config.epoch_bytes_max and not epoch.rekey_told:
            self._rekey_due()
        return OutFrame(hop.link, hop.tether, bucket % hop.channel_count, frame)

    def last_frame(self) -> bytes:
        """Seal the END entry under label 0."""
        frame = self._epoch.data.seal(0, 0, [(f.END, b"")])
        self._epoch.sent.sent(nan)
        return frame

    # ── what was sent when ──

    def _active_at(self) -> float:
        return self.egress.active_at

    def _counter(self) -> int:
        return self._epoch.data.counter

    def _reported_untrusted(self, epoch: SenderEpoch, counter: int, now: float) -> float | None:
        return epoch.sent.reported(counter)

    def _unreported_count(self) -> int:
        return self._epoch.sent.count

    def _ask_interval(self, interval_s: float) -> None:
        self._interval_asked = interval_s

    def _destination(self) -> NodeId:
        return self.egress.destination

    def _moved(self) -> Moved:
        return Moved(self.frame_count, self.packet_count, self.bytes_sent)
