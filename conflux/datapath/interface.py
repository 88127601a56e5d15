"""What the node may ask of a datapath (tables down) and what a datapath tells the node (upcalls up).

    TUN ─packet()─►  egress queues ─next_frame()─►  carrier ~~~ far carrier ─frame_untrusted()─►  next_delivery() ─► TUN
                          ▲ tables                                                ▲ tables
                          └─────────────────── node ──────────────────────────────┘
                                  ◄── next_upcall()

    carrier ─frame_untrusted()─►  relay ─next_relayed()─►  carrier

The reference datapath (reference.py) is Python and sans-IO; a compiled engine takes its place behind the same tables.
Keys handed down are the datapath's to erase once the entry that holds them is removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

from conflux.ids import IPAddress, LinkId, NodeId, StreamId, TetherId


@dataclass(frozen=True, slots=True)
class EpochKey:
    """One key of a stream in one direction (data or feedback), for one epoch."""

    epoch: int  # 0 to 255, counts up modulo 256
    aead: int  # conflux.anchor.frame.AES_256_GCM or CHACHA20_POLY1305
    key: bytes  # 32 bytes
    nonce_prefix: bytes  # 4 bytes; the counter fills the other 8

    def __repr__(self) -> str:
        return f"EpochKey(epoch={self.epoch}, aead={self.aead})"  # never the key itself


@dataclass(frozen=True, slots=True)
class Hop:
    """One end of a route as seen from here: how to reach the neighbour, and under which labels."""

    link: LinkId
    tether: TetherId
    channel_count: int
    label_out: int  # the neighbour's label: written into what we send
    label_in: int  # our label: what we receive carries it


@dataclass(frozen=True, slots=True)
class OutFrame:
    """A frame for the carrier."""

    link: LinkId
    tether: TetherId
    channel: int  # index below Hop.channel_count
    data: bytes


# ── upcalls ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Miss:
    """A packet came for an overlay address that no egress serves; it waits under that address."""

    address: IPAddress


@dataclass(frozen=True, slots=True)
class SenderIdle:
    """No packet for the stream's destination was queued or sent within the idle timeout."""

    stream: StreamId


@dataclass(frozen=True, slots=True)
class ReceiverIdle:
    """No frame of the stream within the idle timeout and five seconds: its end was lost."""

    stream: StreamId


@dataclass(frozen=True, slots=True)
class ReceiverVerified:
    """The first frame of the stream verified: the half-open state is over."""

    stream: StreamId


@dataclass(frozen=True, slots=True)
class Suspect:
    """Frames went out and no report came back for five feedback intervals, at least half a second.

    Told once per silence.  Before the route's first RTT measurement the least is one second.
    """

    stream: StreamId


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the receiver of our stream says it saw since the epoch began; all counts are of that epoch."""

    stream: StreamId
    epoch: int
    counter_highest: int
    received_count: int
    lost_count: int  # not arrived yet: falls again when a frame comes late
    marked_count: int  # frames that carried congestion experienced
    received_bytes: int  # of bundles
    delay_change_us: int | None  # one-way delay of the newest frame against the least of the last minute or two
    rtt_s: float | None  # from the counter's sending to this, less the receiver's hold
    # Both None if not measurable: sent over a route before this one, in an epoch before this one, or reported before.


@dataclass(frozen=True, slots=True)
class RekeyDue:
    """The sender's epoch is old (120 s of use) or worn (2**40 bytes)."""

    stream: StreamId


@dataclass(frozen=True, slots=True)
class Entry:
    """A verified entry that is not a packet (a rekey) arrived, in a data frame or in feedback."""

    stream: StreamId
    kind: int
    body: bytes
    epoch: int  # of the frame it came in


Upcall = Miss | SenderIdle | ReceiverIdle | ReceiverVerified | Suspect | Feedback | RekeyDue | Entry


class Tables(Protocol):
    """Tables down, upcalls up: what the node uses.  Every method is synchronous; now is monotonic seconds."""

    name: str  # "reference" or "native"
    offload_kinds: tuple[int, ...]  # entry kinds beyond plain packets that it sends and takes

    # ── tables: egress ──

    def configure(self, own: tuple[IPAddress, ...], realm: tuple[IPv4Network | IPv6Network, ...]) -> None:
        """Say which addresses are ours (delivered, and the only sources we send) and which networks the realm spans.

        A packet from the TUN for an address outside the realm, or from another source, is dropped and counted.
        """

    def add_egress(self, destination: NodeId, addresses: tuple[IPAddress, ...], *, now: float) -> None:
        """Give destination its queue; packets that wait under any of the addresses move into it, in order.

        For a destination that has one, the addresses become these and the queue stays.
        """

    def refuse(self, address: IPAddress, reason: str) -> None:
        """Drop what waits under an address that nobody owns, counted under reason."""

    def remove_egress(self, destination: NodeId, reason: str) -> None:
        """Forget the destination's queue; what is in it is dropped and counted under reason.  No-op if unknown.

        A stream that sealed its packets sends nothing more, but stays for last_frame() until remove_sender().
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
        A stream that did so before sends nothing more, but stays for last_frame() until remove_sender().
        """

    def rekey_sender(self, stream: StreamId, data: EpochKey, feedback: EpochKey, *, now: float) -> None:
        """Start the next epoch: counter restarts; feedback of the epoch before stays readable for 10 s."""

    def set_route(self, stream: StreamId, hop: Hop | None, *, now: float) -> None:
        """Send the stream over hop from the next frame on; None holds its packets back.

        Feedback stays accepted on the label of the hop before until remove_feedback_label().
        """

    def remove_feedback_label(self, link: LinkId, label: int) -> None:
        """Stop accepting feedback on a reverse label.  No-op if unknown."""

    def last_frame(self, stream: StreamId) -> bytes:
        """Seal and return the stream's last frame, one END entry, under label 0; a route's teardown carries it."""

    def remove_sender(self, stream: StreamId) -> None:
        """Erase the stream's keys; its destination's queue stays and holds.  No-op if unknown."""

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
        """Accept the stream.  A packet whose inner source is in none of inner_sources is dropped as "spoofed"."""

    def rekey_receiver(self, stream: StreamId, data: EpochKey, feedback: EpochKey, *, now: float) -> None:
        """Accept the next epoch too; the first frame of it starts the 10 s in which the old one is still accepted."""

    def add_receiver_route(self, stream: StreamId, hop: Hop, *, now: float) -> None:
        """Accept the stream's frames under hop.label_in; feedback goes back over the newest route added or used."""

    def remove_receiver_route(self, link: LinkId, label: int) -> None:
        """Stop accepting frames under a label.  No-op if unknown."""

    def seal_feedback(self, stream: StreamId, body: bytes) -> bytes:
        """Seal one feedback frame with a CONFIRM entry of body, under label 0: what a route confirmation carries."""

    def unseal_confirmation(self, stream: StreamId, frame: bytes) -> bytes:
        """Return the CONFIRM body of a frame sealed by the far seal_feedback().  Raises RemoteProtocolError."""

    def verify_last(self, stream: StreamId, frame: bytes) -> bool:
        """Say whether frame is the far last_frame() of the stream: a valid END that was not seen before."""

    def remove_receiver(self, stream: StreamId) -> None:
        """Erase the stream's keys and labels.  No-op if unknown."""

    def queue_entry(self, stream: StreamId, kind: int, body: bytes) -> None:
        """Send an entry in the stream's next frame; for a stream we receive, in its next feedback, at once.

        What waits already is not queued again; when more wait than one frame holds, the oldest are dropped.
        """

    # ── tables: relay ──

    def add_relay(self, before: Hop, ahead: Hop, *, now: float) -> None:
        """Pass frames on: data from the side before to the side ahead, feedback the other way.

        A frame that arrives under a side's label_in leaves on the other side under its label_out, and on the channel
        it came on, modulo channel_count.  Only label and CE change.  Raises LocalProtocolError if both sides are on one
        link, or if a label is taken.
        """

    def remove_relay(self, link: LinkId, label_in: int) -> None:
        """Pass nothing on any more, in either direction; either side's label names the relay.  No-op if unknown.

        Frames that wait are dropped.  Who wants them to arrive lets a route be quiet before it goes.
        """

    # ── bytes ──

    def packet(self, packet: bytes, *, now: float) -> None:
        """Take one IP packet from the TUN device."""

    def frame_untrusted(self, link: LinkId, data: bytes, *, now: float, channel: int = 0) -> None:
        """Take one data-channel message of a tether from the carrier.

        channel: index of the data channel in its tether; a frame passed on leaves on the channel of that index.
        """

    def collect(self, *, now: float) -> None:
        """Make upcalls of what happened in a thread of the datapath's own; next_upcall() has them then."""

    def next_upcall(self) -> Upcall | None:
        """Return one upcall, or None."""

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, in the caller's monotonic seconds; None for never."""

    def handle_timeout(self, *, now: float) -> None:
        """Do what time asks for: idle streams, due feedback, suspicion, rekeys, packets too old."""

    def drop_counts(self) -> Mapping[str, int]:
        """Every drop so far, by reason."""

    def status(self) -> Mapping[str, object]:
        """Streams, queues and counters, as plain values; never a key."""


class Datapath(Tables, Protocol):
    """A datapath whose bytes somebody else carries: tables, upcalls, and frames and packets through."""

    def sendable(self) -> tuple[NodeId, ...]:
        """Destinations whose next_frame() is not None."""

    def hop(self, destination: NodeId) -> Hop | None:
        """Return the hop the destination's next frame will take; None while it has none."""

    def next_frame(self, destination: NodeId, *, now: float) -> OutFrame | None:
        """Return the destination's next frame, filled with what is queued up to the bundle size, or None."""

    def next_feedback(self, *, now: float) -> OutFrame | None:
        """Return one feedback frame that is due, or None."""

    def relayable(self) -> tuple[LinkId, ...]:
        """Links that frames passed on wait for, the longest unserved first."""

    def next_relayed(self, link: LinkId, *, now: float) -> OutFrame | None:
        """Return the next frame passed on over a link, or None.

        The routes over the link take turns, by bytes; None too when all that waited had waited too long.
        """

    def next_delivery(self) -> bytes | None:
        """Return one IP packet for the TUN device, or None."""
