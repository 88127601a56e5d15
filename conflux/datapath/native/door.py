"""What the engine hands to Python.  The extension builds these tuples from the structs of cext/engine/engine.h.

Times are seconds of time.monotonic(), sizes are bytes.  "Ever" means since the entry was made.
"""

from typing import NamedTuple


class EngineUpcall(NamedTuple):
    """One message of the engine.  kind says which of the other fields are used; the rest are 0 or empty."""

    kind: int  # one of the extension's constants, PACKET to WIRE_ERROR
    link: int  # FEEDBACK, ENTRY, WIRE_*: the link it is about
    handle: int  # SENT: the sender; ARRIVED, ENTRY: the receiver
    a: int  # ENTRY: kind; WIRE_MESSAGE: stream; WIRE_RESET: incoming; DEVICE_LOST: errno
    b: int  # ENTRY: epoch; WIRE_MESSAGE: PPID; WIRE_RESET: accepted
    came_at: float  # PACKET: when it came from the device
    data: bytes  # PACKET: offload header and packet; WIRE_CLOSED: the reason; else what came
    address: tuple[str, int] | None  # WIRE_DATAGRAM, WIRE_ERROR: host and port of the far end, if known


class EgressState(NamedTuple):
    """One destination's queue."""

    bytes: int
    packets: int
    marked: int  # packets marked "congestion experienced", ever
    active_at: float  # when a packet was last queued or sent


class SenderState(NamedTuple):
    """What a sender sealed."""

    epoch: int
    counter: int  # of the next frame
    route_first: int  # first counter of the epoch on the present route
    bytes_sealed: int  # of bundles, under the present key
    frames: int  # ever
    packets: int  # ever
    bytes: int  # of whole frames, ever
    silent_since: float | None  # when the first frame since the last report was sent; None: none was


class ReceiverState(NamedTuple):
    """What a receiver opened."""

    epoch: int
    highest: int  # counter of the epoch; -1: no frame yet
    received: int  # frames of the epoch
    marked: int  # of them, those that carried congestion experienced
    bytes: int  # of bundles, of the epoch
    highest_at: float  # when the highest counter arrived
    frames: int  # ever
    packets: int  # ever
    frame_bytes: int  # of whole frames, ever
    active_at: float  # when the newest frame came, or the receiver was made
    link: int  # over which the newest frame came
    label: int  # under which it came; 0: no frame came


class RelaySide(NamedTuple):
    """One of the two hops that a relay joins."""

    link: int
    label_in: int
    label_out: int


class RelayState(NamedTuple):
    """One route whose frames are passed on, and what went each way."""

    before: RelaySide
    ahead: RelaySide
    frames_ahead: int
    bytes_ahead: int
    frames_back: int
    bytes_back: int


class EngineCounts(NamedTuple):
    """What the engine did since it was made."""

    tun_read: int  # packets the device gave
    tun_written: int  # packets the device took
    wakeups: int  # how often the thread woke
