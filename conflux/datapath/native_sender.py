"""The sending end of one stream whose frames the engine seals: what Python keeps of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conflux.anchor import frame as f
from conflux.datapath.feedback import encode_interval
from conflux.datapath.interface import EpochKey, Hop
from conflux.datapath.outlets import Outlets
from conflux.datapath.sending import Sending, SendingEpoch
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId, StreamId, format_node_id

if TYPE_CHECKING:
    from conflux.datapath._engine import Engine


class NativeSender(Sending[SendingEpoch]):
    """Made by add_sender().  egress: the engine's handle of the destination."""

    __slots__ = ("_egress", "_engine", "destination", "handle")

    def __init__(
        self,
        engine: Engine,
        egress: int,
        destination: NodeId,
        stream: StreamId,
        data: EpochKey,
        feedback: EpochKey,
        outlets: Outlets,
        *,
        offloads: bool,
        now: float,
    ) -> None:
        self.destination = destination
        self._engine = engine
        self._egress: int | None = egress
        self.handle = engine.add_sender(egress, data, offloads)
        super().__init__(stream, SendingEpoch(feedback), outlets, now)

    def rekey(self, data: EpochKey, feedback: EpochKey, now: float) -> None:
        self._engine.rekey_sender(self.handle, data)
        self._turn_epoch(SendingEpoch(feedback), now)

    def set_route(self, hop: Hop | None) -> None:
        self._engine.set_route(self.handle, hop)
        super().set_route(hop)
        self._route_first = self._engine.sender(self.handle)[2]  # frames may have gone since

    def detach(self) -> None:
        super().detach()
        self._egress = None
        self._engine.detach_sender(self.handle)

    def erase(self) -> None:
        super().erase()
        self._engine.remove_sender(self.handle)

    def sent(self, now: float) -> None:
        """Take note of the engine's word that a frame went, the first since it was asked to tell."""
        if self.hop is not None:
            self._sent(now)

    def last_frame(self) -> bytes:
        return self._engine.seal_last(self.handle)

    def queue_entry(self, kind: int, body: bytes) -> None:
        """Send an entry with the next frame.  Raises LocalProtocolError for one that no frame could hold."""
        self._engine.queue_entry(self.handle, kind, body)

    # ── what was sent when ──

    def _active_at(self) -> float:
        return 0.0 if self._egress is None else self._engine.egress(self._egress)[3]

    def _counter(self) -> int:
        return self._engine.sender(self.handle)[1]

    def _reported_untrusted(self, epoch: SendingEpoch, counter: int, now: float) -> float | None:
        if epoch is not self._epoch:
            return None  # its counters went with its key
        next_counter, bytes_sealed = self._engine.sender(self.handle)[1:4:2]
        if counter >= next_counter:
            raise RemoteProtocolError("bad-report", "a counter never sent")
        if bytes_sealed >= self._config.epoch_bytes_max and not epoch.rekey_told:
            self._rekey_fire(now)
        return self._engine.sender_reported(self.handle, counter, now)[0]

    def _unreported_count(self) -> int:
        # Not by counters: what went since the report is not lost in silence, the engine tells when it goes.
        return int(self._engine.sender(self.handle)[7] > 0)

    def _ask_interval(self, interval_s: float) -> None:
        self._engine.queue_entry(self.handle, f.REPORT, encode_interval(interval_s))

    def _idle_fire(self, now: float) -> None:
        self._engine.notify_sent(self.handle)  # should the stream live on, its next packet wakes the timer
        super()._idle_fire(now)

    def status(self) -> dict[str, object]:
        """What a person may see."""
        _, _, _, _, frames, packets, bytes_sent, silent_since, _ = self._engine.sender(self.handle)
        return {
            **self._status(),
            "destination": format_node_id(self.destination),
            "frames": frames,
            "packets": packets,
            "bytes": bytes_sent,
            "unreported_frames": int(silent_since > 0),
        }
