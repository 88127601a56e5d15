"""A set of networks that is asked for packed addresses: hosts are found by hash, wider networks one by one."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network


class Networks:
    """`address in networks`, for an address of 4 or 16 bytes."""

    __slots__ = ("_hosts", "_prefixes")

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        each = tuple(networks)
        self._hosts = frozenset(network.network_address.packed for network in each if network.num_addresses == 1)
        self._prefixes = tuple(
            (len(network.network_address.packed), int(network.network_address), int(network.netmask))
            for network in each
            if network.num_addresses > 1
        )

    def __contains__(self, address: bytes) -> bool:
        if address in self._hosts:
            return True
        if not self._prefixes:
            return False
        number = int.from_bytes(address, "big")
        return any(size == len(address) and number & mask == base for size, base, mask in self._prefixes)
