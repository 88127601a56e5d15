"""The receiving end of a stream, as far as both datapaths share it: it reports what arrived, and watches time.

A subclass opens frames itself (reference/receiver.py) or has the engine open them (native/receiver.py), and knows what
arrived.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Generic, NamedTuple, TypeVar

from conflux.anchor import frame as f
from conflux.anchor.codec import Sender
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import Hop, OutFrame
from conflux.datapath.config import DatapathConfig
from conflux.datapath.entries import Entries
from conflux.datapath.feedback import Report, decode_interval_untrusted
from conflux.datapath.interface import Label, ReceiverIdle, ReceiverVerified
from conflux.datapath.outlets import Outlets
from conflux.datapath.status import ReceiverStatus
from conflux.datapath.timers import Timer
from conflux.datapath.traffic import Traffic
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId, StreamId, format_node_id

FEEDBACK_CHANNEL: Final = 0  # reports belong to no flow


class Arrived(NamedTuple):
    """What came in the present epoch; the last three count every epoch."""

    highest: int  # counter; -1: nothing yet
    highest_at: float  # when it arrived
    received: int  # frames
    marked: int  # of them, those that carried congestion experienced
    bytes: int  # of bundles
    frames_ever: int
    packets_ever: int
    bytes_ever: int  # of whole frames


class ReceivingEpoch:
    """One epoch of the stream: the key that seals its feedback."""

    __slots__ = ("feedback", "number")

    def __init__(self, feedback: EpochKey) -> None:
        self.number = feedback.epoch
        self.feedback = Sender(feedback.aead, feedback.key, feedback.nonce_prefix, feedback.epoch)

    def erase(self) -> None:
        """Erase every key."""
        self.feedback.erase()


Epoch = TypeVar("Epoch", bound=ReceivingEpoch)


class Receiving(ABC, Generic[Epoch]):
    """One stream's receiving end, without its frames."""

    __slots__ = (
        "_before",
        "_before_until",
        "_config",
        "_created_at",
        "_drop",
        "_epoch",
        "_idle_told",
        "_interval_s",
        "_next",
        "_outlets",
        "_reported_at",
        "_timer_grace",
        "_timer_idle",
        "_timer_report",
        "_timers",
        "_unreported",
        "_verified",
        "entries",
        "hop",
        "report_count",
        "routes",
        "source",
        "stream",
    )

    def __init__(self, stream: StreamId, source: NodeId, epoch: Epoch, outlets: Outlets, now: float) -> None:
        self.stream = stream
        self.source = source
        self.routes: dict[Label, Hop] = {}  # oldest first
        self.hop: Hop | None = None  # where feedback goes
        self.entries = Entries(
            count_max=outlets.config.entry_count_max, bytes_max=outlets.config.bundle_bytes_max, drop=outlets.drop
        )
        self.report_count = 0
        self._outlets = outlets
        self._config = outlets.config
        self._timers = outlets.timers
        self._drop = outlets.drop
        self._created_at = now  # the origin of the clock in our reports: they do not show our uptime
        self._epoch = epoch
        self._next: Epoch | None = None  # agreed on; no frame of it came yet
        self._before: Epoch | None = None
        self._before_until = 0.0
        self._verified = False
        self._idle_told = False
        self._interval_s = self._config.feedback_interval_s_min
        self._reported_at = now - self._interval_s
        self._unreported = False  # frames came since the last report
        self._timer_idle = Timer(self._idle_deadline, self._idle_fire)
        self._timer_report = Timer(self._report_deadline, self._report_fire)
        self._timer_grace = Timer(self._grace_deadline, self._grace_fire)
        self._timers.arm(self._timer_idle)

    def use(self, config: DatapathConfig) -> None:
        """Go by another idle timeout from now on."""
        self._config = config
        self._timers.arm(self._timer_idle)

    # ── what the subclass does and knows ──

    @abstractmethod
    def rekey(self, data: EpochKey, feedback: EpochKey) -> None:
        """Accept the next epoch too."""

    @abstractmethod
    def verify_last_untrusted(self, frame: bytes) -> bool:
        """Say whether frame holds one END entry and is verified for the first time."""

    @abstractmethod
    def _active_at(self) -> float:
        """Return when the newest frame came, or the stream began."""

    @abstractmethod
    def _arrived(self) -> Arrived:
        """Return what came."""

    # ── tables ──

    def _expect_epoch(self, epoch: Epoch) -> None:
        """Keep the next epoch; one that was agreed on before and never used is erased."""
        if self._next is not None:
            self._next.erase()
        self._next = epoch

    def add_route(self, hop: Hop) -> None:
        """Accept frames under hop.label_in, and send feedback there."""
        self.routes[hop.link, hop.label_in] = hop
        self.hop = hop
        if self.entries or self._unreported:
            self._timers.arm(self._timer_report)
            if self.entries:
                self._outlets.feedback_ready(self.stream)

    def remove_route(self, link: int, label: int) -> None:
        """Forget a route; feedback goes over the newest of the remaining routes."""
        if self.routes.pop((link, label), None) is self.hop:
            self.hop = next(reversed(self.routes.values()), None)

    def erase(self) -> None:
        """Erase every key and end every timer."""
        for timer in (self._timer_idle, self._timer_report, self._timer_grace):
            self._timers.end(timer)
        for epoch in (self._epoch, self._next, self._before):
            if epoch is not None:
                epoch.erase()

    # ── in ──

    def _came(self, now: float) -> None:
        """Take note that a frame came and was verified."""
        self._idle_told = False
        if self._timer_idle.at is None:
            self._timers.arm(self._timer_idle)
        if not self._verified:
            self._verified = True
            self._outlets.upcall(ReceiverVerified(self.stream))
        if not self._unreported:
            self._unreported = True
            if self._reported_at + self._interval_s <= now:
                self._report_fire(now)
            elif self._timer_report.at is None:
                self._timers.arm(self._timer_report)

    def _switch_epoch(self, epoch: Epoch, now: float) -> None:
        """Make the next epoch the present one: the sender uses it; the one before is accepted for the grace."""
        if self._before is not None:
            self._before.erase()
        self._before = self._epoch
        self._before.feedback.erase()
        self._before_until = now + self._config.epoch_grace_s
        self._epoch = epoch
        self._next = None
        self._timers.arm(self._timer_grace)

    def ask_untrusted(self, body: bytes) -> None:
        """Take the sender's request for a feedback interval; a malformed one is dropped and counted."""
        try:
            asked_s = decode_interval_untrusted(body)
        except RemoteProtocolError as error:
            self._drop(error.reason)
            return
        config = self._config
        self._interval_s = min(max(asked_s, config.feedback_interval_s_min), config.feedback_interval_s_max)
        self._timers.arm(self._timer_report)

    # ── feedback ──

    def queue_entry(self, kind: int, body: bytes) -> None:
        """Send an entry in a feedback frame at once.  Raises LocalProtocolError if no frame could hold it."""
        self.entries.push(kind, body)
        self._outlets.feedback_ready(self.stream)

    def feedback(self, now: float) -> OutFrame | None:
        """Seal the feedback that is due; return None if none is, or if there is no route for it."""
        hop = self.hop
        if hop is None or not (self.entries or self._unreported):
            return None
        entries, _ = self.entries.take()
        epoch, arrived = self._epoch, self._arrived()
        if arrived.highest >= 0:
            report = Report(
                counter_highest=arrived.highest,
                received_count=arrived.received,
                marked_count=arrived.marked,
                received_bytes=arrived.bytes,
                arrived_us=int((arrived.highest_at - self._created_at) * 1e6),
                held_us=max(int((now - arrived.highest_at) * 1e6), 0),
                interval_us=int(self._interval_s * 1e6),
            )
            entries.append((f.REPORT, report.encode()))
            self._unreported = False
            self._reported_at = now
            self.report_count += 1
        if not entries:
            return None
        frame = epoch.feedback.seal(hop.label_out, f.FEEDBACK, entries)
        return OutFrame(hop.link, hop.tether, FEEDBACK_CHANNEL, frame)

    def seal_confirmation(self, body: bytes) -> bytes:
        """Seal one feedback frame with a CONFIRM entry under label 0."""
        return self._epoch.feedback.seal(0, f.FEEDBACK, [(f.CONFIRM, body)])

    # ── time ──

    def _idle_deadline(self) -> float | None:
        config = self._config
        wait_s = max(config.receiver_idle_s, config.idle_timeout_s + config.receiver_grace_s)
        return None if self._idle_told else self._active_at() + wait_s

    def _idle_fire(self, now: float) -> None:
        self._idle_told = True
        self._outlets.upcall(ReceiverIdle(self.stream))

    def _report_deadline(self) -> float | None:
        return self._reported_at + self._interval_s if self._unreported and self.hop is not None else None

    def _report_fire(self, now: float) -> None:
        self._reported_at = now
        self._outlets.feedback_ready(self.stream)

    def _grace_deadline(self) -> float | None:
        return None if self._before is None else self._before_until

    def _grace_fire(self, now: float) -> None:
        if self._before is not None:
            self._before.erase()
            self._before = None

    # ── what came of it ──

    def traffic(self) -> Traffic:
        """Return what came from the source in this stream, and when."""
        arrived = self._arrived()
        return Traffic(self.source, 0, arrived.bytes_ever, self._active_at() if arrived.frames_ever else None)

    def status(self) -> ReceiverStatus:
        """Return what `conflux status` shows of it."""
        arrived = self._arrived()
        return ReceiverStatus(
            stream=self.stream.hex(),
            source=format_node_id(self.source),
            epoch=self._epoch.number,
            link=None if self.hop is None else self.hop.link,
            lost_frames=arrived.highest + 1 - arrived.received,
            marked_frames=arrived.marked,
            reports=self.report_count,
            frames=arrived.frames_ever,
            packets=arrived.packets_ever,
            bytes=arrived.bytes_ever,
        )
