"""Which LAN a connection is on.

A LAN is an interface, or several interfaces that share a prefix.  A board with Ethernet and Wi-Fi in one house is on
one LAN: as a bridge between the two it would only repeat what all nodes there have heard.
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
)
from typing import Any

from conflux.host.underlay import interfaces

SocketAddress = tuple[Any, ...]
"""The result of getsockname(): (host, port), or for IPv6 (host, port, flow, scope)."""

_SCOPE = 3


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface and its addresses with their prefixes."""

    name: str
    index: int
    addresses: tuple[IPv4Interface | IPv6Interface, ...]

    @property
    def prefixes(self) -> set[IPv4Network | IPv6Network]:
        """Every prefix but the link-local ones, which are the same on all LANs."""
        return {address.network for address in self.addresses if not address.is_link_local}


class Lans:
    """The LANs of this host at one moment."""

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
        """Return the LANs of the interfaces that there are now."""
        return cls(
            Interface(found.name, found.number or -position, found.prefixed)
            for position, found in enumerate(interfaces(), start=1)
        )

    @property
    def addresses(self) -> frozenset[tuple[int, IPv4Interface | IPv6Interface]]:
        """Every address of this host, with the index of its interface."""
        return frozenset((interface.index, each) for interface in self._interfaces for each in interface.addresses)

    def of(self, local: SocketAddress, remote: SocketAddress) -> str | None:
        """Return the LAN a connection between these addresses is on; None if its interface is not there (any more).

        The remote address decides: a peer may be connected, through a router, to our address on another LAN than its
        own.  A remote address behind a router is on the LAN of the router.
        """
        interface = self._with_prefix_of(_address(remote)) or self._with_address(_address(local), local)
        return None if interface is None else self._lan_by_index[interface.index]

    def where(self, places: Iterable[tuple[str, int]]) -> str | None:
        """Return the LAN of the first of these places that is on a link of this host; None: none is."""
        return next((lan for host, _ in places if (lan := self._at(host)) is not None), None)

    def _at(self, host: str) -> str | None:
        text, _, scope = host.partition("%")
        address = ip_address(text)
        if address.is_link_local:
            found = next((each for each in self._interfaces if scope in (each.name, str(each.index))), None)
        else:
            found = self._with_prefix_of(address)
        return None if found is None else self._lan_by_index[found.index]

    def are_beside(self, host: str) -> bool:
        """Say whether an address is on a link of this host: link-local, or in a prefix of an interface."""
        address = ip_address(host.partition("%")[0])
        return address.is_link_local or self._with_prefix_of(address) is not None

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
