"""Network interfaces for mDNS: which to use."""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address
from pathlib import Path
from typing import NamedTuple

from conflux.control.lan.config import LanConfig
from conflux.host.underlay import survey

log = logging.getLogger(__name__)

MDNS_IPV4 = "224.0.0.251"  # RFC 6762, section 3
MDNS_IPV6 = "ff02::fb"
ADDRESS_COUNT_MAX = 32  # announced, and spoken from; a board has a few
MEMBERSHIPS = Path("/proc/sys/net/ipv4/igmp_max_memberships")  # of one socket, and zeroconf listens on one
MEMBERSHIP_COUNT_MAX = 20  # where that cannot be read: the kernel's default


class OnLink(NamedTuple):
    """One address of an interface that is used, with its prefix."""

    name: str
    scope: int
    address: IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Interfaces:
    """multicast: the addresses to send mDNS from.  announced: the addresses at which this node can be reached.

    left_out: the names of the interfaces that there was no room for.  links: every address of those that are used.
    """

    multicast: tuple[str, ...]
    announced: tuple[IPv4Address | IPv6Address, ...]
    left_out: tuple[str, ...] = ()
    links: tuple[OnLink, ...] = field(default=(), compare=False)

    def reaches(self, host: str) -> bool:
        """Say whether a node that is announced at an address may be dialled there: on a link of ours, but not by us.

        Any device can announce any address.  So nothing behind a router is dialled, no service of this host, and no
        link-local address without its interface.  Loopback is a link only if the configuration names it.
        """
        text, _, scope = host.partition("%")
        try:
            address = ip_address(text)
        except ValueError:
            return False
        if address.is_link_local and address.version == 6:
            links = [link for link in self.links if scope in (link.name, str(link.scope))]
        else:
            links = list(self.links)
        fitting = [link for link in links if address in link.address.network]
        is_own = any(address == link.address.ip and not address.is_loopback for link in links)
        return bool(fitting) and not is_own

    @property
    def routed(self) -> frozenset[IPv4Address | IPv6Address]:
        """The announced addresses but the link-local IPv6 ones, as each container's interface has one."""
        return frozenset(each for each in self.announced if each.version == 4 or not each.is_link_local)


def usable_interfaces(config: LanConfig) -> Interfaces:
    """Return the addresses at this moment, by use, as far as there is room.

    An interface without multicast is left out and does not disturb others.
    """
    room = {4: min(_membership_count_max(), ADDRESS_COUNT_MAX), 6: ADDRESS_COUNT_MAX}
    multicast: list[str] = []
    announced: list[IPv4Address | IPv6Address] = []
    left_out: dict[str, None] = {}
    links: list[OnLink] = []
    for interface in survey():
        if config.interfaces and interface.name not in config.interfaces:
            continue
        addresses = interface.addresses
        if not all(config.allows(str(address)) for address in addresses):
            continue  # the device of the overlay itself
        if not config.interfaces:
            addresses = tuple(address for address in addresses if not address.is_loopback)
        links += [OnLink(interface.name, interface.number, each) for each in interface.prefixed if each.ip in addresses]
        reachable = False
        for address in addresses:
            # Over IPv6, mDNS sends from the link-local address, one per interface.
            sends = address.version == 4 or address.is_link_local
            if not sends or not _can_multicast(address, interface.number):
                continue
            if room[address.version] == 0:
                left_out[interface.name] = None
                continue
            room[address.version] -= 1
            multicast.append(str(address))
            reachable = True
        if reachable:
            announced.extend(addresses)
    return Interfaces(tuple(multicast), tuple(announced[:ADDRESS_COUNT_MAX]), tuple(left_out), tuple(links))


def _membership_count_max() -> int:
    try:
        return int(MEMBERSHIPS.read_text("ascii"))
    except (OSError, ValueError):
        return MEMBERSHIP_COUNT_MAX


def _can_multicast(address: IPv4Address | IPv6Address, index: int | None) -> bool:
    """Join the group on a socket of our own first: in zeroconf, one bad interface would make all of them fail."""
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
