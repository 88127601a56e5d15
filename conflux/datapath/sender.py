"""The sending end of one stream: it seals bundles, and reads what the receiver reports."""

from __future__ import annotations

from math import nan
from typing import Final

from conflux.anchor import frame as f
from conflux.anchor.codec import Receiver, Sender, peek
from conflux.datapath.egress import Egress
from conflux.datapath.entries import Entries
from conflux.datapath.feedback import DelayChange, Report, SentTimes, encode_interval
from conflux.datapath.interface import Entry, EpochKey, Feedback, Hop, OutFrame, RekeyDue, SenderIdle, Suspect
from conflux.datapath.outlets import Outlets
from conflux.datapath.timers import Timer
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import StreamId, format_node_id

RTT_GAIN: Final = 1 / 8  # RFC 6298, section 2.3
INTERVAL_SLACK: Final = 0.25  # an interval this near to the wanted one is not worth an entry


class SenderEpoch:
    """One key of the stream, and what was sent under it."""

    __slots__ = ("data", "feedback", "number", "received_count", "rekey_told", "sent", "used_at")

    def __init__(self, data: EpochKey, feedback: EpochKey) -> None:
        self.number = data.epoch
        self.data = Sender(data.aead, data.key, data.nonce_prefix, data.epoch)
        self.feedback = Receiver(feedback.aead, feedback.key, feedback.nonce_prefix, feedback.epoch)
        self.sent = SentTimes()
        self.used_at: float | None = None  # when its first frame was sealed
        self.rekey_told = False
        self.received_count = 0  # by the newest report; an older one that comes later is recognised by it

    def erase(self) -> None:
        """Erase both keys."""
        self.data.erase()
        self.feedback.erase()


class StreamSender:
    """Made by add_sender(); sends nothing before it has a hop."""

    __slots__ = (
        "_before",
        "_before_until",
        "_config",
        "_created_at",
        "_delay",
        "_epoch",
        "_idle_told",
        "_interval_asked",
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
        "bytes_sent",
        "egress",
        "entries",
        "frame_count",
        "hop",
        "labels",
        "packet_count",
        "stream",
    )

    def __init__(
        self, stream: StreamId, egress: Egress, data: EpochKey, feedback: EpochKey, outlets: Outlets, now: float
    ) -> None:
        self.stream = stream
        self.egress = egress
        self.hop: Hop | None = None
        self.labels: set[tuple[int, int]] = set()  # (link, label) under which feedback is accepted
        self.entries = Entries(
            count_max=outlets.config.entry_count_max, bytes_max=outlets.config.bundle_bytes_max, drop=outlets.drop
        )
        self.frame_count = 0
        self.packet_count = 0
        self.bytes_sent = 0  # whole frames
        self._outlets = outlets
        self._config = outlets.config
        self._timers = outlets.timers
        self._created_at = now
        self._epoch = SenderEpoch(data, feedback)
        self._before: SenderEpoch | None = None  # its feedback is still readable
        self._before_until = 0.0
        self._rtt_s: float | None = None  # smoothed, of the present route
        self._delay = DelayChange()
        self._route_first = 0  # first counter of the present epoch on the present route; those before measure another
        self._interval_far = self._config.feedback_interval_s_min
        self._interval_asked: float | None = None  # goes with the next frame
        self._silent_since: float | None = None  # since when frames are out and no report came
        self._suspect_told = False
        self._idle_told = False
        self._timer_idle = Timer(self._idle_deadline, self._idle_fire)
        self._timer_silence = Timer(self._silence_deadline, self._silence_fire)
        self._timer_rekey = Timer(self._rekey_deadline, self._rekey_fire)
        self._timer_grace = Timer(self._grace_deadline, self._grace_fire)
        self._timers.arm(self._timer_idle)

    # ── tables ──

    def rekey(self, data: EpochKey, feedback: EpochKey, now: float) -> None:
        """Start the next epoch."""
        if self._before is not None:
            self._before.erase()
        self._before = self._epoch
        self._before.data.erase()
        self._before_until = now + self._config.epoch_grace_s
        self._epoch = SenderEpoch(data, feedback)
        self._route_first = 0
        self._timers.arm(self._timer_grace)

    def set_route(self, hop: Hop | None) -> None:
        """Send over hop from now on; what the route before taught about delay and silence is forgotten."""
        self.hop = hop
        self._rtt_s = None
        self._delay = DelayChange()
        self._route_first = self._epoch.data.counter
        self._silent_since = None
        self._suspect_told = False

    def detach(self) -> None:
        """Send nothing more and want nothing more of time; the keys stay for last_frame()."""
        self.hop = None
        for timer in (self._timer_idle, self._timer_silence, self._timer_rekey, self._timer_grace):
            self._timers.cancel(timer)

    def erase(self) -> None:
        """Detach, and erase every key."""
        self.detach()
        self._epoch.erase()
        if self._before is not None:
            self._before.erase()

    # ── out ──

    def frame(self, now: float) -> OutFrame:
        """Seal one frame of what waits.  The sender has a hop, and something waits."""
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
            self._idle_told = False
            if self._timer_idle.at is None:
                self._timers.arm(self._timer_idle)
        epoch = self._epoch
        frame = epoch.data.seal(hop.label_out, 0, entries)
        epoch.sent.sent(now)
        self.frame_count += 1
        self.bytes_sent += len(frame)
        if self._silent_since is None:
            self._silent_since = now
            if self._timer_silence.at is None:
                self._timers.arm(self._timer_silence)
        if epoch.used_at is None:
            epoch.used_at = now
            self._timers.arm(self._timer_rekey)
        elif epoch.data.bytes_sealed >= self._config.epoch_bytes_max and not epoch.rekey_told:
            self._rekey_fire(now)
        return OutFrame(hop.link, hop.tether, bucket % hop.channel_count, frame)

    def last_frame(self) -> bytes:
        """Seal the END entry under label 0."""
        frame = self._epoch.data.seal(0, 0, [(f.END, b"")])
        self._epoch.sent.sent(nan)
        return frame

    # ── feedback ──

    def _unseal_untrusted(self, frame: bytes) -> tuple[SenderEpoch, list[tuple[int, bytes]]]:
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

    def _report_untrusted(self, epoch: SenderEpoch, report: Report, now: float) -> None:
        sent_at = epoch.sent.reported(report.counter_highest)
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
            self._interval_asked = wanted
        # The receiver lives and hears us; frames still out get a full silence of their own.
        self._silent_since = now if self._epoch.sent.count else None
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

    def _interval(self) -> float:
        """Return the feedback interval this route wants: max(100 ms, 2 RTT)."""
        low, high = self._config.feedback_interval_s_min, self._config.feedback_interval_s_max
        return low if self._rtt_s is None else min(max(low, 2 * self._rtt_s), high)

    # ── time ──

    def _idle_deadline(self) -> float | None:
        return None if self._idle_told else max(self.egress.active_at, self._created_at) + self._config.idle_timeout_s

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

    def status(self) -> dict[str, object]:
        """What a person may see."""
        return {
            "stream": self.stream.hex(),
            "destination": format_node_id(self.egress.destination),
            "epoch": self._epoch.number,
            "link": None if self.hop is None else self.hop.link,
            "frames": self.frame_count,
            "packets": self.packet_count,
            "bytes": self.bytes_sent,
            "unreported_frames": self._epoch.sent.count,
            "rtt_ms": None if self._rtt_s is None else round(self._rtt_s * 1e3, 3),
            "suspect": self._suspect_told,
        }
