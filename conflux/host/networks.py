"""The networks that this host uses already, so that a realm's prefix that collides with one is found before it hurts.

Packets for such a network would go into the realm, and the fence would drop what comes from it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final, NamedTuple

from conflux.host.underlay import interfaces

RTF_REJECT: Final = 0x0200  # linux/route.h: an unreachable route, as the realm leaves behind
RTF_LOCAL: Final = 0x8000_0000  # linux/ipv6_route.h: an address of this host, which is found as such
BROAD_BITS: Final = 3  # a route to an eighth of all addresses or more is a default route, in one piece or in several

TAILSCALE_DEVICE: Final = "tailscale0"
TAILSCALE_NETWORK: Final = IPv4Network("100.64.0.0/10")  # its firewall drops these sources on every other device

Network = IPv4Network | IPv6Network


class Taken(NamedTuple):
    """A network, or one address as a network, that a device of this host leads to."""

    network: Network
    device: str

    def __str__(self) -> str:
        return f"{self.network} on {self.device}"


def taken(*, but: str) -> list[Taken]:
    """Return what this host's routes and addresses lead to; default routes are left out.  but: our own device."""
    found = (*_ipv4_routes(), *_ipv6_routes(), *_addresses())
    return [each for each in dict.fromkeys(found) if each.device not in (but, "lo")]


def collision(prefix: Network, used: Iterable[Taken]) -> Taken | None:
    """Return what a device that routes prefix would take packets from: a network or address inside; None if nothing."""
    return next((each for each in used if each.network.version == prefix.version and _is_inside(each, prefix)), None)


def overlap(prefix: Network, used: Iterable[Taken]) -> Taken | None:
    """Return what shares addresses with prefix, wider networks included; None if nothing does."""
    return next((each for each in used if each.network.overlaps(prefix)), None)


def tailscale_drops(prefix: Network) -> bool:
    """Say whether Tailscale runs here, whose firewall drops packets from prefix."""
    names = {name for _, name in socket.if_nameindex()}
    return TAILSCALE_DEVICE in names and prefix.overlaps(TAILSCALE_NETWORK)


def missing(devices: Iterable[str]) -> str | None:
    """Return which of these devices this host does not have, and which it has; None if it has all."""
    here = [name for _, name in socket.if_nameindex()]
    absent = [repr(name) for name in devices if name not in here]
    return f"no interface {', '.join(absent)} here ({', '.join(here)})" if absent else None


def _is_inside(each: Taken, prefix: Network) -> bool:
    return each.network.overlaps(prefix) and each.network.prefixlen >= prefix.prefixlen


def _ipv4_routes() -> Iterable[Taken]:
    """Yield what /proc/net/route has; its numbers are in this machine's byte order."""
    for words in _lines("/proc/net/route")[1:]:
        network, mask = (struct.pack("=I", int(words[index], 16)) for index in (1, 7))
        bits = int.from_bytes(mask).bit_count()
        if bits > BROAD_BITS and not int(words[3], 16) & RTF_REJECT:
            yield Taken(IPv4Network((network, bits)), words[0])


def _ipv6_routes() -> Iterable[Taken]:
    for words in _lines("/proc/net/ipv6_route"):
        bits = int(words[1], 16)
        if bits > BROAD_BITS and not int(words[8], 16) & (RTF_REJECT | RTF_LOCAL):
            yield Taken(IPv6Network((bytes.fromhex(words[0]), bits)), words[9])


def _addresses() -> Iterable[Taken]:
    """Yield every address; one of a tunnel has no route in the main table that would show it."""
    for interface in interfaces():
        for address in interface.addresses:
            yield Taken(ip_network(address), interface.name)


def _lines(path: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path(path).read_text(encoding="ascii").splitlines()]
    except OSError:  # no such protocol in this kernel
        return []
