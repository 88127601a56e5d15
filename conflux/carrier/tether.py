"""The data channels one route holds on one link: their names on the wire, and who of them is open.

Label and protocol of a channel are what its DCEP open message carries (RFC 8832):

    conflux.link.1      ""                                         one per link, opened by the link's initiator
    conflux.tether.1    <tether id, 16 hex digits>/<index>/<count>  index below count
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from conflux.ids import TETHER_ID_BYTES, TetherId

if TYPE_CHECKING:
    from aiortc.rtcdatachannel import RTCDataChannel

LINK_LABEL = "conflux.link.1"
TETHER_LABEL = "conflux.tether.1"
CHANNEL_COUNT_MAX = 8  # per tether
TETHER_COUNT_MAX = 256  # per link: a relay between two busy LANs has a route each way for every pair of them

_PROTOCOL = re.compile(rf"([0-9a-f]{{{2 * TETHER_ID_BYTES}}})/([0-9])/([1-9])")


def channel_protocol(tether: TetherId, index: int, count: int) -> str:
    """Return the protocol field of one channel of a tether."""
    return f"{tether.hex()}/{index}/{count}"


def parse_protocol_untrusted(protocol: str) -> tuple[TetherId, int, int] | None:
    """Return tether, index and count that a protocol field names, or None if it names no channel of ours."""
    match = _PROTOCOL.fullmatch(protocol)
    if match is None:
        return None
    index, count = int(match[2]), int(match[3])
    if count > CHANNEL_COUNT_MAX or index >= count:
        return None
    return TetherId(bytes.fromhex(match[1])), index, count


class Tether:
    """One tether of one link.  up is called once every channel is open, down once one is closed."""

    def __init__(self, id: TetherId, channel_count: int, up: Callable[[], None], down: Callable[[], None]) -> None:
        self.id = id
        self.channels: list[RTCDataChannel | None] = [None] * channel_count
        self._open_count = 0
        self._is_down = False
        self._up = up
        self._down = down
        self._drained: asyncio.Event | None = None

    def add(self, index: int, channel: RTCDataChannel) -> None:
        """Take a channel; one that is open already counts at once."""
        self.channels[index] = channel
        channel.on("close", self._closed)
        if channel.readyState == "open":
            self._opened()
        else:
            channel.on("open", self._opened)

    def close(self) -> None:
        """Close every channel; down is not called."""
        self._is_down = True
        self._wake()
        self._close_channels()

    def _close_channels(self) -> None:
        for channel in self.channels:
            if channel is not None:
                channel.close()

    @property
    def buffered_bytes(self) -> int:
        return sum(channel.bufferedAmount for channel in self.channels if channel is not None)

    async def drain(self, bytes_max: int) -> None:
        """Return when at most bytes_max wait to be sent, or when the tether is down."""
        while not self._is_down and self.buffered_bytes > bytes_max:
            if self._drained is None:
                self._drained = asyncio.Event()
                for channel in self.channels:
                    if channel is not None:
                        channel.on("bufferedamountlow", self._wake)
            for channel in self.channels:
                if channel is not None:
                    # Half the bound each would do for two; any of them falling is worth a look at the sum.
                    channel.bufferedAmountLowThreshold = bytes_max // len(self.channels)
            self._drained.clear()
            await self._drained.wait()

    def _wake(self) -> None:
        if self._drained is not None:
            self._drained.set()

    def _opened(self) -> None:
        self._open_count += 1
        if self._open_count == len(self.channels) and not self._is_down:
            self._up()

    def _closed(self) -> None:
        if not self._is_down:
            self._is_down = True
            self._wake()
            # Not here: aiortc may be closing channel after channel, and does not expect us to take one of them away.
            asyncio.get_running_loop().call_soon(self._close_channels)
            self._down()
