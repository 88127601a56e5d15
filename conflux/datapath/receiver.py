"""The receiving end of one stream: it opens bundles, delivers what their sender may say, and reports what it saw."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Final

from conflux.anchor import frame as f
from conflux.anchor.codec import Receiver, Sender, peek
from conflux.datapath.entries import Entries
from conflux.datapath.feedback import Report, decode_interval_untrusted
from conflux.datapath.interface import Entry, EpochKey, Hop, OutFrame, ReceiverIdle, ReceiverVerified
from conflux.datapath.networks import Networks
from conflux.datapath.outlets import Outlets
from conflux.datapath.packet import mark_congestion, parse
from conflux.datapath.timers import Timer
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId, StreamId, format_node_id

FEEDBACK_CHANNEL: Final = 0  # reports belong to no flow


class ReceiverEpoch:
    """One key of the stream, and what arrived under it."""

    __slots__ = ("bytes", "data", "feedback", "highest", "highest_at", "number")

    def __init__(self, data: EpochKey, feedback: EpochKey) -> None:
        self.number = data.epoch
        self.data = Receiver(data.aead, data.key, data.nonce_prefix, data.epoch)
        self.feedback = Sender(feedback.aead, feedback.key, feedback.nonce_prefix, feedback.epoch)
        self.bytes = 0
        self.highest = -1
        self.highest_at = 0.0  # when the highest counter arrived

    def erase(self) -> None:
        """Erase both keys."""
        self.data.erase()
        self.feedback.erase()


class StreamReceiver:
    """Made by add_receiver(); accepts frames under the labels of its routes."""

    __slots__ = (
        "_active_at",
        "_before",
        "_before_until",
        "_config",
        "_created_at",
        "_deliver",
        "_drop",
        "_epoch",
        "_idle_told",
        "_interval_s",
        "_next",
        "_outlets",
        "_own",
        "_reported_at",
        "_sources",
        "_timer_grace",
        "_timer_idle",
        "_timer_report",
        "_timers",
        "_unreported",
        "_verified",
        "entries",
        "frame_count",
        "hop",
        "packet_count",
        "report_count",
        "routes",
        "source",
        "stream",
    )

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
        self.stream = stream
        self.source = source
        self.routes: dict[tuple[int, int], Hop] = {}  # by (link, label), oldest first
        self.hop: Hop | None = None  # where feedback goes
        self.entries = Entries(
            count_max=outlets.config.entry_count_max, bytes_max=outlets.config.bundle_bytes_max, drop=outlets.drop
        )
        self.frame_count = 0
        self.packet_count = 0
        self.report_count = 0
        self._outlets = outlets
        self._config = outlets.config
        self._timers = outlets.timers
        self._drop = outlets.drop
        self._deliver = outlets.deliver
        self._own = outlets.own
        self._sources = Networks(inner_sources)
        self._created_at = now  # also the origin of the clock in our reports: our uptime is nobody's business
        self._active_at = now
        self._epoch = ReceiverEpoch(data, feedback)
        self._next: ReceiverEpoch | None = None  # agreed on, no frame of it came yet
        self._before: ReceiverEpoch | None = None
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

    # ── tables ──

    def rekey(self, data: EpochKey, feedback: EpochKey) -> None:
        """Accept the next epoch too."""
        if self._next is not None:
            self._next.erase()
        self._next = ReceiverEpoch(data, feedback)

    def add_route(self, hop: Hop) -> None:
        """Accept frames under hop.label_in, and send feedback there."""
        self.routes[hop.link, hop.label_in] = hop
        self.hop = hop
        if self.entries or self._unreported:
            self._timers.arm(self._timer_report)
            if self.entries:
                self._outlets.feedback_ready(self.stream)

    def remove_route(self, link: int, label: int) -> None:
        """Forget a route; feedback goes over the newest of those that remain."""
        if self.routes.pop((link, label), None) is self.hop:
            self.hop = next(reversed(self.routes.values()), None)

    def erase(self) -> None:
        """Erase every key and want nothing more of time."""
        for timer in (self._timer_idle, self._timer_report, self._timer_grace):
            self._timers.cancel(timer)
        for epoch in (self._epoch, self._next, self._before):
            if epoch is not None:
                epoch.erase()

    # ── in ──

    def frame_untrusted(self, hop: Hop, frame: bytes, header: tuple[int, int, int, int], now: float) -> None:
        """Take one frame that came under hop.label_in; header is what peek() says.  Raises RemoteProtocolError."""
        entries = self._unseal_untrusted(frame, header, now)
        if hop is not self.hop and header[1] == self._epoch.number and header[3] == self._epoch.highest:
            self.hop = hop  # the sender's newest frame took this route
        if not self._verified:
            self._verified = True
            self._outlets.upcall(ReceiverVerified(self.stream))
        if not self._unreported:
            self._unreported = True
            if self._reported_at + self._interval_s <= now:
                self._report_fire(now)
            elif self._timer_report.at is None:
                self._timers.arm(self._timer_report)
        marked = header[0] & f.CE
        own = self._own
        sources = self._sources
        for kind, body in entries:
            if kind == f.PACKET:
                try:
                    source, destination, _ = parse(body)
                except RemoteProtocolError as error:
                    self._drop(error.reason)
                    continue
                if source not in sources:
                    self._drop("spoofed")
                elif destination not in own:
                    self._drop("not-ours")
                else:
                    if marked:
                        # RFC 6040: what a relay marked on the outside, the inner flow's ends must get to know.
                        body = mark_congestion(body) or body
                    self.packet_count += 1
                    self._deliver(body)
            elif kind in (f.REKEY, f.CONFIRM):
                self._outlets.upcall_untrusted(Entry(self.stream, kind, body, header[1]))
            elif kind == f.REPORT:
                self._ask_untrusted(body)
            elif kind != f.PADDING:
                # END counts only where the route's teardown carries it; offloads were not agreed on.
                self._drop("misplaced-entry")

    def verify_last_untrusted(self, frame: bytes) -> bool:
        """Say whether frame holds one END entry, verified for the first time."""
        try:
            entries = self._unseal_untrusted(frame, peek(frame), self._active_at)  # the end is no sign of life
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
            self._turn_epoch(epoch, now)
        epoch.bytes += len(frame) - f.HEADER_BYTES - f.TAG_BYTES
        if counter > epoch.highest:
            epoch.highest = counter
            epoch.highest_at = now
        self.frame_count += 1
        self._active_at = now
        self._idle_told = False
        if self._timer_idle.at is None:
            self._timers.arm(self._timer_idle)
        return entries

    def _other_epoch(self, number: int) -> ReceiverEpoch:
        for epoch in (self._next, self._before):
            if epoch is not None and epoch.number == number:
                return epoch
        raise RemoteProtocolError("unknown-epoch")

    def _turn_epoch(self, epoch: ReceiverEpoch, now: float) -> None:
        """The sender has switched: from now on the old key is on its way out."""
        if self._before is not None:
            self._before.erase()
        self._before = self._epoch
        self._before.feedback.erase()
        self._before_until = now + self._config.epoch_grace_s
        self._epoch = epoch
        self._next = None
        self._timers.arm(self._timer_grace)

    def _ask_untrusted(self, body: bytes) -> None:
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
        """Send an entry in a feedback frame at once.  Raises LocalProtocolError for one no frame could hold."""
        self.entries.push(kind, body)
        self._outlets.feedback_ready(self.stream)

    def feedback(self, now: float) -> OutFrame | None:
        """Seal the feedback that is due; None if there is none, or no route for it."""
        hop = self.hop
        if hop is None or not (self.entries or self._unreported):
            return None
        entries, _ = self.entries.take()
        epoch = self._epoch
        if epoch.highest >= 0:
            entries.append((f.REPORT, self._report(epoch, now).encode()))
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

    def _report(self, epoch: ReceiverEpoch, now: float) -> Report:
        return Report(
            counter_highest=epoch.data.highest,
            received_count=epoch.data.received,
            marked_count=epoch.data.marked,
            received_bytes=epoch.bytes,
            arrived_us=int((epoch.highest_at - self._created_at) * 1e6),
            held_us=int((now - epoch.highest_at) * 1e6),
            interval_us=int(self._interval_s * 1e6),
        )

    # ── time ──

    def _idle_deadline(self) -> float | None:
        config = self._config
        return None if self._idle_told else self._active_at + config.idle_timeout_s + config.receiver_grace_s

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

    def status(self) -> dict[str, object]:
        """What a person may see."""
        data = self._epoch.data
        return {
            "stream": self.stream.hex(),
            "source": format_node_id(self.source),
            "epoch": self._epoch.number,
            "link": None if self.hop is None else self.hop.link,
            "frames": self.frame_count,
            "packets": self.packet_count,
            "lost_frames": data.highest + 1 - data.received,
            "marked_frames": data.marked,
            "reports": self.report_count,
        }
