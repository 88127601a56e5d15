"""The rules about streams and labels that both datapaths have in common.

A subclass moves frames itself (reference/) or has the engine move them (native/).  It keeps the queues of the
destinations, the labels of the receivers and the relays, and says which labels those hold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Generic, Protocol, TypeVar

from conflux.anchor.key import EpochKey
from conflux.carrier.interface import Hop, OutFrame
from conflux.datapath.config import DatapathConfig
from conflux.datapath.drop import Drop
from conflux.datapath.interface import Label, Upcall
from conflux.datapath.outlets import Outlets
from conflux.datapath.pending import Pending
from conflux.datapath.receiving import Receiving
from conflux.datapath.sending import Sending
from conflux.datapath.timers import Timers
from conflux.datapath.traffic import Traffic, TrafficBook
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import IPAddress, LinkId, NodeId, StreamId

TYPE_CHECKING = False  # a node without a policy does without
if TYPE_CHECKING:
    from conflux.policy.guard import Guard

S = TypeVar("S", bound=Sending[Any])
R = TypeVar("R", bound=Receiving[Any])
Emptying = TypeVar("Emptying")


class Emptied(Protocol[Emptying]):
    """A destination's queue, as far as both datapaths know it: which sender empties it."""

    sender: Emptying | None


class StreamTables(ABC, Generic[S, R]):
    """The part of interface.Tables that both datapaths share; the contracts stand there."""

    _egresses: Mapping[NodeId, Emptied[S]]  # kept by the subclass

    def __init__(
        self,
        config: DatapathConfig | None,
        own: set[bytes],
        deliver: Callable[[bytes], None],
        guards: list[Guard] | None = None,
    ) -> None:
        self.meets: Callable[[NodeId], None] | None = None
        self._config = config or DatapathConfig()
        self._timers = Timers()
        self._drops: Counter[str] = Counter()
        self._senders: dict[StreamId, S] = {}
        self._receivers: dict[StreamId, R] = {}
        self._feedback_labels: dict[Label, S] = {}
        self._feedback_ready: dict[StreamId, None] = {}  # an ordered set
        self._upcalls: deque[Upcall] = deque()
        self._outlets = Outlets(
            config=self._config,
            timers=self._timers,
            own=own,
            guards=[] if guards is None else guards,
            drop=self._drop,
            deliver=deliver,
            upcall=self._upcalls.append,
            upcall_untrusted=self._upcall_untrusted,
            feedback_ready=self._mark_feedback,
        )
        self._pending = Pending(self._outlets)
        self._ended = TrafficBook()

    def set_idle_timeout(self, timeout_s: float, stream: StreamId | None = None) -> None:
        """End streams after another time of silence; see interface.Tables."""
        if stream is not None:
            if (sender := self._senders.get(stream)) is not None:
                sender.use(self._config._replace(idle_timeout_s=timeout_s))
            return
        self._config = self._config._replace(idle_timeout_s=timeout_s)
        self._outlets = self._outlets._replace(config=self._config)
        for sender in self._senders.values():
            sender.use(self._config)
        for receiver in self._receivers.values():
            receiver.use(self._config)

    # ── what the subclass does ──

    @abstractmethod
    def _make_sender(
        self,
        destination: NodeId,
        stream: StreamId,
        data: EpochKey,
        feedback: EpochKey,
        offload_kinds: tuple[int, ...],
        now: float,
    ) -> S:
        """Return a sender for a destination that has an egress."""

    @abstractmethod
    def _empties(self, sender: S) -> bool:
        """Say whether the sender empties its destination's queue: neither of the two was replaced or removed."""

    def _rerouted(self, sender: S, now: float) -> None:
        """Take note that the sender is new, or that its route changed."""

    @abstractmethod
    def _erase_sender(self, sender: S) -> None:
        """Erase the sender's keys; its destination's queue holds its packets from now on."""

    @abstractmethod
    def _queue_sender_entry(self, sender: S, kind: int, body: bytes) -> None:
        """Send an entry in the sender's next frame."""

    @abstractmethod
    def _make_receiver(
        self,
        stream: StreamId,
        source: NodeId,
        inner_sources: tuple[IPv4Network | IPv6Network, ...],
        data: EpochKey,
        feedback: EpochKey,
        offload_kinds: tuple[int, ...],
        now: float,
    ) -> R:
        """Return a receiver that has no label yet."""

    @abstractmethod
    def _take_label(self, receiver: R, hop: Hop) -> bool:
        """Accept the receiver's frames under hop.label_in; False if the label is another receiver's."""

    @abstractmethod
    def _give_labels_back(self, receiver: R) -> None:
        """Accept no more frames under the receiver's labels."""

    @abstractmethod
    def _receives(self, label: Label) -> bool:
        """Say whether a label is a receiver's."""

    @abstractmethod
    def _relays_under(self, label: Label, *, feedback: bool) -> bool:
        """Say whether data (or feedback) that comes under a label is passed on."""

    @abstractmethod
    def _make_relay(self, before: Hop, ahead: Hop, now: float) -> None:
        """Pass frames on.  Raises LocalProtocolError if that is impossible, or if a relay has one of the labels."""

    # ── tables: egress ──

    def refuse(self, address: IPAddress, reason: str) -> None:
        """Drop what waits for an address that is no node's."""
        self._pending.refuse(address.packed, reason)

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
        """Seal a destination's packets with a stream; the stream that did so before is detached."""
        egress = self._egresses.get(destination)
        if egress is None:
            raise LocalProtocolError("a sender for a destination without egress")
        if stream in self._senders:
            raise LocalProtocolError("the stream has a sender")
        if egress.sender is not None:
            egress.sender.detach()
        sender = self._make_sender(destination, stream, data, feedback, offload_kinds, now)
        egress.sender = self._senders[stream] = sender
        self._rerouted(sender, now)

    def rekey_sender(self, stream: StreamId, data: EpochKey, feedback: EpochKey, *, now: float) -> None:
        """Start the next epoch of a stream we send."""
        self._sender(stream).rekey(data, feedback, now)

    def set_route(self, stream: StreamId, hop: Hop | None, *, now: float) -> None:
        """Send a stream over a hop, and accept its feedback under the hop's label."""
        sender = self._sender(stream)
        if not self._empties(sender):
            if hop is not None:
                raise LocalProtocolError("a route for a stream that has nothing to send")
            return
        if hop is not None:
            label = (hop.link, hop.label_in)
            if self._feedback_labels.get(label, sender) is not sender or self._relays_under(label, feedback=True):
                raise LocalProtocolError("the feedback label is taken")
            self._feedback_labels[label] = sender
            sender.labels.add(label)
        sender.set_route(hop)
        self._rerouted(sender, now)

    def remove_feedback_label(self, link: LinkId, label: int) -> None:
        """Accept no more feedback under a label."""
        sender = self._feedback_labels.pop((link, label), None)
        if sender is not None:
            sender.labels.discard((link, label))

    def last_frame(self, stream: StreamId) -> bytes:
        """Seal and return a stream's last frame."""
        return self._sender(stream).last_frame()

    def remove_sender(self, stream: StreamId) -> None:
        """Erase the keys of a stream we send, and give its labels back."""
        sender = self._senders.pop(stream, None)
        if sender is None:
            return
        self._ended.add(sender.traffic())
        for label in sender.labels:
            del self._feedback_labels[label]
        self._erase_sender(sender)

    def _sender(self, stream: StreamId) -> S:
        sender = self._senders.get(stream)
        if sender is None:
            raise LocalProtocolError("no such sender")
        return sender

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
        """Accept a stream; it has no label yet."""
        if stream in self._receivers:
            raise LocalProtocolError("the stream has a receiver")
        if self.meets is not None:
            self.meets(source)
        receiver = self._make_receiver(stream, source, inner_sources, data, feedback, offload_kinds, now)
        self._receivers[stream] = receiver

    def rekey_receiver(self, stream: StreamId, data: EpochKey, feedback: EpochKey, *, now: float) -> None:
        """Accept the next epoch of a stream we receive, too."""
        self._receiver(stream).rekey(data, feedback)

    def add_receiver_route(self, stream: StreamId, hop: Hop, *, now: float) -> None:
        """Accept a stream's frames under a hop's label."""
        receiver = self._receiver(stream)
        if self._relays_under((hop.link, hop.label_in), feedback=False) or not self._take_label(receiver, hop):
            raise LocalProtocolError("the label is taken")
        receiver.add_route(hop)

    def seal_feedback(self, stream: StreamId, body: bytes) -> bytes:
        """Seal the feedback frame that confirms a route."""
        return self._receiver(stream).seal_confirmation(body)

    def unseal_confirmation(self, stream: StreamId, frame: bytes) -> bytes:
        """Return what confirms a route.  Raises RemoteProtocolError."""
        sender = self._senders.get(stream)
        if sender is None:
            raise RemoteProtocolError(Drop.UNKNOWN_STREAM)
        return sender.unseal_confirmation_untrusted(frame)

    def verify_last(self, stream: StreamId, frame: bytes) -> bool:
        """Say whether a frame is the last of a stream we receive."""
        receiver = self._receivers.get(stream)
        return receiver is not None and receiver.verify_last_untrusted(frame)

    def remove_receiver(self, stream: StreamId) -> None:
        """Erase the keys of a stream we receive, and give its labels back."""
        receiver = self._receivers.pop(stream, None)
        if receiver is None:
            return
        self._ended.add(receiver.traffic())
        self._give_labels_back(receiver)
        self._feedback_ready.pop(stream, None)
        receiver.erase()

    def _receiver(self, stream: StreamId) -> R:
        receiver = self._receivers.get(stream)
        if receiver is None:
            raise LocalProtocolError("no such receiver")
        return receiver

    def queue_entry(self, stream: StreamId, kind: int, body: bytes) -> None:
        """Send an entry in a stream's next frame or feedback."""
        sender = self._senders.get(stream)
        if sender is None:
            self._receiver(stream).queue_entry(kind, body)
        else:
            self._queue_sender_entry(sender, kind, body)

    # ── tables: relay ──

    def add_relay(self, before: Hop, ahead: Hop, *, now: float) -> None:
        """Pass frames on between two hops."""
        if self._receives((before.link, before.label_in)) or (ahead.link, ahead.label_in) in self._feedback_labels:
            raise LocalProtocolError("the label is taken")
        self._make_relay(before, ahead, now)

    # ── feedback, upcalls, time ──

    def _traffic(self) -> tuple[Traffic, ...]:
        """Return what went to each node and came from it, ever."""
        senders = (sender.traffic() for sender in self._senders.values())
        return self._ended.with_live((*senders, *(receiver.traffic() for receiver in self._receivers.values())))

    def _next_feedback(self, now: float) -> OutFrame | None:
        """Return one feedback frame that is due, or None."""
        while self._feedback_ready:
            stream = next(iter(self._feedback_ready))
            del self._feedback_ready[stream]
            frame = self._receivers[stream].feedback(now)
            if frame is not None:
                return frame
        return None

    def next_upcall(self) -> Upcall | None:
        """Return one upcall, or None."""
        return self._upcalls.popleft() if self._upcalls else None

    def next_timeout(self) -> float | None:
        """Return when handle_timeout() is due, or None for never."""
        return self._timers.next_timeout()

    def handle_timeout(self, *, now: float) -> None:
        """Fire every timer that is due."""
        self._timers.handle_timeout(now=now)

    def _drop(self, reason: str) -> None:
        """Count one drop; every drop of the datapath comes here."""
        self._drops[str(reason)] += 1  # str(): a Drop becomes its word

    def _upcall_untrusted(self, upcall: Upcall) -> None:
        if len(self._upcalls) >= self._config.upcall_count_max:
            self._drop(Drop.UPCALL_FULL)
        else:
            self._upcalls.append(upcall)

    def _mark_feedback(self, stream: StreamId) -> None:
        self._feedback_ready[stream] = None
