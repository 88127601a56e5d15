"""The receiving end of one stream whose frames the engine opens: what Python keeps of it."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from conflux.datapath.interface import EpochKey, OutFrame
from conflux.datapath.outlets import Outlets
from conflux.datapath.receiving import Arrived, Receiving, ReceivingEpoch
from conflux.ids import NodeId, StreamId

if TYPE_CHECKING:
    from conflux.datapath._engine import Engine


class NativeReceiver(Receiving[ReceivingEpoch]):
    """Made by add_receiver(); its labels are the datapath's to add and remove."""

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
        self._engine.rekey_receiver(self.handle, data)
        self._expect_epoch(ReceivingEpoch(feedback))

    def erase(self) -> None:
        super().erase()
        self._engine.remove_receiver(self.handle)

    def verify_last_untrusted(self, frame: bytes) -> bool:
        return self._engine.verify_last(self.handle, frame)

    def came(self, now: float) -> None:
        """Take note of the engine's word that a frame came, the first since it was asked to tell."""
        self._look(notify=False, now=now)
        self._came(now)

    def feedback(self, now: float) -> OutFrame | None:
        self._look(notify=True, now=now)
        return super().feedback(now)

    def _look(self, *, notify: bool, now: float) -> None:
        """Catch up with the engine: the epoch may have turned, and the newest frame may have taken another route."""
        seen = self._engine.receiver(self.handle, notify)
        if self._next is not None and seen[0] == self._next.number:
            self._turn_epoch(self._next, now)
        if (hop := self.routes.get((seen[9], seen[10]))) is not None:
            self.hop = hop

    # ── what arrived ──

    def _active_at(self) -> float:
        return self._engine.receiver(self.handle, False)[8]

    def _arrived(self) -> Arrived:
        _, highest, received, marked, bytes_, highest_at = self._engine.receiver(self.handle, False)[:6]
        return Arrived(highest, highest_at, received, marked, bytes_)

    def _idle_fire(self, now: float) -> None:
        self._engine.receiver(self.handle, True)
        super()._idle_fire(now)

    def _grace_fire(self, now: float) -> None:
        self._engine.forget_epoch(self.handle)
        super()._grace_fire(now)

    def status(self) -> dict[str, object]:
        """What a person may see."""
        frames, packets = self._engine.receiver(self.handle, False)[6:8]
        return {**self._status(), "frames": frames, "packets": packets}
