"""The receiving end of one stream whose frames the engine opens: Python's part of it."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from conflux.anchor.key import EpochKey
from conflux.carrier.interface import OutFrame
from conflux.datapath.outlets import Outlets
from conflux.datapath.receiving import Arrived, Receiving, ReceivingEpoch
from conflux.ids import NodeId, StreamId

if TYPE_CHECKING:
    from conflux.datapath.native._engine import Engine


class NativeReceiver(Receiving[ReceivingEpoch]):
    """Made by add_receiver().  handle: the engine's.  The datapath adds and removes its labels."""

    __slots__ = ("_engine", "handle")

    def __init__(
        self,
        engine: Engine,
        stream: StreamId,
        source: NodeId,
        inner_sources: tuple[IPv4Network | IPv6Network, ...],
        data: EpochKey,
        feedback: EpochKey,
        outlets: Outlets,
        *,
        offloads: bool,
        now: float,
    ) -> None:
        self._engine = engine
        sources = [(network.network_address.packed, network.netmask.packed) for network in inner_sources]
        self.handle = engine.add_receiver(sources, data, offloads)
        super().__init__(stream, source, ReceivingEpoch(feedback), outlets, now)

    def rekey(self, data: EpochKey, feedback: EpochKey) -> None:
        """Accept the next epoch too."""
        self._engine.rekey_receiver(self.handle, data)
        self._expect_epoch(ReceivingEpoch(feedback))

    def erase(self) -> None:
        """Erase every key, the engine's too."""
        super().erase()
        self._engine.remove_receiver(self.handle)

    def verify_last_untrusted(self, frame: bytes) -> bool:
        """Say whether a frame holds one END entry and is verified for the first time."""
        return self._engine.verify_last(self.handle, frame)

    def came(self, now: float) -> None:
        """Take note of the engine's ARRIVED: a frame came, the first since the notice was armed."""
        self._look(notify=False, now=now)
        self._came(now)

    def feedback(self, now: float) -> OutFrame | None:
        """Seal the feedback that is due, and arm the notice of the next frame."""
        self._look(notify=True, now=now)
        return super().feedback(now)

    def _look(self, *, notify: bool, now: float) -> None:
        """Catch up with the engine: a new epoch may have begun, and the newest frame may have taken another route."""
        seen = self._engine.receiver(self.handle, notify)
        if self._next is not None and seen.epoch == self._next.number:
            self._switch_epoch(self._next, now)
        if (hop := self.routes.get((seen.link, seen.label))) is not None:
            self.hop = hop

    # ── what arrived ──

    def _active_at(self) -> float:
        return self._engine.receiver(self.handle, False).active_at

    def _arrived(self) -> Arrived:
        seen = self._engine.receiver(self.handle, False)
        return Arrived(
            highest=seen.highest,
            highest_at=seen.highest_at,
            received=seen.received,
            marked=seen.marked,
            bytes=seen.bytes,
            frames_ever=seen.frames,
            packets_ever=seen.packets,
            bytes_ever=seen.frame_bytes,
        )

    def _idle_fire(self, now: float) -> None:
        self._engine.receiver(self.handle, True)
        super()._idle_fire(now)

    def _grace_fire(self, now: float) -> None:
        self._engine.forget_epoch(self.handle)
        super()._grace_fire(now)
