"""What the node may ask of a datapath (tables down) and what a datapath tells the node (upcalls up).

    TUN ─packet()─►  egress queues ─next_frame()─►  carrier ~~~ far carrier ─frame_untrusted()─►  next_delivery() ─► TUN
                          ▲ tables                                                ▲ tables
                          └─────────────────── node ──────────────────────────────┘
                                  ◄── next_upcall()

    carrier ─frame_untrusted()─►  relay ─next_relayed()─►  carrier

The reference datapath is Python and sans-IO.  The native datapath has the same tables in front of a compiled engine.
A datapath erases the keys it was given when the entry that holds them is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

from conflux.anchor.key import EpochKey
from conflux.carrier.interface import Hop, OutFrame
from conflux.datapath.status import DatapathStatus
from conflux.ids import IPAddress, LinkId, NodeId, StreamId

TYPE_CHECKING = False  # a node without a policy does without
if TYPE_CHECKING:
    from conflux.policy.guard import PolicyTables

Label = tuple[int, int]  # a label of ours: the link on which it is valid, and the label

# ── upcalls ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Miss:
    """A packet came for an overlay address that no egress serves; it waits for an answer about the address."""

    address: IPAddress


@dataclass(frozen=True, slots=True)
class SenderIdle:
    """For the idle timeout, no packet for the stream's destination was queued or sent."""

    stream: StreamId


@dataclass(frozen=True, slots=True)
class ReceiverIdle:
    """For the idle timeout and receiver_grace_s, or receiver_idle_s, no frame of the stream came: its END was lost."""

    stream: StreamId


@dataclass(frozen=True, slots=True)
class ReceiverVerified:
    """The first frame of the stream was verified: the stream is no longer half-open."""

    stream: StreamId


@dataclass(frozen=True, slots=True)
class Suspect:
    """Frames went out, and for five feedback intervals, at least 0.5 s, no report came back.

    Said once per silence.  Before the route's first RTT measurement the minimum is 1 s.
    """

    stream: StreamId


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the receiver of our stream reported; all counts are of the epoch."""

    stream: StreamId
    epoch: int
    counter_highest: int
    received_count: int
    lost_count: int  # not arrived so far; falls when a late frame arrives
    marked_count: int  # frames that carried congestion experienced
    received_bytes: int  # of bundles
    delay_change_us: int | None  # one-way delay of the newest frame, less the least of the last minute or two
    rtt_s: float | None  # from the sending of the counter to now, less the time that the receiver held the report
    # The last two are None if not measurable: the frame went over an earlier route, in an earlier epoch, or was
    # reported before.


@dataclass(frozen=True, slots=True)
class RekeyDue:
    """The next epoch is due.

    The sender's key was used for epoch_s, or for epoch_quiet_s if it sealed fewer than epoch_frames_min frames; or it
    has sealed epoch_bytes_max.
    """

    stream: StreamId


@dataclass(frozen=True, slots=True)
class Entry:
    """A verified entry that is for the node (REKEY, CONFIRM) arrived, in a data frame or in feedback."""

    stream: StreamId
    kind: int
    body: bytes
    epoch: int  # of the frame it came in


Upcall = Miss | SenderIdle | ReceiverIdle | ReceiverVerified | Suspect | Feedback | RekeyDue | Entry


class EchoListener(Protocol):
    """Takes echo replies before the TUN device does: `conflux ping`."""

    # Set by the datapath: called with the identifiers of the replies that are awaited, whenever these change.
    on_change: Callable[[tuple[int, ...]], None]

    def take(self, packet: bytes, *, now: float) -> bool:
        """Say whether the packet answers a request of the listener: then it goes nowhere else, if not to the device."""


class Tables(Protocol):
    """Tables down, upcalls up: what the node uses.  Every method is synchronous.  now: monotonic seconds."""

    name: str  # "reference" or "native"
    offload_kinds: tuple[int, ...]  # entry kinds, beside plain packets, that it sends and takes

    def set_idle_timeout(self, timeout_s: float, stream: StreamId | None = None) -> None:
        """End streams after another time of silence than that given at the start: those that are open, and new ones.

        stream: only that one, which is sent from here.  No-op if it is unknown.
        """

    meets: Callable[[NodeId], None] | None  # told of a node before packets of it, or for it, pass; None: nobody asks

    # ── tables: egress ──

    def set_policy(self, tables: PolicyTables | None) -> None:
        """Judge every packet by these tables from now on, sent or received; None: all pass.

        Flows that began under the tables before are judged anew.
        """

    def configure(self, own: tuple[IPAddress, ...], realm: tuple[IPv4Network | IPv6Network, ...]) -> None:
        """Say which addresses are ours and which networks the realm spans.

        Packets are delivered to our addresses alone, and sent from them alone.  A packet from the TUN device for an
        address outside the realm, or from another source, is dropped and counted.
        """

    def add_egress(self, destination: NodeId, addresses: tuple[IPAddress, ...], *, now: float) -> None:
        """Give a destination its queue; packets that wait for any of the addresses move into it, in order.

        If the destination has a queue, its addresses are replaced and the queue stays.
        """

    def refuse(self, address: IPAddress, reason: str) -> None:
        """Drop what waits for an address that is no node's, counted under reason."""

    def remove_egress(self, destination: NodeId, reason: str) -> None:
        """Remove the destination's queue; what is in it is dropped and counted under reason.  No-op if unknown.

        The stream that sealed its packets sends nothing more, but stays for last_frame() until remove_sender().
        """

    # ── tables: sender ──

    def add_sender(
        self,
        destination: NodeId,
        stream: StreamId,
        data: EpochKey,
        feedback: EpochKey,
        *,
        offload_kinds: tuple[int, ...] = (),
        now: float,
    ) -> None:
        """Seal the destination's packets with this stream from now on.  Nothing is sent before set_route().

        offload_kinds: those of ours that the receiver takes.
        The stream that sealed them before sends nothing more, but stays for last_frame() until remove_sender().
        """

    def rekey_sender(self, stream: StreamId, data: EpochKey, feedback: EpochKey, *, now: float) -> None:
        """Start the next epoch, at counter 0; feedback of the epoch before is readable for epoch_grace_s."""

    def set_route(self, stream: StreamId, hop: Hop | None, *, now: float) -> None:
        """Send the stream over hop from the next frame on; None holds its packets back.

        Feedback under the label of the hop before is accepted until remove_feedback_label().
        """

    def remove_feedback_label(self, link: LinkId, label: int) -> None:
        """Accept no more feedback under a label.  No-op if unknown."""

    def last_frame(self, stream: StreamId) -> bytes:
        """Seal and return the stream's last frame: one END entry, under label 0; a route's teardown carries it."""

    def remove_sender(self, stream: StreamId) -> None:
        """Erase the stream's keys; its destination's queue stays and holds its packets.  No-op if unknown."""

    # ── tables: receiver ──

    def add_receiver(
        self,
        stream: StreamId,
        source: NodeId,
        inner_sources: tuple[IPv4Network | IPv6Network, ...],
        data: EpochKey,
        feedback: EpochKey,
        *,
        offload_kinds: tuple[int, ...] = (),
        now: float,
    ) -> None:
        """Accept the stream.  A packet inside it whose source is in none of inner_sources is dropped as "spoofed"."""

    def rekey_receiver(self, stream: StreamId, data: EpochKey, feedback: EpochKey, *, now: float) -> None:
        """Accept the next epoch too; from its first frame on, the present one is accepted for epoch_grace_s more."""

    def add_receiver_route(self, stream: StreamId, hop: Hop, *, now: float) -> None:
        """Accept the stream's frames under hop.label_in; feedback goes over the route that was added or used last."""

    def remove_receiver_route(self, link: LinkId, label: int) -> None:
        """Accept no more frames under a label.  No-op if unknown."""

    def seal_feedback(self, stream: StreamId, body: bytes) -> bytes:
        """Seal one feedback frame with a CONFIRM entry of body, under label 0; a route's confirmation carries it."""

    def unseal_confirmation(self, stream: StreamId, frame: bytes) -> bytes:
        """Return the CONFIRM body of a frame that the far seal_feedback() sealed.  Raises RemoteProtocolError."""

    def verify_last(self, stream: StreamId, frame: bytes) -> bool:
        """Say whether frame is the stream's last_frame(): a valid END that was not seen before."""

    def remove_receiver(self, stream: StreamId) -> None:
        """Erase the stream's keys and labels.  No-op if unknown."""

    def queue_entry(self, stream: StreamId, kind: int, body: bytes) -> None:
        """Send an entry in the next frame of a stream we send, or at once in the feedback of a stream we receive.

        An entry that waits is not queued again.  When more wait than one frame holds, the oldest are dropped.
        Raises LocalProtocolError for an unknown stream, or an entry that no frame could hold.
        """

    # ── tables: relay ──

    def add_relay(self, before: Hop, ahead: Hop, *, now: float) -> None:
        """Pass frames on: data from the hop before to the hop ahead, feedback the other way.

        A frame that arrives under the label_in of one hop leaves over the other hop under its label_out, and on the
        channel it came on, modulo channel_count.  Only label and CE change.  Raises LocalProtocolError if both hops are
        on one link, or if a label is taken.
        """

    def remove_relay(self, link: LinkId, label_in: int) -> None:
        """Pass nothing on any more, in either direction.  label_in: of either hop.  No-op if unknown.

        Frames that wait are dropped, so a route should be quiet for a moment before it is removed.
        """

    # ── bytes ──

    def packet(self, packet: bytes, *, now: float) -> None:
        """Take one IP packet from the TUN device."""

    def frame_untrusted(self, link: LinkId, data: bytes, *, now: float, channel: int = 0) -> None:
        """Take one message of a tether's data channel from the carrier.

        channel: index of the data channel in its tether; a frame that is passed on leaves on the channel of that index.
        """

    def collect(self, *, now: float) -> None:
        """Turn what happened in the datapath's own thread, if it has one, into upcalls for next_upcall()."""

    def next_upcall(self) -> Upcall | None:
        """Return one upcall, or None."""

    def next_timeout(self) -> float | None:
        """Return when handle_timeout() is due, in monotonic seconds; None for never."""

    def handle_timeout(self, *, now: float) -> None:
        """Do what is due: idle streams, feedback, suspicion, rekeys, packets that are too old."""

    def drop_counts(self) -> Mapping[str, int]:
        """Return every drop so far, by reason."""

    def status(self) -> DatapathStatus:
        """Return its streams, queues and counters; never a key."""


class Datapath(Tables, Protocol):
    """A datapath whose caller carries the bytes: tables and upcalls, and frames and packets in and out."""

    def sendable(self) -> tuple[NodeId, ...]:
        """Return the destinations whose next_frame() is not None."""

    def hop(self, destination: NodeId) -> Hop | None:
        """Return the hop that the destination's next frame will take; None while it has no route."""

    def next_frame(self, destination: NodeId, *, now: float) -> OutFrame | None:
        """Return the destination's next frame, filled from its queue up to the bundle size, or None."""

    def next_feedback(self, *, now: float) -> OutFrame | None:
        """Return one feedback frame that is due, or None."""

    def relayable(self) -> tuple[LinkId, ...]:
        """Return the links that relayed frames wait for, the longest unserved first."""

    def next_relayed(self, link: LinkId, *, now: float) -> OutFrame | None:
        """Return the next frame to pass on over a link; None if none waits, or all that did were too old.

        The routes over the link take turns, by bytes.
        """

    def next_delivery(self) -> bytes | None:
        """Return one IP packet for the TUN device, or None."""
