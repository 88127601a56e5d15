"""Writes down every packet of eth0; runs on a host of the lab.

    python capture.py FILE          until SIGTERM
    python capture.py --plain DEVICE    switches the offloads of a device off: packets then are what an Ethernet carries

The file has one record a packet: time f64, outgoing u8, size u32, then the packet.
"""

from __future__ import annotations

import array
import fcntl
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

_ETH_P_ALL: Final = 3
_SO_RCVBUFFORCE: Final = 33
_PACKET_OUTGOING: Final = 4
_SIOCETHTOOL: Final = 0x8946
_OFFLOADS: Final = (0x1F, 0x24, 0x2C, 0x17)  # TSO, GSO, GRO, and checksums: GSO of UDP needs them
_HEAD: Final = struct.Struct("!dBI")
_ROOM_BYTES: Final = 64 << 20
_READ_S: Final = 0.2  # between two looks whether SIGTERM came


class Packet(NamedTuple):
    """One Ethernet frame.  when: Unix time.  out: this host sent it."""

    when: float
    out: bool
    data: bytes


def capture(path: str) -> None:
    """Write every packet of eth0, in both directions, until SIGTERM."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM_BYTES)
    sock.bind(("eth0", 0))
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    sock.settimeout(_READ_S)
    with open(path, "wb", buffering=0) as file:
        while not stopped:
            try:
                data, place = sock.recvfrom(70000)
            except TimeoutError:
                continue
            file.write(_HEAD.pack(time.time(), place[2] == _PACKET_OUTGOING, len(data)) + data)


def switch_offloads_off(device: str) -> None:
    """Have a device carry no super-packets."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for command in _OFFLOADS:
        value = array.array("I", [command, 0])
        fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP16x", device.encode(), value.buffer_info()[0]))


def packets(data: bytes) -> Iterator[Packet]:
    """Read a part of what capture() wrote."""
    at = 0
    while at + _HEAD.size <= len(data):
        when, out, size = _HEAD.unpack_from(data, at)
        yield Packet(when, bool(out), data[at + _HEAD.size : at + _HEAD.size + size])
        at += _HEAD.size + size


if __name__ == "__main__":
    if sys.argv[1] == "--plain":
        switch_offloads_off(sys.argv[2])
    else:
        capture(sys.argv[1])
