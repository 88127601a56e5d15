"""What every sending end of a stream does, whoever moves its frames: it reads reports and watches time.

A subclass seals frames itself (sender.py) or has the engine seal them (native_sender.py), and knows what was sent when.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Generic, TypeVar

from conflux.anchor import frame as f
from conflux.anchor.codec import Receiver, peek
from conflux.datapath.feedback import DelayChange, Report
from conflux.datapath.interface import Entry, EpochKey, Feedback, Hop, RekeyDue, SenderIdle, Suspect
from conflux.datapath.outlets import Outlets
from conflux.datapath.timers import Timer
from conflux.errors import RemoteProtocolError
from conflux.ids import StreamId

RTT_GAIN: Final = 1 / 8  # RFC 6298, section 2.3
INTERVAL_SLACK: Final = 0.25  # an interval this near to the wanted one is not worth an entry


class SendingEpoch:
    """One key of the stream, and what was told about it."""

    __slots__ = ("feedback", "number", "received_count", "rekey_told", "used_at")

    def __init__(self, feedback: EpochKey) -> None:
        self.number = feedback.epoch
        self.feedback = Receiver(feedback.aead, feedback.key, feedback.nonce_prefix, feedback.epoch)
        self.used_at: float | None = None  # when its first frame was sealed
        self.rekey_told = False
        self.received_count = 0  # by the newest report; an older one that comes later is recognised by it

    def erase(self) -> None:
        """Erase the key of its feedback."""
        self.feedback.erase()

    def erase_data(self) -> None:
        """Erase the key of its data, where it is here."""


Epoch = TypeVar("Epoch", bound=SendingEpoch)


class Sending(ABC, Generic[Epoch]):
    """The life of one stream's sending end, without its frames."""

    __slots__ = (
        "_before",
        "_before_until",
        "_config",
        "_created_at",
        "_delay",
        "_epoch",
        "_idle_told",
        "_interval_far",
        "_outlets",
        "_route_first",
        "_rtt_s",
        "_silent_since",
        "_suspect_told",
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
        self.labels: set[tuple[int, int]] = set()  # (link, label) under which feedback is accepted
        self._outlets = outlets
        self._config = outlets.config
        self._timers = outlets.timers
        self._created_at = now
        self._epoch = epoch
        self._before: Epoch | None = None  # its feedback is still readable
        self._before_until = 0.0
        self._rtt_s: float | None = None  # smoothed, of the present route
        self._delay = DelayChange()
        self._route_first = 0  # first counter of the present epoch on the present route; those before measure another
        self._interval_far = self._config.feedback_interval_s_min
        self._silent_since: float | None = None  # since when frames are out and no report came
        self._suspect_told = False
        self._idle_told = False
        self._timer_idle = Timer(self._idle_deadline, self._idle_fire)
        self._timer_silence = Timer(self._silence_deadline, self._silence_fire)
        self._timer_rekey = Timer(self._rekey_deadline, self._rekey_fire)
        self._timer_grace = Timer(self._grace_deadline, self._grace_fire)
        self._timers.arm(self._timer_idle)

    # ── what the subclass knows ──

    @abstractmethod
    def rekey(self, data: EpochKey, feedback: EpochKey, now: float) -> None:
        """Start the next epoch."""

    @abstractmethod
    def last_frame(self) -> bytes:
        """Seal the END entry under label 0."""

    @abstractmethod
    def _active_at(self) -> float:
        """When a packet for the destination was last queued or sent."""

    @abstractmethod
    def _counter(self) -> int:
        """The counter the next frame will carry."""

    @abstractmethod
    def _reported_untrusted(self, epoch: Epoch, counter: int, now: float) -> float | None:
        """When a counter was sent, None if unknown; all up to it are reported now.

        Raises RemoteProtocolError("bad-report") for a counter never sent.
        """

    @abstractmethod
    def _unreported_count(self) -> int:
        """How many frames of the present epoch wait for a report."""

    # ── tables ──

    def _turn_epoch(self, epoch: Epoch, now: float) -> None:
        """Start the next epoch."""
        if self._before is not None:
            self._before.erase()
        self._before = self._epoch
        self._before.erase_data()
        self._before_until = now + self._config.epoch_grace_s
        self._epoch = epoch
        self._route_first = 0
        self._timers.arm(self._timer_grace)

    def set_route(self, hop: Hop | None) -> None:
        """Send over hop from now on; what the route before taught about delay and silence is forgotten."""
        self.hop = hop
        self._rtt_s = None
        self._delay = DelayChange()
        self._route_first = self._counter()
        self._silent_since = None
        self._suspect_told = False

    def detach(self) -> None:
        """Send nothing more and want nothing more of time; the keys stay for last_frame()."""
        self.hop = None
        for timer in self._own_timers():
            self._timers.cancel(timer)

    def erase(self) -> None:
        """Detach, and erase every key; nothing but its tables leads here any more."""
        self.detach()
        for timer in self._own_timers():
            self._timers.end(timer)
        for epoch in (self._epoch, self._before):
            if epoch is not None:
                epoch.erase_data()
                epoch.erase()

    def _sent(self, now: float) -> None:
        """Take note that a frame went: silence, idleness and the wear of the key are counted from it."""
        self._idle_told = False
        if self._timer_idle.at is None:
            self._timers.arm(self._timer_idle)
        if self._silent_since is None:
            self._silent_since = now
            if self._timer_silence.at is None:
                self._timers.arm(self._timer_silence)
        if self._epoch.used_at is None:
            self._epoch.used_at = now
            self._timers.arm(self._timer_rekey)

    # ── feedback ──

    def _unseal_untrusted(self, frame: bytes) -> tuple[Epoch, list[tuple[int, bytes]]]:
        """Return the epoch and the entries of one feedback frame.  Raises RemoteProtocolError."""
        flags, number, _, _ = peek(frame)
        if not flags & f.FEEDBACK:
            raise RemoteProtocolError("malformed", "not feedback")
        epoch = self._epoch
        if number != epoch.number:
            if self._before is None or number != self._before.number:
                raise RemoteProtocolError("unknown-epoch")
            epoch = self._before
        return epoch, epoch.feedback.unseal(frame)

    def unseal_confirmation_untrusted(self, frame: bytes) -> bytes:
        """Return the body of a frame's single CONFIRM entry.  Raises RemoteProtocolError."""
        _, entries = self._unseal_untrusted(frame)
        if len(entries) != 1 or entries[0][0] != f.CONFIRM:
            raise RemoteProtocolError("malformed", "not a confirmation")
        return entries[0][1]

    def feedback_untrusted(self, frame: bytes, now: float) -> None:
        """Take one feedback frame.  Raises RemoteProtocolError."""
        epoch, entries = self._unseal_untrusted(frame)
        for kind, body in entries:
            if kind == f.REPORT:
                self._report_untrusted(epoch, Report.decode_untrusted(body), now)
            elif kind in (f.REKEY, f.CONFIRM):
                self._outlets.upcall_untrusted(Entry(self.stream, kind, body, epoch.number))
            elif kind != f.PADDING:
                self._outlets.drop("misplaced-entry")

    def _report_untrusted(self, epoch: Epoch, report: Report, now: float) -> None:
        sent_at = self._reported_untrusted(epoch, report.counter_highest, now)
        if report.received_count < epoch.received_count:
            return  # overtaken by a newer one
        epoch.received_count = report.received_count
        rtt_s: float | None = None
        delay_change_us: int | None = None
        if epoch is self._epoch and sent_at is not None and report.counter_highest >= self._route_first:
            elapsed_s = now - sent_at - report.held_us / 1e6
            if elapsed_s >= 0:  # a receiver that says it held the frame for longer than it exists is not believed
                rtt_s = elapsed_s
                self._rtt_s = rtt_s if self._rtt_s is None else self._rtt_s + RTT_GAIN * (rtt_s - self._rtt_s)
                delay_change_us = self._delay.update(report.arrived_us - int(sent_at * 1e6), now)
        self._interval_far = min(report.interval_us / 1e6, self._config.feedback_interval_s_max)
        wanted = self._interval()
        if abs(self._interval_far - wanted) > INTERVAL_SLACK * wanted:
            self._ask_interval(wanted)
        # The receiver lives and hears us; frames still out get a full silence of their own.
        self._silent_since = now if self._unreported_count() else None
        self._suspect_told = False
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
        """Return the feedback interval this route wants: max(100 ms, 2 RTT)."""
        low, high = self._config.feedback_interval_s_min, self._config.feedback_interval_s_max
        return low if self._rtt_s is None else min(max(low, 2 * self._rtt_s), high)

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
        if self.hop is None or self._silent_since is None or self._suspect_told:
            return None
        config = self._config
        least = config.suspect_unmeasured_s_min if self._rtt_s is None else config.suspect_s_min
        interval = max(self._interval(), self._interval_far)
        return self._silent_since + max(least, config.suspect_interval_count * interval)

    def _silence_fire(self, now: float) -> None:
        self._suspect_told = True
        self._outlets.upcall(Suspect(self.stream))

    def _rekey_deadline(self) -> float | None:
        epoch = self._epoch
        return None if epoch.used_at is None or epoch.rekey_told else epoch.used_at + self._config.epoch_s

    def _rekey_fire(self, now: float) -> None:
        self._epoch.rekey_told = True
        self._outlets.upcall(RekeyDue(self.stream))

    def _grace_deadline(self) -> float | None:
        return None if self._before is None else self._before_until

    def _grace_fire(self, now: float) -> None:
        if self._before is not None:
            self._before.erase()
            self._before = None

    def _status(self) -> dict[str, object]:
        """What a person may see, whoever moves the frames."""
        return {
            "stream": self.stream.hex(),
            "epoch": self._epoch.number,
            "link": None if self.hop is None else self.hop.link,
            "rtt_ms": None if self._rtt_s is None else round(self._rtt_s * 1e3, 3),
            "suspect": self._suspect_told,
        }
