"""The TUN device: IP packets of this host that belong to the overlay, as bytes.

The device is not persistent: it lives as long as its file descriptor, and its addresses and routes live as long as the
device.  So nothing is left behind when the process ends, even by SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Self

from conflux.errors import UserError
from conflux.host.netlink import DeviceConfig
from conflux.ids import IPAddress

CLONE_DEVICE = Path("/dev/net/tun")
READ_COUNT_MAX = 64  # packets per wake-up: a busy device must not keep timers and sockets waiting
PACKET_BYTES_MAX = 65535  # the largest IP packet; the MTU may be changed while we run

# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
IFF_TUN_EXCL = 0x8000  # refuse to attach to a device that exists
IFF_VNET_HDR = 0x4000  # every packet with its offload header
TUNSETOFFLOAD = 0x400454D0
TUN_F_TCP = 0x01 | 0x02 | 0x04 | 0x08  # checksums, TCP segmentation for IPv4, for IPv6, with ECN
TUN_F_UDP = 0x20 | 0x40  # UDP segmentation, since Linux 6.2

# linux/sockios.h, linux/if.h
SIOCGIFFLAGS = 0x8913
SIOCGIFADDR = 0x8915
IFF_UP = 0x0001

# What read() and write() fail with on the descriptor of a device that was removed
_GONE = (errno.EBADFD, errno.ENODEV, errno.ENXIO)


class Tun:
    """One TUN device, owned by this process."""

    def __init__(self, name: str, fd: int, *, segments_udp: bool = False) -> None:
        self.name = name
        self.segments_udp = segments_udp  # the device takes UDP super-packets; only with offloads
        self._fd = fd
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deliver: Callable[[bytes], None] | None = None
        self._lost: Callable[[str], None] | None = None
        self.drops: Counter[str] = Counter()
        self.read_count = 0
        self.written_count = 0

    @classmethod
    def create(cls, name: str, *, offloads: bool = False) -> Self:
        """Make the device, down and without addresses.  Raises UserError with what a person can do.

        offloads: every packet carries an offload header and may be a super-packet; for the engine, which reads and
        writes the descriptor itself.
        """
        try:
            fd = os.open(CLONE_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UserError(
                f"{CLONE_DEVICE} is missing: load the kernel module (modprobe tun); "
                "in a container, pass the device in (--device /dev/net/tun)"
            ) from None
        except PermissionError:
            raise UserError(f"no permission to open {CLONE_DEVICE}: run as root or with CAP_NET_ADMIN") from None
        except OSError as error:
            hint = ": load the kernel module (modprobe tun)" if error.errno == errno.ENODEV else ""
            raise UserError(f"cannot open {CLONE_DEVICE}: {error.strerror}{hint}") from None
        try:
            flags = IFF_TUN | IFF_NO_PI | IFF_TUN_EXCL | (IFF_VNET_HDR if offloads else 0)
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        except OSError as error:
            os.close(fd)
            raise _refusal(name, error) from None
        return cls(name, fd, segments_udp=offloads and _offload(fd))

    def start(self, deliver: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        """Hand every packet to deliver from now on; lost(why) is called once if the device is taken away."""
        self._loop = asyncio.get_running_loop()
        self._deliver, self._lost = deliver, lost
        self._loop.add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        assert self._deliver is not None
        for _ in range(READ_COUNT_MAX):
            try:
                packet = os.read(self._fd, PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _GONE:
                    self._gone()
                    return
                self.drops["tun-read"] += 1  # the device is down; the kernel then keeps no packets for us
                return
            self.read_count += 1
            self._deliver(packet)
            if self._fd < 0:  # deliver() closed the device
                return

    def _gone(self) -> None:
        lost = self._lost
        self.close()
        if lost is not None:
            lost(f"{self.name} was removed")

    def write(self, packet: bytes) -> bool:
        """Give the kernel one packet; return False, and count the drop, if it did not take it."""
        if self._fd < 0:
            self.drops["tun-closed"] += 1
            return False
        try:
            os.write(self._fd, packet)
        except BlockingIOError:
            self.drops["tun-full"] += 1
        except OSError as error:
            # EIO: the device is down.  EINVAL: this is no IP packet.  Either way only this packet is lost.
            self.drops["tun-down" if error.errno in (errno.EIO, *_GONE) else "tun-refused"] += 1
        else:
            self.written_count += 1
            return True
        return False

    @property
    def fd(self) -> int:
        """The descriptor, for the engine, which reads and writes it; only this class closes it."""
        return self._fd

    def trouble(self, config: DeviceConfig) -> str | None:
        """Return what keeps packets from passing the device now, or None.

        config: what the device was given at the start; another program may have changed it since.  Raises OSError if
        it cannot look, as without a free descriptor.
        """
        if self._fd < 0 or (flags := self._flags()) is None:
            return f"{self.name} is gone"
        if not flags & IFF_UP:
            return f"{self.name} is down"
        # Setting a device down removes its routes and IPv6 addresses; setting it up again does not restore them.
        routed = routes()  # once: a router's table is long
        for network in config.networks:
            if (self.name, network) not in routed:
                return f"{self.name} has lost the route to {network}"
        for address in config.addresses:
            found = _ipv6_addresses() if address.version == 6 else {(self.name, self._ipv4_address())}
            if (self.name, address) not in found:
                return f"{self.name} has lost its address {address}"
        return None

    def _ipv4_address(self) -> IPv4Address | None:
        """Return the first IPv4 address of the device: the daemon gave it one, before any other program could."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            try:
                answer = fcntl.ioctl(asker, SIOCGIFADDR, struct.pack("16s24x", self.name.encode()))
            except OSError:
                return None
        return IPv4Address(answer[20:24])

    def _flags(self) -> int | None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            try:
                answer = fcntl.ioctl(asker, SIOCGIFFLAGS, struct.pack("16s24x", self.name.encode()))
            except OSError:
                return None
        flags: int = struct.unpack_from("H", answer, 16)[0]
        return flags

    def close(self) -> None:
        """Remove the device, and with it its addresses and routes."""
        if self._fd < 0:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1


def routes() -> set[tuple[str, IPv4Network | IPv6Network]]:
    """Return (device, network) of every route, from /proc/net: reading it needs no privilege."""
    found: set[tuple[str, IPv4Network | IPv6Network]] = set()
    for words in _lines("/proc/net/route")[1:]:
        network, mask = (struct.pack("<I", int(words[index], 16)) for index in (1, 7))
        found.add((words[0], IPv4Network((network, int.from_bytes(mask).bit_count()))))
    for words in _lines("/proc/net/ipv6_route"):
        found.add((words[9], IPv6Network((bytes.fromhex(words[0]), int(words[1], 16)))))
    return found


def _ipv6_addresses() -> set[tuple[str, IPAddress]]:
    return {(words[5], IPv6Address(bytes.fromhex(words[0]))) for words in _lines("/proc/net/if_inet6")}


def _lines(path: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path(path).read_text(encoding="ascii").splitlines()]
    except FileNotFoundError:  # no such protocol in this kernel
        return []


def _offload(fd: int) -> bool:
    """Have the kernel leave segmentation and checksums to us; return whether UDP's are among them."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_TCP | TUN_F_UDP)
        return True
    with contextlib.suppress(OSError):  # without any, every packet comes alone and complete: slower, and correct
        fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_TCP)
    return False


def _refusal(name: str, error: OSError) -> UserError:
    if error.errno == errno.EBUSY or (error.errno == errno.EINVAL and Path("/sys/class/net", name).exists()):
        return UserError(f"a network device named {name} exists already: choose another [tun] name, or remove it")
    if error.errno in (errno.EPERM, errno.EACCES):
        return UserError(f"no permission to create {name}: run as root or with CAP_NET_ADMIN")
    return UserError(f"cannot create {name}: {error.strerror}")
