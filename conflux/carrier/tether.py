"""The names of a link's data channels on the wire: conflux.link.1, and the channels that one route holds, its tether.

Label and protocol of a channel are what its DCEP open message carries (RFC 8832):

    conflux.link.1      ""                                         one per link, opened by the link's initiator
    conflux.tether.1    <tether id, 16 hex digits>/<index>/<count>  index below count
"""

from __future__ import annotations

import re
from typing import NamedTuple

from conflux.carrier.interface import TETHER_CHANNEL_COUNT_MAX
from conflux.ids import TETHER_ID_BYTES, TetherId

LINK_LABEL = "conflux.link.1"
TETHER_LABEL = "conflux.tether.1"

_PROTOCOL = re.compile(rf"([0-9a-f]{{{2 * TETHER_ID_BYTES}}})/([0-9])/([1-9])")


def channel_protocol(tether: TetherId, index: int, count: int) -> str:
    """Return the protocol field of one channel of a tether."""
    return f"{tether.hex()}/{index}/{count}"


class Place(NamedTuple):
    """Where a channel belongs in a tether."""

    tether: TetherId
    channel: int  # 0 to channel_count - 1
    channel_count: int


def parse_protocol_untrusted(protocol: str) -> Place | None:
    """Return the place that a protocol field names, or None if it names none."""
    match = _PROTOCOL.fullmatch(protocol)
    if match is None:
        return None
    index, count = int(match[2]), int(match[3])
    if count > TETHER_CHANNEL_COUNT_MAX or index >= count:
        return None
    return Place(TetherId(bytes.fromhex(match[1])), index, count)
