"""Two reference datapaths joined by hand, and packets for them.  Time is what each call says."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network

from conflux.anchor import frame as f
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import Hop, OutFrame
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Datapath, Upcall
from conflux.datapath.reference.datapath import ReferenceDatapath
from conflux.ids import LinkId, NodeId, StreamId, TetherId

A, B, C = (NodeId(bytes([letter]) * 16) for letter in b"abc")
A4, B4, C4 = (ip_address(f"100.64.0.{last}") for last in (1, 2, 3))
A6, B6 = ip_address("fd00::a"), ip_address("fd00::b")
REALM = (ip_network("100.64.0.0/16"), ip_network("fd00::/48"))
STREAM = StreamId(b"s" * 16)
STREAM_BACK = StreamId(b"t" * 16)
TETHER = TetherId(b"tether!!")
LINK_A, LINK_B = LinkId(1), LinkId(7)  # A's and B's ids for the link between them
FORWARD, REVERSE = 1000, 2000  # B's label for the stream's frames, A's for feedback
HOP_A = Hop(LINK_A, TETHER, 3, label_out=FORWARD, label_in=REVERSE)
HOP_B = Hop(LINK_B, TETHER, 3, label_out=REVERSE, label_in=FORWARD)


def key(epoch: int, what: bytes) -> EpochKey:
    """Return one key; what: makes it different from others."""
    return EpochKey(epoch, f.CHACHA20_POLY1305, (what * 32)[:32], b"npre")


def keys(epoch: int = 0, what: bytes = b"") -> tuple[EpochKey, EpochKey]:
    """Return the data key and the feedback key of an epoch."""
    return key(epoch, b"data" + what + bytes([epoch])), key(epoch, b"back" + what + bytes([epoch]))


def udp(source: object = A4, destination: object = B4, *, port: int = 5000, body: bytes = b"", tos: int = 0) -> bytes:
    """Return one UDP packet with a correct IPv4 header checksum and none for UDP."""
    src, dst = ip_address(str(source)), ip_address(str(destination))
    payload = struct.pack(">HHHH", port, 7, 8 + len(body), 0) + body
    if src.version == 6:
        return struct.pack(">IHBB", 6 << 28 | tos << 20, len(payload), 17, 64) + src.packed + dst.packed + payload
    head = struct.pack(">BBHHHBBH", 0x45, tos, 20 + len(payload), 1, 0, 64, 17, 0) + src.packed + dst.packed
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + payload


def checksum(head: bytes) -> int:
    """Return the Internet checksum of an IPv4 header."""
    total: int = sum(struct.unpack(f">{len(head) // 2}H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def upcalls(datapath: Datapath) -> list[Upcall]:
    """Return every upcall that waits."""
    return list(iter(datapath.next_upcall, None))


def deliveries(datapath: Datapath) -> list[bytes]:
    """Return every packet for the TUN device that waits."""
    return list(iter(datapath.next_delivery, None))


def frames(datapath: Datapath, destination: NodeId = B, *, now: float = 0.0) -> list[OutFrame]:
    """Return every frame that a destination has."""
    return list(iter(lambda: datapath.next_frame(destination, now=now), None))


class Pair:
    """A sends to B over one hop; frames travel only by carry() and report()."""

    def __init__(self, config: DatapathConfig | None = None, *, route: bool = True) -> None:
        self.a = ReferenceDatapath(config)
        self.b = ReferenceDatapath(config)
        self.a.configure((A4, A6), REALM)
        self.b.configure((B4, B6), REALM)
        data, feedback = keys()
        self.a.add_egress(B, (B4, B6), now=0.0)
        self.a.add_sender(B, STREAM, data, feedback, now=0.0)
        self.b.add_receiver(STREAM, A, (ip_network(f"{A4}/32"), ip_network(f"{A6}/128")), data, feedback, now=0.0)
        self.b.add_receiver_route(STREAM, HOP_B, now=0.0)
        if route:
            self.a.set_route(STREAM, HOP_A, now=0.0)

    def carry(self, now: float, *, delay_s: float = 0.0, lose: frozenset[int] = frozenset()) -> list[bytes]:
        """Carry every frame of A's except those whose index is in lose; return what B delivers."""
        for index, out in enumerate(frames(self.a, now=now)):
            if index not in lose:
                self.b.frame_untrusted(LINK_B, out.data, now=now + delay_s)
        return deliveries(self.b)

    def reports(self, now: float) -> list[OutFrame]:
        """Return every feedback frame that B has due."""
        return list(iter(lambda: self.b.next_feedback(now=now), None))

    def report(self, now: float, *, delay_s: float = 0.0) -> list[Upcall]:
        """Carry the feedback that B has due to A; return A's upcalls."""
        self.b.handle_timeout(now=now)
        for out in self.reports(now):
            self.a.frame_untrusted(LINK_A, out.data, now=now + delay_s)
        return upcalls(self.a)
