"""The data channels of one link: which stream each has, and how they open and close (RFC 8831, RFC 8832).

Sans-IO.  open(), accept(), send() and close() take our user's wishes, message_untrusted() and reset_untrusted() what
the peer did.  Then next_command() says what to do with the association, and next_event() what happened.

    ours      OPEN ─►            ◄─ ACK: ChannelUp          the first sign of a close takes the channel from its user;
    theirs    ◄─ OPEN: ChannelOffered, accept(): ACK ─►     its stream is free once both sides have reset it
    either    close(): reset ─►  ◄─ reset  │  ◄─ reset: ChannelDown, reset ─►

The peer frees a stream as soon as it has performed our reset; we free it when its answer says so.  The peer may open a
channel there in between.  We hold that channel: nothing is sent on a stream before the answer to its reset has come
(RFC 6525, section 5.1.2, A1).
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

from conflux.carrier.drop import Drop
from conflux.carrier.interface import TETHER_CHANNEL_COUNT_MAX, TETHER_COUNT_MAX, CarrierEnd
from conflux.carrier.native.dcep import (
    ACK,
    OPEN,
    PPID_BINARY,
    PPID_BINARY_EMPTY,
    PPID_DCEP,
    PPID_STRING,
    PPID_STRING_EMPTY,
    Reliability,
    decode_open_untrusted,
    encode_open,
)
from conflux.errors import LocalProtocolError, RemoteProtocolError

STREAM_COUNT_MAX = 4096  # each way: SCTP_STREAM_COUNT_MAX of cext/sctp/sctp.h
# Data channels of one association at once, opened by us or by the peer: those of all its tethers.
CHANNEL_COUNT_MAX: Final = TETHER_COUNT_MAX * TETHER_CHANNEL_COUNT_MAX
# Messages of one link that come before their channel is accepted: as many as may wait for a label in the engine.
WAITING_COUNT_MAX: Final = 8
WAITING_BYTES_MAX: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class Send:
    """Send one message, reliable and ordered."""

    stream: int
    ppid: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset our side of streams.  is_answer: the peer has reset its side, and waits for ours."""

    streams: tuple[int, ...]
    is_answer: bool = False


@dataclass(frozen=True, slots=True)
class ChannelOffered:
    """The peer opens a channel: answer with accept() or close()."""

    stream: int
    label: str
    protocol: str
    reliability: Reliability


@dataclass(frozen=True, slots=True)
class ChannelUp:
    """A channel that we opened is open."""

    stream: int


@dataclass(frozen=True, slots=True)
class ChannelDown:
    """The peer closed a channel that we have not closed."""

    stream: int


@dataclass(frozen=True, slots=True)
class ChannelMessage:
    """A message came on a channel: text or bytes."""

    stream: int
    data: bytes | str


ChannelCommand = Send | Reset
ChannelEvent = ChannelOffered | ChannelUp | ChannelDown | ChannelMessage


@dataclass(slots=True)
class _Channel:
    is_up: bool = False  # both sides know of it: the peer acknowledged it, or we accepted it
    is_closing: bool = False  # gone for our user
    reset_out: bool = False  # our side of the stream is reset
    reset_in: bool = False  # the peer's side is reset
    answer_due: bool = False  # the peer has yet to answer a reset of ours
    is_held: bool = False  # that reset belongs to the channel before this one; nothing is sent until its answer


class Channels:
    """Every data channel of one association.

    is_client: our role in DTLS; the client's stream ids are even.  drop_counts: messages that are dropped.
    """

    def __init__(self, *, is_client: bool, drop_counts: Counter[str]) -> None:
        self._parity = 0 if is_client else 1
        self._drop_counts = drop_counts
        self._channels: dict[int, _Channel] = {}
        self._early: list[tuple[int, bytes]] = []  # messages on channels that are offered and not accepted yet
        self._commands: deque[ChannelCommand] = deque()
        self._events: deque[ChannelEvent] = deque()

    def next_command(self) -> ChannelCommand | None:
        """Return the next thing to do with the association, or None."""
        return self._commands.popleft() if self._commands else None

    def next_event(self) -> ChannelEvent | None:
        """Return the next thing that happened, or None."""
        return self._events.popleft() if self._events else None

    # ── our side ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, label: str, protocol: str = "", reliability: Reliability | None = None) -> int:
        """Open a channel and return its stream; ChannelUp follows.

        The peer may send on it before ChannelUp, so be ready for that before the next command is carried out.  Raises
        LocalProtocolError if no stream is free.
        """
        stream = next(
            (one for one in range(self._parity, STREAM_COUNT_MAX, 2) if one not in self._channels), STREAM_COUNT_MAX
        )
        if stream == STREAM_COUNT_MAX or len(self._channels) >= CHANNEL_COUNT_MAX:
            raise LocalProtocolError("too many data channels")
        self._channels[stream] = _Channel()
        self._commands.append(Send(stream, PPID_DCEP, encode_open(label, protocol, reliability or Reliability())))
        return stream

    def accept(self, stream: int) -> None:
        """Take a channel that was offered.  Raises LocalProtocolError if none is offered on the stream."""
        channel = self._channels.get(stream)
        if channel is None or channel.is_up or stream % 2 == self._parity:
            raise LocalProtocolError(f"no channel is offered on stream {stream}")
        if not channel.is_closing:
            channel.is_up = True
            if not channel.is_held:
                self._acknowledge(stream)
        for data in self._take_early(stream):
            self._events.append(ChannelMessage(stream, data))

    def send(self, stream: int, data: bytes | str) -> bool:
        """Send one message, reliable and ordered; False if the channel is neither up nor being opened by us.

        A message may follow an OPEN at once: the stream keeps their order (RFC 8832, section 6).
        """
        channel = self._channels.get(stream)
        if (
            channel is None
            or channel.is_closing
            or channel.is_held
            or not (channel.is_up or stream % 2 == self._parity)
        ):
            return False
        if isinstance(data, str):
            ppid, raw = (PPID_STRING, data.encode()) if data else (PPID_STRING_EMPTY, b"\0")
        else:
            ppid, raw = (PPID_BINARY, data) if data else (PPID_BINARY_EMPTY, b"\0")
        self._commands.append(Send(stream, ppid, raw))
        return True

    def close(self, *streams: int) -> None:
        """Close channels, in any state; no event follows.  No-op for closed ones."""
        closing = []
        for stream in streams:
            channel = self._channels.get(stream)
            if channel is not None and not channel.is_closing:
                channel.is_closing = True
                if lost := self._take_early(stream):
                    self._drop_counts[Drop.CHANNEL_CLOSED] += len(lost)
                if not channel.is_held:
                    closing.append(stream)
        if closing:
            self._reset(*closing)

    def is_up(self, stream: int) -> bool:
        """Say whether messages may be sent on a channel."""
        channel = self._channels.get(stream)
        return channel is not None and channel.is_up and not channel.is_closing and not channel.is_held

    def _acknowledge(self, stream: int) -> None:
        self._commands.append(Send(stream, PPID_DCEP, bytes([ACK])))

    def _reset(self, *streams: int) -> None:
        for stream in streams:
            self._channels[stream].answer_due = True
        self._commands.append(Reset(streams, any(self._channels[stream].reset_in for stream in streams)))

    @property
    def stream_count(self) -> int:
        """How many streams are in use, or not yet free again."""
        return len(self._channels)

    # ── the peer's side ──────────────────────────────────────────────────────────────────────────────────────────────

    def message_untrusted(self, stream: int, ppid: int, data: bytes) -> None:
        """Take a message.  Raises RemoteProtocolError("dcep") if it breaks a rule of DCEP."""
        channel = self._channels.get(stream)
        if ppid == PPID_DCEP:
            self._dcep_untrusted(stream, data)
        elif channel is None or not channel.is_up or channel.is_closing:
            if channel is None or channel.is_closing or ppid != PPID_BINARY or not self._keep(stream, data):
                self._drop_counts[Drop.CHANNEL_CLOSED] += 1
        elif ppid == PPID_BINARY:
            self._events.append(ChannelMessage(stream, data))
        elif ppid == PPID_BINARY_EMPTY:
            self._events.append(ChannelMessage(stream, b""))
        elif ppid == PPID_STRING_EMPTY:
            self._events.append(ChannelMessage(stream, ""))
        elif ppid == PPID_STRING:
            try:
                self._events.append(ChannelMessage(stream, data.decode()))
            except UnicodeDecodeError:
                self._drop_counts[Drop.TEXT_MALFORMED] += 1
        else:  # 52 and 54, which RFC 8831 deprecates, or unassigned
            self._drop_counts[Drop.PPID_UNKNOWN] += 1

    def _keep(self, stream: int, data: bytes) -> bool:
        """Keep a message for accept(): it came right behind the OPEN of its channel.  False: there is no room."""
        if stream % 2 == self._parity or len(self._early) >= WAITING_COUNT_MAX:
            return False
        if sum(len(other) for _, other in self._early) + len(data) > WAITING_BYTES_MAX:
            return False
        self._early.append((stream, data))
        return True

    def _take_early(self, stream: int) -> list[bytes]:
        taken = [data for early, data in self._early if early == stream]
        self._early = [entry for entry in self._early if entry[0] != stream]
        return taken

    def _dcep_untrusted(self, stream: int, data: bytes) -> None:
        kind = data[0] if data else None
        channel = self._channels.get(stream)
        if kind == OPEN:
            self._offered_untrusted(stream, channel, data)
        elif kind != ACK:
            raise RemoteProtocolError(CarrierEnd.DCEP, "neither OPEN nor ACK")
        elif stream % 2 != self._parity:
            raise RemoteProtocolError(CarrierEnd.DCEP, "ACK of its own channel")
        elif channel is None or channel.is_closing or channel.is_up:
            self._drop_counts[Drop.CHANNEL_CLOSED] += 1
        else:
            channel.is_up = True
            self._events.append(ChannelUp(stream))

    def _offered_untrusted(self, stream: int, channel: _Channel | None, data: bytes) -> None:
        label, protocol, reliability = decode_open_untrusted(data)
        if stream % 2 == self._parity or stream >= STREAM_COUNT_MAX:
            raise RemoteProtocolError(CarrierEnd.DCEP, "OPEN on a stream that is not the peer's to open")
        # The peer may open a channel on a stream that both sides have reset, before we know that our reset is done.
        # Not twice: a held channel has not been reset by us.
        if channel is not None and not (channel.is_closing and channel.reset_in and not channel.is_held):
            raise RemoteProtocolError(CarrierEnd.DCEP, "OPEN on a stream that is in use")
        answer_due = channel is not None and channel.answer_due
        is_refused = len(self._channels) - (channel is not None) >= CHANNEL_COUNT_MAX
        self._channels[stream] = _Channel(answer_due=answer_due, is_held=answer_due)
        if is_refused:
            self._drop_counts[Drop.CHANNEL_REFUSED] += 1
            self.close(stream)
        else:
            self._events.append(ChannelOffered(stream, label, protocol, reliability))

    def reset_untrusted(self, streams: tuple[int, ...], *, incoming: bool, accepted: bool) -> None:
        """Take the peer's reset of its side (incoming; no streams: all of them), or its answer to ours."""
        if incoming:
            for stream in streams or tuple(self._channels):
                self._reset_by_peer(stream)
            return
        for stream in streams:
            channel = self._channels.get(stream)
            if channel is None or not channel.answer_due:
                continue
            channel.answer_due = False
            if channel.is_held:
                self._release(stream, channel)
            elif not accepted:
                self._drop_counts[Drop.RESET_REFUSED] += 1  # the stream stays taken: its state is unknown
            else:
                channel.reset_out = True
                self._free_if_reset(stream, channel)

    def _release(self, stream: int, channel: _Channel) -> None:
        channel.is_held = False
        if channel.is_closing:
            self._reset(stream)
        elif channel.is_up:
            self._acknowledge(stream)

    def _reset_by_peer(self, stream: int) -> None:
        channel = self._channels.get(stream)
        if channel is None or channel.reset_in:
            return
        channel.reset_in = True
        if not channel.is_closing:
            self._events.append(ChannelDown(stream))
            self.close(stream)
        self._free_if_reset(stream, channel)

    def _free_if_reset(self, stream: int, channel: _Channel) -> None:
        if channel.reset_in and channel.reset_out:
            del self._channels[stream]
