"""A sender, relays in a row and a receiver, all reference datapaths, joined by hand.

    A ──0── relay 1 ──1── relay 2 ──2── B        hop i joins node i and node i + 1

Every node has its own ids for links, and every end of a hop chose its label.  A frame travels only by cross().
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

from conflux.anchor import frame as f
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import TETHER_CHANNEL_COUNT, Hop, OutFrame
from conflux.datapath.config import DatapathConfig
from conflux.datapath.reference.datapath import ReferenceDatapath
from conflux.ids import LinkId, NodeId, StreamId, TetherId

A, B = NodeId(b"node-id-of-a...."), NodeId(b"node-id-of-b....")
A4, B4 = ip_address("100.64.0.1"), ip_address("100.64.0.2")
STREAM = StreamId(b"stream-id-of-ab.")
DATA = EpochKey(0, f.CHACHA20_POLY1305, b"data-key" * 4, b"npre")
FEEDBACK = EpochKey(0, f.CHACHA20_POLY1305, b"back-key" * 4, b"npre")
CHANNEL_COUNT = TETHER_CHANNEL_COUNT

Wire = Callable[[int, OutFrame], list[bytes]]  # hop, frame → what arrives at its other end


def packet(number: int, *, size: int = 64, port: int = 5000, ect: bool = False) -> bytes:
    """Return one UDP packet from A to B whose payload begins with its number."""
    payload = struct.pack(">HHHHI", port, 7, size - 20, 0, number) + b"plaintext" * size
    head = struct.pack(">BBHHHBBH", 0x45, 2 * ect, size, 0, 0, 64, 17, 0) + A4.packed + B4.packed
    return (head + payload)[:size]


def down(hop: int) -> LinkId:
    """Return the id that node hop has for the link to node hop + 1."""
    return LinkId(100 + hop)


def up(hop: int) -> LinkId:
    """Return the id that node hop + 1 has for the same link."""
    return LinkId(200 + hop)


def tether(hop: int) -> TetherId:
    """Return the id of a hop's tether."""
    return TetherId(b"tether-%d" % hop)


def near_side(hop: int) -> Hop:
    """Return a hop as its sending node sees it."""
    return Hop(down(hop), tether(hop), CHANNEL_COUNT, label_out=0xA0000000 + hop, label_in=0xB0000000 + hop)


def far_side(hop: int) -> Hop:
    """Return a hop as its receiving node sees it."""
    near = near_side(hop)
    return Hop(up(hop), near.tether, CHANNEL_COUNT, label_out=near.label_in, label_in=near.label_out)


class Chain:
    """A's stream to B through relay_count relays."""

    def __init__(self, relay_count: int, config: DatapathConfig | None = None) -> None:
        realm = (ip_network("100.64.0.0/16"),)
        self.a, self.b = ReferenceDatapath(config), ReferenceDatapath(config)
        self.relays = [ReferenceDatapath(config) for _ in range(relay_count)]
        self.nodes = [self.a, *self.relays, self.b]
        self.a.configure((A4,), realm)
        self.b.configure((B4,), realm)
        self.a.add_egress(B, (B4,), now=0.0)
        self.a.add_sender(B, STREAM, DATA, FEEDBACK, now=0.0)
        self.a.set_route(STREAM, near_side(0), now=0.0)
        self.b.add_receiver(STREAM, A, (ip_network("100.64.0.1/32"),), DATA, FEEDBACK, now=0.0)
        self.b.add_receiver_route(STREAM, far_side(relay_count), now=0.0)
        for index, relay in enumerate(self.relays):
            relay.add_relay(far_side(index), near_side(index + 1), now=0.0)

    def frames(self, now: float) -> list[OutFrame]:
        """Return the frames A has for the first hop."""
        return list(iter(lambda: self.a.next_frame(B, now=now), None))

    def cross(self, hop: int, out: OutFrame, now: float, wire: Wire = lambda _, out: [out.data]) -> None:
        """Carry one frame over one hop, in the direction its link says."""
        forward = out.link == down(hop)
        node, link = (self.nodes[hop + 1], up(hop)) if forward else (self.nodes[hop], down(hop))
        for data in wire(hop, out):
            node.frame_untrusted(link, data, now=now, channel=out.channel)

    def relayed(self, index: int, link: LinkId, now: float) -> list[OutFrame]:
        """Return the frames that wait in a relay for one of its links."""
        return list(iter(lambda: self.relays[index].next_relayed(link, now=now), None))

    def carry(self, now: float, wire: Wire = lambda _, out: [out.data]) -> list[bytes]:
        """Carry every frame of A's to B; return what B delivers."""
        for out in self.frames(now):
            self.cross(0, out, now, wire)
        for index in range(len(self.relays)):
            for out in self.relayed(index, down(index + 1), now):
                self.cross(index + 1, out, now, wire)
        return list(iter(self.b.next_delivery, None))

    def carry_back(self, now: float, wire: Wire = lambda _, out: [out.data]) -> None:
        """Carry the feedback that B has due to A."""
        self.b.handle_timeout(now=now)
        for out in iter(lambda: self.b.next_feedback(now=now), None):
            self.cross(len(self.relays), out, now, wire)
        for index in reversed(range(len(self.relays))):
            for out in self.relayed(index, up(index), now):
                self.cross(index, out, now, wire)


def held(root: object) -> Iterator[object]:
    """Yield every data object reachable from root: all that a memory dump of it could show."""
    seen: set[int] = set()
    todo = [root]
    while todo:
        found = todo.pop()
        if id(found) in seen or isinstance(found, type) or callable(found):
            if (holder := getattr(found, "__self__", None)) is not None:
                todo.append(holder)  # a bound method holds its object
            continue
        seen.add(id(found))
        yield found
        todo.extend(gc.get_referents(found))
