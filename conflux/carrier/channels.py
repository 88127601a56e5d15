"""Data channels of one link: who has which stream, and what opening and closing them takes (RFC 8832, RFC 8831).

Sans-IO.  open(), accept(), send() and close() are what we want; message_untrusted() and reset_untrusted() what the peer
did; then next_command() says what to do with the association, and next_event() what came of it.

    ours      OPEN ─►            ◄─ ACK: ChannelUp          a channel is down for its user with the first sign of it;
    theirs    ◄─ OPEN: ChannelOffered, accept(): ACK ─►     its stream is used again only when both sides have reset it
    either    close(): reset ─►  ◄─ reset  │  ◄─ reset: ChannelDown, reset ─►

The peer frees a stream when it has performed our reset; we, when we hear that it has.  What it opens there before that
is held: nothing goes on a stream before the answer to its reset is in (RFC 6525, section 5.1.2, A1).
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

from conflux.errors import LocalProtocolError, RemoteProtocolError

PPID_DCEP: Final = 50
PPID_STRING: Final = 51
PPID_BINARY: Final = 53
PPID_STRING_EMPTY: Final = 56
PPID_BINARY_EMPTY: Final = 57

STREAM_COUNT_MAX = 4096  # each way, as cext/sctp.h has it; a channel's entry is all a stream costs here
CHANNEL_COUNT_MAX = (
    2048  # at once, whoever opened them: tethers of a busy relay, and a bound for a peer that never stops
)
NAME_BYTES_MAX = 256  # of a label or a protocol of ours; chosen

_ACK, _OPEN = 0x02, 0x03
_UNORDERED = 0x80
_RELIABLE, _RETRANSMITS, _LIFETIME = 0x00, 0x01, 0x02
_OPEN_HEADER = struct.Struct("!BBHIHH")  # type, channel type, priority, reliability, label size, protocol size


@dataclass(frozen=True, slots=True)
class Reliability:
    """At most one of the two bounds; neither: everything arrives."""

    ordered: bool = True
    retransmits_max: int | None = None
    lifetime_ms_max: int | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Send one message, reliable and ordered."""

    stream: int
    ppid: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset our side of streams."""

    streams: tuple[int, ...]


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
    stream: int
    data: bytes | str


ChannelCommand = Send | Reset
ChannelEvent = ChannelOffered | ChannelUp | ChannelDown | ChannelMessage


@dataclass(slots=True)
class _Channel:
    is_up: bool = False  # the peer knows of it: acknowledged by the peer, or accepted by us
    is_closing: bool = False  # for our user it is gone
    reset_out: bool = False  # our side's reset is done
    reset_in: bool = False  # the peer's is
    answer_due: bool = False  # to a reset of ours
    is_held: bool = False  # that reset is of what was on this stream before: what we have to say waits for its answer


class Channels:
    """Every data channel of one association.

    is_client: our role in DTLS, which decides whose stream ids are even.  drop_counts: what the peer sent in vain.
    """

    def __init__(self, *, is_client: bool, drop_counts: Counter[str]) -> None:
        self._parity = 0 if is_client else 1
        self._drop_counts = drop_counts
        self._channels: dict[int, _Channel] = {}
        self._commands: deque[ChannelCommand] = deque()
        self._events: deque[ChannelEvent] = deque()

    def next_command(self) -> ChannelCommand | None:
        """Return the next thing to do with the association, or None."""
        return self._commands.popleft() if self._commands else None

    def next_event(self) -> ChannelEvent | None:
        """Return the next thing that happened, or None."""
        return self._events.popleft() if self._events else None

    # ── what we want ─────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, label: str, protocol: str = "", reliability: Reliability | None = None) -> int:
        """Open a channel and return its stream; ChannelUp follows.

        The peer may send on it before that, so be ready for it before the next command is carried out.  Raises
        LocalProtocolError if there are as many as may be.
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
        """Take a channel that was offered."""
        channel = self._channels.get(stream)
        if channel is None or channel.is_up or stream % 2 == self._parity:
            raise LocalProtocolError(f"no channel is offered on stream {stream}")
        if not channel.is_closing:
            channel.is_up = True
            if not channel.is_held:
                self._acknowledge(stream)

    def send(self, stream: int, data: bytes | str) -> bool:
        """Send one message, reliable and ordered; False if the channel is not up."""
        if not self.is_up(stream):
            return False
        if isinstance(data, str):
            ppid, raw = (PPID_STRING, data.encode()) if data else (PPID_STRING_EMPTY, b"\0")
        else:
            ppid, raw = (PPID_BINARY, data) if data else (PPID_BINARY_EMPTY, b"\0")
        self._commands.append(Send(stream, ppid, raw))
        return True

    def close(self, *streams: int) -> None:
        """Close channels, in whatever state; no event follows.  No-op for those closed already."""
        closing = []
        for stream in streams:
            channel = self._channels.get(stream)
            if channel is not None and not channel.is_closing:
                channel.is_closing = True
                if not channel.is_held:
                    closing.append(stream)
        if closing:
            self._reset(*closing)

    def is_up(self, stream: int) -> bool:
        """Say whether messages may be sent on a channel."""
        channel = self._channels.get(stream)
        return channel is not None and channel.is_up and not channel.is_closing and not channel.is_held

    def _acknowledge(self, stream: int) -> None:
        self._commands.append(Send(stream, PPID_DCEP, bytes([_ACK])))

    def _reset(self, *streams: int) -> None:
        for stream in streams:
            self._channels[stream].answer_due = True
        self._commands.append(Reset(streams))

    @property
    def stream_count(self) -> int:
        """How many streams are in use, or not yet free again."""
        return len(self._channels)

    # ── what the peer did ────────────────────────────────────────────────────────────────────────────────────────────

    def message_untrusted(self, stream: int, ppid: int, data: bytes) -> None:
        """Take a message.  Raises RemoteProtocolError("dcep") if the peer's idea of channels is not ours."""
        channel = self._channels.get(stream)
        if ppid == PPID_DCEP:
            self._dcep_untrusted(stream, data)
        elif channel is None or not channel.is_up or channel.is_closing:
            self._drop_counts["channel-closed"] += 1
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
                self._drop_counts["text-malformed"] += 1
        else:  # 52 and 54, which RFC 8831 took out of use, or nobody's
            self._drop_counts["ppid-unknown"] += 1

    def _dcep_untrusted(self, stream: int, data: bytes) -> None:
        kind = data[0] if data else None
        channel = self._channels.get(stream)
        if kind == _OPEN:
            self._offered_untrusted(stream, channel, data)
        elif kind != _ACK:
            raise RemoteProtocolError("dcep", "neither OPEN nor ACK")
        elif stream % 2 != self._parity:
            raise RemoteProtocolError("dcep", "ACK of its own channel")
        elif channel is None or channel.is_closing or channel.is_up:
            self._drop_counts["channel-closed"] += 1
        else:
            channel.is_up = True
            self._events.append(ChannelUp(stream))

    def _offered_untrusted(self, stream: int, channel: _Channel | None, data: bytes) -> None:
        label, protocol, reliability = decode_open_untrusted(data)
        if stream % 2 == self._parity or stream >= STREAM_COUNT_MAX:
            raise RemoteProtocolError("dcep", "OPEN on a stream that is not the peer's to open")
        # The peer may open again what both have reset before we have heard that our reset is done.  Not twice: what is
        # held we have not reset.
        if channel is not None and not (channel.is_closing and channel.reset_in and not channel.is_held):
            raise RemoteProtocolError("dcep", "OPEN on a stream that is in use")
        answer_due = channel is not None and channel.answer_due
        is_refused = len(self._channels) - (channel is not None) >= CHANNEL_COUNT_MAX
        self._channels[stream] = _Channel(answer_due=answer_due, is_held=answer_due)
        if is_refused:
            self._drop_counts["channel-refused"] += 1
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
                self._drop_counts["reset-refused"] += 1  # the stream stays taken: nobody knows what it would carry
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


def encode_open(label: str, protocol: str, reliability: Reliability) -> bytes:
    """Return a DATA_CHANNEL_OPEN message (RFC 8832, section 5.1).  Raises LocalProtocolError for what it cannot say."""
    if reliability.retransmits_max is not None and reliability.lifetime_ms_max is not None:
        raise LocalProtocolError("a channel has one bound on reliability at most")
    kind, value = _RELIABLE, 0
    if reliability.retransmits_max is not None:
        kind, value = _RETRANSMITS, reliability.retransmits_max
    elif reliability.lifetime_ms_max is not None:
        kind, value = _LIFETIME, reliability.lifetime_ms_max
    if not reliability.ordered:
        kind |= _UNORDERED
    named = label.encode(), protocol.encode()
    if max(map(len, named)) > NAME_BYTES_MAX:
        raise LocalProtocolError("label or protocol of a channel is too long")
    return _OPEN_HEADER.pack(_OPEN, kind, 0, value, len(named[0]), len(named[1])) + b"".join(named)


def decode_open_untrusted(data: bytes) -> tuple[str, str, Reliability]:
    """Return label, protocol and reliability of a DATA_CHANNEL_OPEN.  Raises RemoteProtocolError("dcep")."""
    if len(data) < _OPEN_HEADER.size or data[0] != _OPEN:
        raise RemoteProtocolError("dcep", "no OPEN, or too short for one")
    _, kind, _, value, label_size, protocol_size = _OPEN_HEADER.unpack_from(data)
    if len(data) != _OPEN_HEADER.size + label_size + protocol_size:
        raise RemoteProtocolError("dcep", "OPEN is not as long as it says")
    ordered = not kind & _UNORDERED
    match kind & ~_UNORDERED:
        case 0x00:
            reliability = Reliability(ordered)
        case 0x01:
            reliability = Reliability(ordered, retransmits_max=value)
        case 0x02:
            reliability = Reliability(ordered, lifetime_ms_max=value)
        case _:
            raise RemoteProtocolError("dcep", f"channel type {kind:#x}")
    at = _OPEN_HEADER.size + label_size
    try:
        return data[_OPEN_HEADER.size : at].decode(), data[at:].decode(), reliability
    except UnicodeDecodeError:
        raise RemoteProtocolError("dcep", "a name that is no UTF-8") from None
