"""The sending end of one stream whose frames the engine seals: Python's part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conflux.anchor import frame as f
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import Hop
from conflux.datapath.drop import Drop
from conflux.datapath.feedback import encode_interval
from conflux.datapath.outlets import Outlets
from conflux.datapath.sending import Moved, Sending, SendingEpoch
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId, StreamId

if TYPE_CHECKING:
    from conflux.datapath.native._engine import Engine


class NativeSender(Sending[SendingEpoch]):
    """Made by add_sender().  egress: the engine's handle of the destination.  handle: that of this sender."""

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
        """Start the next epoch."""
        self._engine.rekey_sender(self.handle, data)
        self._switch_epoch(SendingEpoch(feedback), now)

    def set_route(self, hop: Hop | None) -> None:
        """Send over hop from now on."""
        self._engine.set_route(self.handle, hop)
        super().set_route(hop)
        self._route.counter_first = self._engine.sender(self.handle).route_first  # the engine may have sent more

    def detach(self) -> None:
        """Send nothing more; the engine keeps the key for last_frame()."""
        super().detach()
        self._egress = None
        self._engine.detach_sender(self.handle)

    def erase(self) -> None:
        """Detach, and erase every key, the engine's too."""
        super().erase()
        self._engine.remove_sender(self.handle)

    def sent(self, now: float) -> None:
        """Take note of the engine's SENT: a frame was sent, the first since the notice was armed."""
        if self.hop is not None:
            self._sent(now)

    def last_frame(self) -> bytes:
        """Have the engine seal the END entry under label 0."""
        return self._engine.seal_last(self.handle)

    def queue_entry(self, kind: int, body: bytes) -> None:
        """Send an entry in the next frame.  Raises LocalProtocolError if no frame could hold it."""
        self._engine.queue_entry(self.handle, kind, body)

    # ── what was sent when ──

    def _active_at(self) -> float:
        return 0.0 if self._egress is None else self._engine.egress(self._egress).active_at

    def _counter(self) -> int:
        return self._engine.sender(self.handle).counter

    def _reported_untrusted(self, epoch: SendingEpoch, counter: int, now: float) -> float | None:
        if epoch is not self._epoch:
            return None  # the engine forgot its counters with its key
        state = self._engine.sender(self.handle)
        if counter >= state.counter:
            raise RemoteProtocolError(Drop.BAD_REPORT, "a counter never sent")
        if state.bytes_sealed >= self._config.epoch_bytes_max and not epoch.rekey_told:
            self._rekey_due()
        return self._engine.sender_reported(self.handle, counter, now)

    def _unreported_count(self) -> int:
        # Whether any frame is out, not how many: frames that follow the report are no silence, SENT announces them.
        return int(self._engine.sender(self.handle).silent_since is not None)

    def _ask_interval(self, interval_s: float) -> None:
        self._engine.queue_entry(self.handle, f.REPORT, encode_interval(interval_s))

    def _idle_fire(self, now: float) -> None:
        self._engine.notify_sent(self.handle)  # if the stream lives on, its next frame arms the timer again
        super()._idle_fire(now)

    def _destination(self) -> NodeId:
        return self.destination

    def _moved(self) -> Moved:
        state = self._engine.sender(self.handle)
        return Moved(state.frames, state.packets, state.bytes)
