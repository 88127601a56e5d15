"""The data channels that one tether has on a link over aiortc: which are open, and how much waits on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from conflux.ids import TetherId

if TYPE_CHECKING:
    from aiortc.rtcdatachannel import RTCDataChannel


class Tether:
    """The data channels of one tether.  up is called once all of them are open, down once one is closed."""

    def __init__(self, id: TetherId, channel_count: int, up: Callable[[], None], down: Callable[[], None]) -> None:
        self.id = id
        self.channels: list[RTCDataChannel | None] = [None] * channel_count
        self._open_count = 0
        self._is_down = False
        self._up = up
        self._down = down
        self._drained: asyncio.Event | None = None

    def add(self, index: int, channel: RTCDataChannel) -> None:
        """Take the channel of that index; it may be open already."""
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
        """How many bytes wait to be sent on all channels together."""
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
                    # A channel that falls below its share of the bound is a reason to look at the sum again.
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
            # Later: aiortc may be closing one channel after another, and does not expect that closing one ends another.
            asyncio.get_running_loop().call_soon(self._close_channels)
            self._down()
