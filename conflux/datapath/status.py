"""What a datapath shows of itself: plain values, no key, frozen.  `conflux status` and metrics read the same objects.

Nodes and streams are named as a person reads them.  "Ever" counts since the entry was made.
"""

from collections.abc import Mapping
from typing import NamedTuple

from conflux.datapath.traffic import Traffic


class EgressStatus(NamedTuple):
    """One destination's queue."""

    destination: str
    addresses: tuple[str, ...]
    stream: str | None  # the one that empties it; None: packets wait
    packets: int
    bytes: int
    marked_packets: int  # packets marked "congestion experienced", ever


class PendingStatus(NamedTuple):
    """What waits under one address until the node knows whose it is."""

    address: str
    packets: int
    bytes: int


class SenderStatus(NamedTuple):
    """The sending end of one stream."""

    stream: str
    epoch: int
    link: int | None  # of its route; None: it has none
    rtt_ms: float | None  # smoothed, of the present route; None: not measured
    suspect: bool  # frames go out and no report comes back
    destination: str
    frames: int  # ever
    packets: int  # ever
    bytes: int  # of whole frames, ever
    unreported_frames: int  # of the native datapath: 1 if any


class ReceiverStatus(NamedTuple):
    """The receiving end of one stream."""

    stream: str
    source: str
    epoch: int
    link: int | None  # over which feedback goes back; None: it has no route
    lost_frames: int  # of the epoch; falls again when a frame comes late
    marked_frames: int  # of the epoch, those that carried congestion experienced
    reports: int  # ever
    frames: int  # ever
    packets: int  # ever
    bytes: int  # of whole frames, ever


class RelaySideStatus(NamedTuple):
    """One of the two hops that a relay joins."""

    link: int
    label_in: int
    label_out: int


class RelayStatus(NamedTuple):
    """One route that is passed on, and what went each way, ever.  A relay knows no more of it."""

    before: RelaySideStatus
    ahead: RelaySideStatus
    frames_ahead: int
    bytes_ahead: int
    frames_back: int
    bytes_back: int


class DatapathStatus(NamedTuple):
    """All of a datapath.  After a native datapath stopped, nothing but its drops."""

    name: str
    egresses: tuple[EgressStatus, ...]
    pending: tuple[PendingStatus, ...]
    senders: tuple[SenderStatus, ...]
    receivers: tuple[ReceiverStatus, ...]
    relays: tuple[RelayStatus, ...]
    drops: Mapping[str, int]  # by reason, ever
    traffic: tuple[Traffic, ...] = ()
