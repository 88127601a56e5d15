"""The data channels that one tether has on a link that the engine carries."""

from __future__ import annotations

from collections.abc import Callable

from conflux.ids import TetherId


class StreamTether:
    """One tether: the stream of each channel, and how many channels are open.  shut: closes the tether's channels."""

    def __init__(self, id: TetherId, channel_count: int, *, shut: Callable[[StreamTether], None]) -> None:
        self.id = id
        self.channels: list[int | None] = [None] * channel_count
        self.up_count = 0
        self._shut = shut

    @property
    def streams(self) -> tuple[int, ...]:
        """The streams of the channels that are there, in order."""
        return tuple(stream for stream in self.channels if stream is not None)

    def close(self) -> None:
        """Close every channel."""
        self._shut(self)
