"""What part of a link's traffic the engine moves, by kind.

The engine counts datagrams, and those of STUN among them.  Messages of conflux.link.1 and of DCEP come from here or end
here, so their sizes are known here; what they need of headers is an estimate, as several may share a datagram.
"""

from __future__ import annotations

from typing import Final

from conflux.carrier.ice.datagrams import DatagramTraffic
from conflux.carrier.wire import Moved
from conflux.usage.tally import UDP6_HEADER_BYTES, UDP_HEADER_BYTES, Both, Kind

MESSAGE_HEADER_BYTES: Final = 60  # chosen: a chunk's 16, and half of a datagram's 28 + 29 + 12, and of a SACK
RELAYED_HEADER_BYTES: Final = UDP_HEADER_BYTES + 4  # ChannelData of a TURN server (RFC 8656, section 12.4)


class EngineShare:
    """Adds to a link's traffic what the engine moved of it."""

    def __init__(self, traffic: DatagramTraffic, address: tuple[str, int] | None) -> None:
        """address: of the peer; None: datagrams go through a TURN server."""
        self._traffic = traffic
        self._header_bytes = RELAYED_HEADER_BYTES
        if address is not None:
            self._header_bytes = UDP6_HEADER_BYTES if ":" in address[0] else UDP_HEADER_BYTES
        self._before = Moved(0, 0, 0, 0, 0, 0)
        self._messages = Both()  # that are not counted as set-up yet

    def message(self, *, sent: int | None = None, received: int | None = None) -> None:
        """Take note of a message about the link itself, or about a route."""
        if sent is not None:
            self._messages = self._messages.plus(Both(sent + MESSAGE_HEADER_BYTES, 0))
        if received is not None:
            self._messages = self._messages.plus(Both(0, received + MESSAGE_HEADER_BYTES))

    def count(self, moved: Moved) -> None:
        """Add what was moved since the last time."""
        new = Moved(*(now - before for now, before in zip(moved, self._before, strict=True)))
        self._before = moved
        traffic = self._traffic
        stun = new.stun_bytes_received + new.stun_received * self._header_bytes
        received = new.bytes_received + new.received * self._header_bytes - stun
        again = min(traffic.returned_bytes, received)
        traffic.returned_bytes -= again
        whole = Both(new.bytes_sent + new.sent * self._header_bytes, received - again)
        if not traffic.is_open:
            self._messages = Both()
            traffic.add(Kind.SET_UP, sent=whole.sent, received=whole.received + stun)
            return
        set_up = Both(min(whole.sent, self._messages.sent), min(whole.received, self._messages.received))
        self._messages = self._messages.less(set_up)
        traffic.add(Kind.KEEP_ALIVE, received=stun)
        traffic.add(Kind.SET_UP, sent=set_up.sent, received=set_up.received)
        traffic.add(Kind.DATA, sent=whole.sent - set_up.sent, received=whole.received - set_up.received)
