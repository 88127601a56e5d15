"""Native datapaths joined by links over loopback UDP, each with one end of a socket pair for its device.

     device ══ tun │ engine │ link ~~~ UDP ~~~ link │ engine │ tun ══ device

The engine has a real thread and real time.  Nothing here sleeps: step() waits in select() for everything that may
become readable, and until() takes steps until a claim holds or the deadline is past.
"""

from __future__ import annotations

import hmac
import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from itertools import count
from socket import socket as Socket

from conflux.anchor import frame as f
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import TETHER_CHANNEL_COUNT, Hop
from conflux.carrier.wire import AES_128_GCM, DtlsKeys, StunKeys, WireOpened, WireUpcall
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Upcall
from conflux.datapath.native.datapath import NO_OFFLOAD, NativeDatapath
from conflux.ids import IPAddress, LinkId, NodeId, StreamId, TetherId

A, B, C = (NodeId(bytes([letter]) * 16) for letter in b"abc")
A4, B4, C4 = (ip_address(f"100.64.0.{last}") for last in (1, 2, 3))
A6, B6 = ip_address("fd00::a"), ip_address("fd00::b")
REALM = (ip_network("100.64.0.0/16"), ip_network("fd00::/48"))
STREAM, STREAM_BACK = StreamId(b"s" * 16), StreamId(b"t" * 16)
TETHER = TetherId(b"tether!!")
CHANNEL_COUNT = TETHER_CHANNEL_COUNT
FORWARD, REVERSE = 1000, 2000  # the receiver's label for the stream's frames, the sender's for feedback
PORT = 5000  # of SCTP, both sides
BINARY = 53  # the PPID of a binary message
STUN_KEYS = StunKeys(b"our-password-of-22-byt", b"the-peers-password-too")  # of every link

DEADLINE_S = 20.0  # of every wait: a sanitizer on a busy machine is slow
DEVICE_BYTES = 65535 + f.OFFLOAD_HEADER_BYTES


def key(epoch: int, what: bytes) -> EpochKey:
    """Return one key; what: makes it different from others."""
    return EpochKey(epoch, f.CHACHA20_POLY1305, (what * 32)[:32], b"npre")


def keys(epoch: int = 0, what: bytes = b"") -> tuple[EpochKey, EpochKey]:
    """Return the data key and the feedback key of an epoch."""
    return key(epoch, b"data" + what + bytes([epoch])), key(epoch, b"back" + what + bytes([epoch]))


# ── packets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def checksum(data: bytes) -> int:
    """Return the Internet checksum of data; 0 if data includes a correct one."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) & ~1])) + (
        data[-1] << 8 if len(data) & 1 else 0
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(source: IPAddress, destination: IPAddress, protocol: int, payload: bytes, *, tos: int = 0) -> bytes:
    """Return one IP packet."""
    if source.version == 6:
        head = struct.pack(">IHBB", 6 << 28 | tos << 20, len(payload), protocol, 64)
        return head + source.packed + destination.packed + payload
    head = struct.pack(">BBHHHBBH", 0x45, tos, 20 + len(payload), 1, 0, 64, protocol, 0)
    head += source.packed + destination.packed
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + payload


def udp(
    number: int = 0,
    *,
    source: object = A4,
    destination: object = B4,
    port: int = 5000,
    size: int = 0,
    tos: int = 0,
) -> bytes:
    """Return one UDP packet whose payload begins with its number."""
    body = number.to_bytes(4, "big") + bytes(size)
    payload = struct.pack(">HHHH", port, 7, 8 + len(body), 0) + body
    return ip(ip_address(str(source)), ip_address(str(destination)), 17, payload, tos=tos)


TRANSACTIONS = itertools.count(1)


def stun(
    attribute_bytes: int = 0,
    *,
    kind: int = 0x0001,
    cookie: int = 0x2112A442,
    length: int | None = None,
    password: bytes | None = STUN_KEYS.ours,
    transaction: bytes | None = None,
) -> bytes:
    """Return one STUN message, a binding request unless kind says otherwise.

    length: what its header claims; None: the truth.  password: what its MESSAGE-INTEGRITY proves; None: it has none.
    transaction: 12 bytes; None: those of no message before.
    """
    if transaction is None:
        transaction = next(TRANSACTIONS).to_bytes(12, "little")
    whole = attribute_bytes + (24 if password is not None else 0)
    claimed = whole if length is None else length
    text = struct.pack(">HHI12s", kind, claimed & 0xFFFF, cookie, transaction) + bytes(attribute_bytes)
    if password is None:
        return text
    return text + struct.pack(">HH", 8, 20) + hmac.digest(password, text, "sha1")


def number_of(packet: bytes) -> int:
    """Return the number that udp() wrote into a packet."""
    return int.from_bytes(packet[28:32] if packet[0] >> 4 == 4 else packet[48:52], "big")


def port_of(packet: bytes) -> int:
    """Return a packet's source port."""
    return int.from_bytes(packet[20:22] if packet[0] >> 4 == 4 else packet[40:42], "big")


def pseudo_header(packet: bytes) -> bytes:
    """Return the pseudo-header that a transport checksum covers too."""
    if packet[0] >> 4 == 4:
        return packet[12:20] + struct.pack(">BBH", 0, packet[9], len(packet) - 20)
    return packet[8:40] + struct.pack(">IHBB", len(packet) - 40, 0, 0, packet[6])


def tcp_super(payload: bytes, segment_bytes: int, *, source: IPAddress = A4, destination: IPAddress = B4) -> bytes:
    """Return one TCP super-packet, offload header first; its checksum is left to the segmentation."""
    head = struct.pack(">HHIIHHHH", 5000, 7, 1, 0, 5 << 12 | 0x10, 1000, 0, 0)
    packet = ip(source, destination, 6, head + payload)
    start = 20 if source.version == 4 else 40
    partial = ~checksum(pseudo_header(packet)) & 0xFFFF
    packet = packet[: start + 16] + partial.to_bytes(2, "big") + packet[start + 18 :]
    kind = 1 if source.version == 4 else 4
    return struct.pack("<BBHHHH", 1, kind, start + 20, segment_bytes, start, 16) + packet


def tcp_payload(packet: bytes) -> tuple[int, bytes]:
    """Return the sequence number and the payload of a TCP packet."""
    start = 20 if packet[0] >> 4 == 4 else 40
    return int.from_bytes(packet[start + 4 : start + 8], "big"), packet[start + 20 :]


def transport_is_right(packet: bytes) -> bool:
    """Say whether a packet's checksums are right."""
    start = 20 if packet[0] >> 4 == 4 else 40
    head_is_right = packet[0] >> 4 == 6 or checksum(packet[:20]) == 0
    return head_is_right and checksum(pseudo_header(packet) + packet[start:]) == 0


# ── nodes and links ──────────────────────────────────────────────────────────────────────────────────────────────────


class Node:
    """One native datapath, the far end of its device, and everything it reported."""

    def __init__(
        self,
        *own: IPAddress,
        config: DatapathConfig | None = None,
        segments_udp: bool = False,
        device_bytes: int = 4 << 20,
    ) -> None:
        self.device, self.tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.device, self.tun):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, device_bytes)
        self.lost_count = 0
        self.datapath = NativeDatapath(
            config, tun=self.tun.fileno(), segments_udp=segments_udp, device_lost=self._device_lost
        )
        self.datapath.attach(self._wire_upcall)
        self.datapath.configure(own, REALM)
        self.engine = self.datapath._engine
        self.wire = self.datapath.wire
        self.wires: list[WireUpcall] = []
        self.upcalls: list[Upcall] = []
        self.raw: list[bytes] = []  # what the datapath wrote to the device, with offload headers
        self.sockets: dict[LinkId, Socket] = {}
        self.is_deaf = False  # we read neither the device nor the upcalls
        self.is_silent = False  # we send no report
        self._stopped = False

    def _device_lost(self) -> None:
        self.lost_count += 1

    def _wire_upcall(self, upcall: WireUpcall) -> None:
        self.wires.append(upcall)

    def send(self, packet: bytes, header: bytes = NO_OFFLOAD) -> None:
        """Write one packet to the device, as this host's kernel would."""
        self.device.send(header + packet)

    @property
    def packets(self) -> list[bytes]:
        """What the datapath wrote to the device, without offload headers."""
        return [each[f.OFFLOAD_HEADER_BYTES :] for each in self.raw]

    @property
    def drops(self) -> dict[str, int]:
        """Every drop so far, by reason."""
        return dict(self.datapath.drop_counts())

    def fds(self) -> Iterator[int]:
        """Yield the descriptors that show that something came."""
        if not self._stopped and not self.is_deaf:
            yield self.datapath.fd
            if self.device.fileno() >= 0:
                yield self.device.fileno()

    def collect(self, now: float) -> None:
        """Handle what came, fire timers, and keep what the datapath reports."""
        if self._stopped or self.is_deaf:
            return
        self.datapath.collect(now=now)
        if not self.is_silent:
            self.datapath.drain((), now=now)
        self.datapath.handle_timeout(now=now)
        self.upcalls += iter(self.datapath.next_upcall, None)
        if self.device.fileno() >= 0:
            self.raw += self._read()

    def _read(self) -> Iterator[bytes]:
        while True:
            try:
                packet = self.device.recv(DEVICE_BYTES)
            except (BlockingIOError, ConnectionResetError):
                return
            if not packet:
                return
            yield packet

    def stop(self) -> None:
        """Stop the datapath."""
        if not self._stopped:
            self._stopped = True
            self.datapath.stop()

    def close(self) -> None:
        """Stop the datapath and close every socket."""
        self.stop()
        for each in (self.device, self.tun, *self.sockets.values()):
            each.close()


class World:
    """Nodes, their sockets, and the steps in which they handle what came."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.sockets: list[Socket] = []
        self._ids = count(1)

    def node(self, *own: IPAddress, **options: object) -> Node:
        """Make a node; the options are those of Node."""
        node = Node(*own, **options)  # type: ignore[arg-type]  # Node's own keywords
        self.nodes.append(node)
        return node

    def socket(self) -> Socket:
        """Return a new UDP socket on loopback."""
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("127.0.0.1", 0))
        made.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            made.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        self.sockets.append(made)
        return made

    def pair_keys(self) -> tuple[DtlsKeys, DtlsKeys]:
        """Return the keys that the two ends of a DTLS handshake would have."""
        secrets = os.urandom(16), os.urandom(16)
        salts = os.urandom(4), os.urandom(4)
        one = DtlsKeys(AES_128_GCM, secrets[0], secrets[1], salts[0], salts[1], 65536)
        return one, DtlsKeys(AES_128_GCM, secrets[1], secrets[0], salts[1], salts[0], 65536)

    def add_link(self, node: Node, link: LinkId, end: Socket, address: tuple[str, int] | None, dtls: DtlsKeys) -> None:
        """Hand a socket and its keys to a node."""
        node.sockets[link] = end
        node.wire.add(
            link, end.fileno(), address, dtls, STUN_KEYS, port_local=PORT, port_remote=PORT, datagram_bytes_max=1472
        )

    def join(
        self,
        one: Node,
        other: Node,
        *,
        tethers: tuple[TetherId, ...] = (TETHER,),
        through: tuple[Socket, Socket] | None = None,
    ) -> tuple[LinkId, LinkId]:
        """Make an open link with mapped tethers; return its two ids.

        through: for each end, the socket that it takes for the far end.  The caller carries the datagrams between these
        two, and the link is not open yet.
        """
        names = LinkId(next(self._ids)), LinkId(next(self._ids))
        ends = self.socket(), self.socket()
        aims = [end.getsockname() for end in (through or reversed(ends))]
        dtls = self.pair_keys()
        for node, name, end, aim, keys_ in zip((one, other), names, ends, aims, dtls, strict=True):
            self.add_link(node, name, end, aim, keys_)
            self.map(node, name, tethers)
        if through is None:
            self.until(
                lambda: all(WireOpened(name) in node.wires for node, name in zip((one, other), names, strict=True))
            )
        return names

    @staticmethod
    def map(node: Node, link: LinkId, tethers: Iterable[TetherId] = (TETHER,)) -> None:
        """Map every channel of the tethers."""
        for place, tether in enumerate(tethers):
            for index in range(CHANNEL_COUNT):
                node.wire.map(link, 2 * (CHANNEL_COUNT * place + index), tether, index, lifetime_ms=2000)

    def step(self, timeout_s: float = 0.02) -> None:
        """Wait until something is readable, but not for long; then let every node handle what came."""
        select.select([fd for node in self.nodes for fd in node.fds()], [], [], timeout_s)
        for node in self.nodes:
            node.collect(time.monotonic())

    def until(self, claim: Callable[[], object]) -> None:
        """Take steps until the claim holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not claim():
            assert time.monotonic() < deadline, f"the claim does not hold; drops: {[node.drops for node in self.nodes]}"
            self.step()

    def pass_time(self, duration_s: float) -> int:
        """Take steps for a time; return how many: one, and one more each time something became readable."""
        deadline = time.monotonic() + duration_s
        step_count = 0
        while (left := deadline - time.monotonic()) > 0:
            self.step(left)
            step_count += 1
        return step_count

    def settle(self) -> None:
        """Take steps until everything that every association sent is acknowledged."""

        def silent() -> bool:
            states = [node.engine.link(link) for node in self.nodes for link in node.sockets if not node._stopped]
            return all(s is None or not (s["unsent_bytes"] or s["inflight_bytes"]) for s in states)

        self.until(silent)

    def close(self) -> None:
        """Close every node and socket."""
        for node in self.nodes:
            node.close()
        for each in self.sockets:
            each.close()


@contextmanager
def world() -> Iterator[World]:
    """A world, closed at the end."""
    made = World()
    try:
        yield made
    finally:
        made.close()


class Pair:
    """A's stream to B over one link."""

    def __init__(
        self,
        made: World,
        config: DatapathConfig | None = None,
        *,
        offload_kinds: tuple[int, ...] = (f.OFFLOAD,),
        route: bool = True,
        segments_udp: bool = False,
        through: tuple[Socket, Socket] | None = None,
    ) -> None:
        self.world = made
        self.a = made.node(A4, A6, config=config)
        self.b = made.node(B4, B6, config=config, segments_udp=segments_udp)
        self.link_a, self.link_b = made.join(self.a, self.b, through=through)
        self.hop_a = Hop(self.link_a, TETHER, CHANNEL_COUNT, label_out=FORWARD, label_in=REVERSE)
        self.hop_b = Hop(self.link_b, TETHER, CHANNEL_COUNT, label_out=REVERSE, label_in=FORWARD)
        now = time.monotonic()
        data, feedback = keys()
        self.a.datapath.add_egress(B, (B4, B6), now=now)
        self.a.datapath.add_sender(B, STREAM, data, feedback, offload_kinds=offload_kinds, now=now)
        self.b.datapath.add_receiver(STREAM, A, SOURCES, data, feedback, offload_kinds=offload_kinds, now=now)
        self.b.datapath.add_receiver_route(STREAM, self.hop_b, now=now)
        if route:
            self.route()

    def route(self) -> None:
        """Give A's stream its route."""
        self.a.datapath.set_route(STREAM, self.hop_a, now=time.monotonic())

    def forge(self, frame: bytes) -> None:
        """Send B a frame that A's stream did not seal, on the tether's first channel."""
        assert self.a.wire.send(self.link_a, 0, BINARY, frame)


SOURCES = (ip_network(f"{A4}/32"), ip_network(f"{A6}/128"))


def waves(number_count: int, wave_count: int = 50) -> Iterator[range]:
    """Yield the numbers in waves small enough for the device's socket pair."""
    for first in range(0, number_count, wave_count):
        yield range(first, min(first + wave_count, number_count))
