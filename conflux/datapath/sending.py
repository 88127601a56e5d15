"""The sending end of a stream, as far as both datapaths share it: it reads reports and watches time.

A subclass seals frames itself (reference/sender.py) or has the engine seal them (native/sender.py), and knows which
frame was sent when.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Generic, NamedTuple, TypeVar

from conflux.anchor import frame as f
from conflux.anchor.codec import Receiver, peek
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import Hop
from conflux.datapath.config import DatapathConfig
from conflux.datapath.drop import Drop
from conflux.datapath.feedback import DelayChange, Report
from conflux.datapath.interface import Entry, Feedback, Label, RekeyDue, SenderIdle, Suspect
from conflux.datapath.outlets import Outlets
from conflux.datapath.status import SenderStatus
from conflux.datapath.timers import Timer
from conflux.datapath.traffic import Traffic
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId, StreamId, format_node_id

RTT_GAIN: Final = 1 / 8  # RFC 6298, section 2.3
INTERVAL_SLACK: Final = 0.25  # share by which the receiver's interval may be off before an entry asks for another


class Moved(NamedTuple):
    """What a stream sent, ever."""

    frames: int
    packets: int
    bytes: int  # of whole frames


class SendingEpoch:
    """One epoch of the stream: the key that opens its feedback, and what the feedback said."""

    __slots__ = ("feedback", "number", "received_count", "rekey_at", "rekey_told", "used_at")

    def __init__(self, feedback: EpochKey) -> None:
        self.number = feedback.epoch
        self.feedback = Receiver(feedback.aead, feedback.key, feedback.nonce_prefix, feedback.epoch)
        self.used_at: float | None = None  # when its first frame was sealed
        self.rekey_at: float | None = None  # when its age is looked at next
        self.rekey_told = False
        self.received_count = 0  # by the newest report: an older report that comes late counts fewer

    def erase(self) -> None:
        """Erase the key of its feedback."""
        self.feedback.erase()

    def erase_data(self) -> None:
        """Erase the key of its data, if Python holds it."""


class _RouteState:
    """What was learnt of the present route.  A new route gets a new one."""

    __slots__ = ("counter_first", "delay", "rtt_s", "silent_since", "suspect_told")

    def __init__(self, counter_first: int) -> None:
        self.counter_first = counter_first  # of the present epoch: frames before it went over another route
        self.rtt_s: float | None = None  # smoothed
        self.delay = DelayChange()
        self.silent_since: float | None = None  # since when frames are out without a report
        self.suspect_told = False


Epoch = TypeVar("Epoch", bound=SendingEpoch)


class Sending(ABC, Generic[Epoch]):
    """One stream's sending end, without its frames."""

    __slots__ = (
        "_before",
        "_before_until",
        "_config",
        "_created_at",
        "_epoch",
        "_heard_at",
        "_idle_told",
        "_interval_far",
        "_outlets",
        "_route",
        "_timer_grace",
        "_timer_idle",
        "_timer_rekey",
        "_timer_silence",
        "_timers",
        "hop",
        "labels",
        "stream",
    )

    def __init__(self, stream: StreamId, epoch: Epoch, outlets: Outlets, now: float) -> None:
        self.stream = stream
        self.hop: Hop | None = None
        self.labels: set[Label] = set()  # under which feedback is accepted
        self._outlets = outlets
        self._config = outlets.config
        self._timers = outlets.timers
        self._created_at = now
        self._heard_at: float | None = None  # when feedback came last
        self._epoch = epoch
        self._before: Epoch | None = None  # its feedback is still accepted
        self._before_until = 0.0
        self._route = _RouteState(0)
        self._interval_far = self._config.feedback_interval_s_min
        self._idle_told = False
        self._timer_idle = Timer(self._idle_deadline, self._idle_fire)
        self._timer_silence = Timer(self._silence_deadline, self._silence_fire)
        self._timer_rekey = Timer(self._rekey_deadline, self._rekey_fire)
        self._timer_grace = Timer(self._grace_deadline, self._grace_fire)
        self._timers.arm(self._timer_idle)

    def use(self, config: DatapathConfig) -> None:
        """Go by another idle timeout from now on."""
        self._config = config
        self._timers.arm(self._timer_idle)

    # ── what the subclass does and knows ──

    @abstractmethod
    def rekey(self, data: EpochKey, feedback: EpochKey, now: float) -> None:
        """Start the next epoch."""

    @abstractmethod
    def last_frame(self) -> bytes:
        """Seal the END entry under label 0."""

    @abstractmethod
    def _active_at(self) -> float:
        """Return when a packet for the destination was last queued or sent."""

    @abstractmethod
    def _counter(self) -> int:
        """Return the counter of the next frame."""

    @abstractmethod
    def _reported_untrusted(self, epoch: Epoch, counter: int, now: float) -> float | None:
        """Take all counters up to this one as reported; return when it was sent, or None if unknown.

        Raises RemoteProtocolError("bad-report") for a counter that was never sent.
        """

    @abstractmethod
    def _unreported_count(self) -> int:
        """Return how many frames of the present epoch are not reported yet."""

    @abstractmethod
    def _destination(self) -> NodeId:
        """Return the node whose packets it seals."""

    @abstractmethod
    def _moved(self) -> Moved:
        """Return what it sent, ever."""

    # ── tables ──

    def _switch_epoch(self, epoch: Epoch, now: float) -> None:
        """Make an epoch the present one; that before loses its data key now, its feedback key after the grace."""
        if self._before is not None:
            self._before.erase()
        self._before = self._epoch
        self._before.erase_data()
        self._before_until = now + self._config.epoch_grace_s
        self._epoch = epoch
        self._route.counter_first = 0
        self._timers.arm(self._timer_grace)

    def set_route(self, hop: Hop | None) -> None:
        """Send over hop from now on; what was measured of the route before is forgotten."""
        self.hop = hop
        self._route = _RouteState(self._counter())

    def detach(self) -> None:
        """Send nothing more and stop every timer; the keys stay for last_frame()."""
        self.hop = None
        for timer in self._own_timers():
            self._timers.cancel(timer)

    def erase(self) -> None:
        """Detach, erase every key, and release the timers' hold on this object."""
        self.detach()
        for timer in self._own_timers():
            self._timers.end(timer)
        for epoch in (self._epoch, self._before):
            if epoch is not None:
                epoch.erase_data()
                epoch.erase()

    def _sent(self, now: float) -> None:
        """Take note that a frame was sent: silence, idleness and the age of the key count from it."""
        self._idle_told = False
        if self._timer_idle.at is None:
            self._timers.arm(self._timer_idle)
        if self._route.silent_since is None:
            self._route.silent_since = now
            if self._timer_silence.at is None:
                self._timers.arm(self._timer_silence)
        if self._epoch.used_at is None:
            self._epoch.used_at = now
            self._epoch.rekey_at = now + self._config.epoch_s
            self._timers.arm(self._timer_rekey)

    # ── feedback ──

    def _unseal_untrusted(self, frame: bytes) -> tuple[Epoch, list[tuple[int, bytes]]]:
        """Return the epoch and the entries of one feedback frame.  Raises RemoteProtocolError."""
        flags, number, _, _ = peek(frame)
        if not flags & f.FEEDBACK:
            raise RemoteProtocolError(Drop.MALFORMED, "not feedback")
        epoch = self._epoch
        if number != epoch.number:
            if self._before is None or number != self._before.number:
                raise RemoteProtocolError(Drop.UNKNOWN_EPOCH)
            epoch = self._before
        return epoch, epoch.feedback.unseal(frame)

    def unseal_confirmation_untrusted(self, frame: bytes) -> bytes:
        """Return the body of a frame's single CONFIRM entry.  Raises RemoteProtocolError."""
        _, entries = self._unseal_untrusted(frame)
        if len(entries) != 1 or entries[0][0] != f.CONFIRM:
            raise RemoteProtocolError(Drop.MALFORMED, "not a confirmation")
        return entries[0][1]

    def feedback_untrusted(self, frame: bytes, now: float) -> None:
        """Take one feedback frame.  Raises RemoteProtocolError."""
        epoch, entries = self._unseal_untrusted(frame)
        self._heard_at = now
        if len(entries) > self._config.entry_count_max + 1:
            raise RemoteProtocolError(Drop.MALFORMED, "more entries than a receiver keeps, and a report")
        for kind, body in entries:
            if kind == f.REPORT:
                self._report_untrusted(epoch, Report.decode_untrusted(body), now)
            elif kind in (f.REKEY, f.CONFIRM):
                self._outlets.upcall_untrusted(Entry(self.stream, kind, body, epoch.number))
            elif kind != f.PADDING:
                self._outlets.drop(Drop.MISPLACED_ENTRY)

    def _report_untrusted(self, epoch: Epoch, report: Report, now: float) -> None:
        sent_at = self._reported_untrusted(epoch, report.counter_highest, now)
        if report.received_count < epoch.received_count:
            return  # a newer report overtook it
        epoch.received_count = report.received_count
        route = self._route
        rtt_s: float | None = None
        delay_change_us: int | None = None
        if epoch is self._epoch and sent_at is not None and report.counter_highest >= route.counter_first:
            elapsed_s = now - sent_at - report.held_us / 1e6
            if elapsed_s >= 0:  # else the receiver claims to have held the report since before the frame was sent
                rtt_s = elapsed_s
                route.rtt_s = rtt_s if route.rtt_s is None else route.rtt_s + RTT_GAIN * (rtt_s - route.rtt_s)
                delay_change_us = route.delay.update(report.arrived_us - int(sent_at * 1e6), now)
        self._interval_far = min(report.interval_us / 1e6, self._config.feedback_interval_s_max)
        wanted = self._interval()
        if abs(self._interval_far - wanted) > INTERVAL_SLACK * wanted:
            self._ask_interval(wanted)
        # The receiver hears us.  For frames that are still out, the time of silence starts anew.
        route.silent_since = now if self._unreported_count() else None
        route.suspect_told = False
        self._timers.arm(self._timer_silence)
        self._outlets.upcall_untrusted(
            Feedback(
                stream=self.stream,
                epoch=epoch.number,
                counter_highest=report.counter_highest,
                received_count=report.received_count,
                lost_count=report.counter_highest + 1 - report.received_count,
                marked_count=report.marked_count,
                received_bytes=report.received_bytes,
                delay_change_us=delay_change_us,
                rtt_s=rtt_s,
            )
        )

    @abstractmethod
    def _ask_interval(self, interval_s: float) -> None:
        """Ask the receiver for another interval with the next frame."""

    def _interval(self) -> float:
        """Return the feedback interval for the present route: two RTTs, within the configured limits."""
        low, high = self._config.feedback_interval_s_min, self._config.feedback_interval_s_max
        rtt_s = self._route.rtt_s
        return low if rtt_s is None else min(max(low, 2 * rtt_s), high)

    # ── time ──

    def _own_timers(self) -> tuple[Timer, ...]:
        return self._timer_idle, self._timer_silence, self._timer_rekey, self._timer_grace

    def _idle_deadline(self) -> float | None:
        if self._idle_told:
            return None
        return max(self._active_at(), self._created_at) + self._config.idle_timeout_s

    def _idle_fire(self, now: float) -> None:
        self._idle_told = True
        self._outlets.upcall(SenderIdle(self.stream))

    def _silence_deadline(self) -> float | None:
        route = self._route
        if self.hop is None or route.silent_since is None or route.suspect_told:
            return None
        config = self._config
        least = config.suspect_unmeasured_s_min if route.rtt_s is None else config.suspect_s_min
        interval = max(self._interval(), self._interval_far)
        return route.silent_since + max(least, config.suspect_interval_count * interval)

    def _silence_fire(self, now: float) -> None:
        self._route.suspect_told = True
        self._outlets.upcall(Suspect(self.stream))

    def _rekey_deadline(self) -> float | None:
        return None if self._epoch.rekey_told else self._epoch.rekey_at

    def _rekey_fire(self, now: float) -> None:
        epoch, config = self._epoch, self._config
        assert epoch.used_at is not None
        old_at = epoch.used_at + config.epoch_quiet_s
        if self._counter() < config.epoch_frames_min and now < old_at:
            epoch.rekey_at = min(now + config.epoch_s, old_at)
        else:
            self._rekey_due()

    def _rekey_due(self) -> None:
        """Tell that the next epoch is due; once in each epoch."""
        self._epoch.rekey_told = True
        self._outlets.upcall(RekeyDue(self.stream))

    def _grace_deadline(self) -> float | None:
        return None if self._before is None else self._before_until

    def _grace_fire(self, now: float) -> None:
        if self._before is not None:
            self._before.erase()
            self._before = None

    # ── what came of it ──

    def traffic(self) -> Traffic:
        """Return what went to the destination in this stream, and when a report came last."""
        return Traffic(self._destination(), self._moved().bytes, 0, self._heard_at)

    def status(self) -> SenderStatus:
        """Return what `conflux status` shows of it."""
        moved = self._moved()
        return SenderStatus(
            stream=self.stream.hex(),
            epoch=self._epoch.number,
            link=None if self.hop is None else self.hop.link,
            rtt_ms=None if self._route.rtt_s is None else round(self._route.rtt_s * 1e3, 3),
            suspect=self._route.suspect_told,
            destination=format_node_id(self._destination()),
            frames=moved.frames,
            packets=moved.packets,
            bytes=moved.bytes,
            unreported_frames=self._unreported_count(),
        )
