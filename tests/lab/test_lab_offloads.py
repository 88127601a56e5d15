"""cext/packet/packet.c splits super-packets as a real kernel does.

As a judge: the kernel is given a super-packet, forwards it to a device without offloads, and splits it itself.

    test ──super-packet, or our super pieces──► tun in ══forwards, splits══► tun out ──► test: the same as our pieces

As a host: sockets in two namespaces, joined by what we read from one device and write, split, to the other.

    socket ══► tun near ──super-packet──► test: checks, splits ──pieces──► tun far ══► socket
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import random
import select
import socket
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kit.compile import build
from kit.packets import ACK, CWR, FIN, PLAIN, PSH, TCP, UDP, Packet, folded
from kit.tree import CEXT

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
ALL_OFFLOADS = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40  # checksum, TSO for IPv4, IPv6 and ECN, USO for both
CLONE_NEWNET = 0x40000000
UDP_SEGMENT = 103
HEADER_BYTES = 10
READ_BYTES = 65535 + HEADER_BYTES
WAIT_S = 20.0
OPTIONS = bytes([1, 1, 8, 10]) + bytes(range(8))  # TCP timestamps


# ── the C ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Native:
    """cext/packet/packet.c by ctypes; its structures are opaque memory."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(build(CEXT / "packet/packet.c", shared=True)))
        self._library.split_next_bytes.restype = ctypes.c_size_t
        self._library.split_next.restype = ctypes.c_size_t

    def split(self, header: bytes, packet: bytes, most: int, *, plain: bool) -> list[tuple[bytes, bytes]]:
        """Return offload header and bytes of every piece.  Raises AssertionError if the header is refused."""
        view, whole, piece, state = (ctypes.create_string_buffer(256) for _ in range(4))
        assert self._library.packet_parse(packet, ctypes.c_size_t(len(packet)), view) == 0, packet.hex()
        size = ctypes.c_size_t(len(packet))
        assert self._library.offload_check_untrusted(header, packet, size, whole) == 0, (header.hex(), packet.hex())
        self._library.split_start(state, packet, size, whole, ctypes.c_size_t(most), ctypes.c_bool(plain))
        pieces = []
        while room := self._library.split_next_bytes(state):
            data, piece_header = ctypes.create_string_buffer(room), ctypes.create_string_buffer(HEADER_BYTES)
            assert self._library.split_next(state, data, piece) == room
            self._library.offload_store(piece, piece_header)
            pieces.append((piece_header.raw, data.raw))
        return pieces


@pytest.fixture(scope="module")
def native() -> Native:
    """The library, compiled once."""
    return Native()


# ── namespaces and devices ───────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Put this thread into the namespace for a while: what it opens belongs there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace}") as there:
        assert libc.setns(there.fileno(), CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert libc.setns(home.fileno(), CLONE_NEWNET) == 0


def ip(*words: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *words], check=True)


def device(namespace: str, name: str, offloads: int, addresses: tuple[str, ...], mtu: int = 1400) -> int:
    """Return the descriptor of a new device that gives and takes offload headers."""
    with inside(namespace):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(fd, TUNSETOFFLOAD, offloads)
    ip("-n", namespace, "link", "set", name, "addrgenmode", "none", "mtu", str(mtu), "txqueuelen", "10000")
    for address in addresses:
        ip("-n", namespace, "address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
    ip("-n", namespace, "link", "set", name, "up")
    return fd


@pytest.fixture
def namespaces() -> Iterator[None]:
    """Two network namespaces, near and far."""
    for name in ("near", "far"):
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
    yield
    for name in ("near", "far"):
        ip("netns", "del", name)


def read(fd: int, within_s: float = WAIT_S) -> tuple[bytes, bytes]:
    """Return offload header and packet."""
    assert select.select([fd], [], [], within_s)[0], "nothing came"
    data = os.read(fd, READ_BYTES)
    return data[:HEADER_BYTES], data[HEADER_BYTES:]


def read_unicast(fd: int) -> tuple[bytes, bytes]:
    """Return the next packet that the kernel does not send to multicast groups by itself."""
    while True:
        header, packet = read(fd)
        if packet[0] >> 4 == 4 or packet[24] != 0xFF:
            return header, packet


# ── the kernel as a judge ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def router(namespaces: None) -> Iterator[tuple[int, int]]:
    """Descriptors of a device that takes super-packets, and of one that takes none, with a kernel in between."""
    v4, v6 = "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"
    subprocess.run(["ip", "netns", "exec", "near", "sysctl", "-qw", v4, v6], check=True)
    way_in = device("near", "in", ALL_OFFLOADS, ("10.1.0.1/24", "fd01::1/64"))
    way_out = device("near", "out", 0, ("10.2.0.1/24", "fd02::1/64"))
    yield way_in, way_out
    os.close(way_in)
    os.close(way_out)


def before_the_hop(packet: bytes) -> bytes:
    """Undo the kernel's forwarding: restore the hop limit."""
    mended = bytearray(packet)
    if packet[0] >> 4 == 4:
        size = (packet[0] & 15) * 4
        assert folded(packet[:size]) == 0xFFFF, "the kernel's header checksum"
        mended[8] += 1
        mended[10:12] = bytes(2)
        mended[10:12] = (~folded(bytes(mended[:size])) & 0xFFFF).to_bytes(2)
    else:
        mended[7] += 1
    return bytes(mended)


def drawn(size: int) -> bytes:
    """Return so many random bytes, always the same."""
    return random.Random(size).randbytes(size)


TCP4 = Packet(drawn(20_000), TCP, "10.1.0.9", "10.2.0.9", tcp_options=OPTIONS)
TCP6 = replace(TCP4, source="fd01::9", destination="fd02::9")
UDP4 = Packet(drawn(20_000), UDP, "10.1.0.9", "10.2.0.9")
UDP6 = replace(UDP4, source="fd01::9", destination="fd02::9")
JUDGED = {
    "TCP4": (TCP4, 1300, False),
    "TCP6": (TCP6, 1300, False),
    "TCP4, odd, last": (replace(TCP4, payload=drawn(9999), flags=ACK | PSH | FIN, identification=65533), 1301, False),
    "TCP6, odd, last": (replace(TCP6, payload=drawn(9999), flags=ACK | PSH | FIN, sequence=2**32 - 5000), 1301, False),
    "TCP4, ECN": (replace(TCP4, flags=ACK | CWR, tos=2), 1300, True),
    "TCP6, ECN": (replace(TCP6, flags=ACK | CWR, tos=2), 1300, True),
    "TCP4, the largest": (replace(TCP4, payload=drawn(65535 - 52)), 1348, False),
    "TCP6, the largest": (replace(TCP6, payload=drawn(65535 - 32)), 1328, False),
    "TCP4, congestion experienced": (replace(TCP4, tos=3), 1300, False),
    "UDP4": (UDP4, 1200, False),
    "UDP6": (UDP6, 1200, False),
    "UDP4, odd": (replace(UDP4, payload=drawn(8001)), 333, False),
    "UDP6, odd": (replace(UDP6, payload=drawn(8001)), 333, False),
}


@pytest.mark.parametrize("name", JUDGED)
def test_the_kernel_splits_as_we_split(router: tuple[int, int], native: Native, name: str) -> None:
    packet, segment_bytes, ecn = JUDGED[name]
    way_in, way_out = router
    header, whole = packet.offload(segment_bytes, ecn=ecn), packet.pack(complete=False)
    ours = [piece for _, piece in native.split(header, whole, 0, plain=True)]
    assert len(ours) == -(-len(packet.payload) // segment_bytes)
    for most in (65535, 16384, 4000):
        for piece_header, piece in native.split(header, whole, most, plain=False):
            assert os.write(way_in, piece_header + piece) == HEADER_BYTES + len(piece)
        got = [read_unicast(way_out) for _ in ours]
        assert {each for each, _ in got} == {PLAIN}
        assert [before_the_hop(each) for _, each in got] == ours, f"pieces of at most {most} bytes"


# ── the kernel as a host ─────────────────────────────────────────────────────────────────────────────────────────────

WAYS = {
    "whole": (65535, False),
    "pieces of 16384": (16384, False),
    "pieces of 4000": (4000, False),
    "plain": (0, True),
}
STREAM = drawn(4_000_000)


class Splice:
    """Passes packets between two devices, both ways, through cext/packet/packet.c."""

    def __init__(self, native: Native, most: int, plain: bool) -> None:
        offloads = ALL_OFFLOADS
        self._near = device("near", "near", offloads, ("10.3.0.1/24", "fd03::1/64"))
        self._far = device("far", "far", 0 if plain else offloads, ("10.3.0.2/24", "fd03::2/64"))
        self._native, self._most, self._plain = native, most, plain
        self._stop_read, self._stop_write = os.pipe()
        self.counts: Counter[str] = Counter()
        self.trouble: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Stop, and raise what went wrong."""
        os.write(self._stop_write, b"x")
        self._thread.join()
        for fd in (self._near, self._far, self._stop_read, self._stop_write):
            os.close(fd)
        assert not self.trouble, self.trouble

    def _run(self) -> None:
        other = {self._near: self._far, self._far: self._near}
        try:
            while self._stop_read not in (ready := select.select([*other, self._stop_read], [], [])[0]):
                for fd in ready:
                    self._pass_on(fd, other[fd])
        except BaseException as error:  # noqa: BLE001  # close() shows it; a thread would hide it
            self.trouble.append(error)

    def _pass_on(self, source: int, target: int) -> None:
        header, packet = read(source)
        pieces = self._native.split(header, packet, self._most, plain=self._plain)
        self.counts["super"] += header[1] != 0
        self.counts["pieces"] += len(pieces)
        self.counts["unfinished"] += header[0] & 1
        for piece_header, piece in pieces:
            assert os.write(target, piece_header + piece) == HEADER_BYTES + len(piece)


@pytest.fixture(params=WAYS)
def splice(request: pytest.FixtureRequest, namespaces: None, native: Native) -> Iterator[Splice]:
    """A splice in each of WAYS."""
    splice = Splice(native, *WAYS[request.param])
    yield splice
    splice.close()


def counters(namespace: str) -> dict[str, int]:
    """Return /proc/net/snmp and snmp6 of a namespace, by table and name."""
    found: dict[str, int] = {}
    with inside(namespace):
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            table, *columns = names.split()
            found |= {table + name: int(value) for name, value in zip(columns, values.split()[1:], strict=True)}
        for line in Path("/proc/thread-self/net/snmp6").read_text().splitlines():
            name, value = line.split()
            found[name] = int(value)
    return found


def no_checksum_was_wrong() -> None:
    """Check the error counters of both namespaces."""
    for namespace in ("near", "far"):
        found = counters(namespace)
        names = ("Tcp:InErrs", "Tcp:InCsumErrors", "Udp:InCsumErrors", "Udp6InCsumErrors", "Udp6InErrors")
        assert {name: found[name] for name in names} == dict.fromkeys(names, 0)
        assert found["Ip:InHdrErrors"] == found["Ip6InHdrErrors"] == 0


def carry_stream(address: str, backward: bool) -> None:
    """Send STREAM between near and far's address, and check that it arrives."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside("far"):
        server = socket.create_server((address, 7000), family=family)
    with inside("near"):
        client = socket.socket(family)
    client.settimeout(WAIT_S)
    client.connect((address, 7000))
    accepted, _ = server.accept()
    accepted.settimeout(WAIT_S)
    sender, receiver = (accepted, client) if backward else (client, accepted)

    def send() -> None:
        sender.sendall(STREAM)
        sender.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    digest, size = hashlib.sha256(), 0
    while data := receiver.recv(65536):
        digest.update(data)
        size += len(data)
    thread.join()
    for each in (server, client, accepted):
        each.close()
    assert (size, digest.digest()) == (len(STREAM), hashlib.sha256(STREAM).digest())


@pytest.mark.parametrize("address", ["10.3.0.2", "fd03::2"])
@pytest.mark.parametrize("backward", [False, True], ids=["to far", "to near"])
def test_a_tcp_stream_arrives_as_it_was(splice: Splice, address: str, backward: bool) -> None:
    carry_stream(address, backward)
    assert not splice.trouble, splice.trouble
    no_checksum_was_wrong()
    if not (backward and splice._plain):  # far has no offloads then
        assert splice.counts["super"] > 20


@pytest.mark.parametrize("address", ["10.3.0.2", "fd03::2"])
def test_every_datagram_of_a_segmented_send_arrives_as_it_was(splice: Splice, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside("far"):
        receiver = socket.socket(family, socket.SOCK_DGRAM)
    receiver.bind((address, 7000))
    receiver.settimeout(WAIT_S)
    with inside("near"):
        sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.connect((address, 7000))
    for segment_bytes in (1200, 333, 1201):
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, segment_bytes)
        data = drawn(segment_bytes * 20 + 17)
        assert sender.send(data) == len(data)
        got = [receiver.recv(65536) for _ in range(21)]
        assert got == [data[at : at + segment_bytes] for at in range(0, len(data), segment_bytes)]
    sender.close()
    receiver.close()
    assert not splice.trouble, splice.trouble
    no_checksum_was_wrong()
    assert splice.counts["super"] == 3


def test_a_tunnel_in_the_overlay_carries_a_stream(splice: Splice) -> None:
    """Of a packet in a VXLAN, Linux leaves the inner checksum open."""
    for name, local, remote, address in (
        ("near", "10.3.0.1", "10.3.0.2", "10.4.0.1/24"),
        ("far", "10.3.0.2", "10.3.0.1", "10.4.0.2/24"),
    ):
        vxlan = ("vxlan", "id", "5", "dstport", "4789", "local", local, "remote", remote)
        ip("-n", name, "link", "add", "tunnel", "type", *vxlan)
        ip("-n", name, "address", "add", address, "dev", "tunnel")
        ip("-n", name, "link", "set", "tunnel", "up")
    carry_stream("10.4.0.2", backward=False)
    assert not splice.trouble, splice.trouble
    no_checksum_was_wrong()
    assert splice.counts["unfinished"] > 0
