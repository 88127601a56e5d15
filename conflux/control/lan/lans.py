"""Which LAN a connection is on.

A LAN is an interface, or several that share a prefix: a board with Ethernet and Wi-Fi in one house is on one LAN, and
would pass everything that is said there on to those who have heard it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
)
from typing import Any

import ifaddr

SocketAddress = tuple[Any, ...]
"""What getsockname() returns: (host, port), or for IPv6 (host, port, flow, scope)."""

_SCOPE = 3


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface and its addresses with their prefixes."""

    name: str
    index: int
    addresses: tuple[IPv4Interface | IPv6Interface, ...]

    @property
    def prefixes(self) -> set[IPv4Network | IPv6Network]:
        """Every prefix that says something; link-local ones are the same on all LANs."""
        return {address.network for address in self.addresses if not address.is_link_local}


class Lans:
    """What the interfaces are at one moment."""

    def __init__(self, interfaces: Iterable[Interface]) -> None:
        self._interfaces = tuple(interfaces)
        self._lan_by_index: dict[int, str] = {}
        groups: list[list[Interface]] = []
        for interface in self._interfaces:
            touching = [group for group in groups if any(interface.prefixes & other.prefixes for other in group)]
            groups = [group for group in groups if group not in touching]
            groups.append([*(other for group in touching for other in group), interface])
        for group in groups:
            name = "+".join(sorted(interface.name for interface in group))
            self._lan_by_index.update((interface.index, name) for interface in group)

    @classmethod
    def survey(cls) -> Lans:
        """Look at the interfaces there are now."""
        return cls(
            Interface(
                adapter.name,
                -number if adapter.index is None else adapter.index,
                tuple(
                    ip_interface((found.ip if isinstance(found.ip, str) else found.ip[0], found.network_prefix))
                    for found in adapter.ips
                ),
            )
            for number, adapter in enumerate(ifaddr.get_adapters(), start=1)
        )

    def of(self, local: SocketAddress, remote: SocketAddress) -> str | None:
        """Return the LAN a connection between these addresses is on; None if its interface is not there (any more).

        The remote address goes first: who was dialled at the address we have on another LAN, through a router, is
        still where he is.  An address behind a router is on the LAN the router is on.
        """
        interface = self._with_prefix_of(_address(remote)) or self._with_address(_address(local), local)
        return None if interface is None else self._lan_by_index[interface.index]

    def _with_prefix_of(self, address: IPv4Address | IPv6Address) -> Interface | None:
        fitting = [
            (prefix.prefixlen, -position)
            for position, interface in enumerate(self._interfaces)
            for prefix in interface.prefixes
            if address in prefix
        ]
        return self._interfaces[-max(fitting)[1]] if fitting else None

    def _with_address(self, address: IPv4Address | IPv6Address, at: SocketAddress) -> Interface | None:
        scope = at[_SCOPE] if len(at) > _SCOPE else 0
        for interface in self._interfaces:
            if scope in (0, interface.index) and any(address == own.ip for own in interface.addresses):
                return interface
        return None


def _address(at: SocketAddress) -> IPv4Address | IPv6Address:
    return ip_address(str(at[0]).partition("%")[0])
