"""Network interfaces as mDNS sees them: which to use, and when they change."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import ifaddr

from conflux.control.lan.config import LanConfig

log = logging.getLogger(__name__)

MDNS_IPV4 = "224.0.0.251"  # RFC 6762, section 3
MDNS_IPV6 = "ff02::fb"
ADDRESS_COUNT_MAX = 32  # announced and listened on; a board has a handful

# From linux/rtnetlink.h: links, IPv4 and IPv6 addresses.
_NETLINK_ROUTE = 0
_NETLINK_GROUPS = 0x1 | 0x10 | 0x100


@dataclass(frozen=True, slots=True)
class Interfaces:
    """multicast: the addresses to speak mDNS from.  announced: where we can be reached."""

    multicast: tuple[str, ...]
    announced: tuple[IPv4Address | IPv6Address, ...]


def usable_interfaces(config: LanConfig) -> Interfaces:
    """Return what there is now; an interface that cannot do multicast is left out, and never in the others' way."""
    multicast: list[str] = []
    announced: list[IPv4Address | IPv6Address] = []
    for adapter in ifaddr.get_adapters():
        if config.interfaces and adapter.name not in config.interfaces:
            continue
        addresses = [ip_address(found.ip if isinstance(found.ip, str) else found.ip[0]) for found in adapter.ips]
        if not all(config.allows(str(address)) for address in addresses):
            continue  # the overlay's own device, with all its addresses
        if not config.interfaces:
            addresses = [address for address in addresses if not address.is_loopback]
        reachable = False
        for address in addresses:
            # IPv6 speaks from the link-local address, one per interface.
            speaks = address.version == 4 or address.is_link_local
            if speaks and _can_multicast(address, adapter.index):
                multicast.append(str(address))
                reachable = True
        if reachable:
            announced.extend(addresses)
    return Interfaces(tuple(multicast[:ADDRESS_COUNT_MAX]), tuple(announced[:ADDRESS_COUNT_MAX]))


def _can_multicast(address: IPv4Address | IPv6Address, index: int | None) -> bool:
    """Try on a socket of our own what zeroconf is about to do: there, one bad interface would take all down."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            if isinstance(address, IPv4Address):
                sock.bind((str(address), 0))
                group = socket.inet_aton(MDNS_IPV4) + address.packed
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            else:
                scope = index or 0
                sock.bind((str(address), 0, 0, scope))
                group = socket.inet_pton(socket.AF_INET6, MDNS_IPV6) + scope.to_bytes(4, "little")
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    except OSError as error:
        log.debug("no multicast from %s: %s", address, error)
        return False
    return True


class InterfaceWatch:
    """Says when links or addresses come and go: a netlink socket, read for nothing but the fact."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_ROUTE)
        try:
            self._socket.bind((0, _NETLINK_GROUPS))
        except OSError:
            self._socket.close()
            raise
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        try:
            while self._socket.recv(65536):
                pass
        except OSError:  # nothing left, or more than the kernel could hold: something changed either way
            pass
        self.changed.set()
