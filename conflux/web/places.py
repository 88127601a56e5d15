"""Where the page may be served: loopback, the overlay, and addresses of a LAN; never a public address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network
from typing import Final

from conflux.host.underlay import Interface
from conflux.ids import IPAddress

OVERLAY: Final = "overlay"
LOOPBACK: Final = (ip_address("127.0.0.1"), ip_address("::1"))

# Loopback, private, link-local, and what carriers and VPNs have for themselves (RFC 6598).
_NEAR: Final = tuple(
    ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)


def is_near(address: IPAddress) -> bool:
    """Say whether an address is of a kind that no router of the internet forwards to."""
    return any(address in network for network in _NEAR if network.version == address.version)


def wanted(listen: Sequence[str], overlay: Iterable[IPAddress], interfaces: Iterable[Interface]) -> set[IPAddress]:
    """Return the addresses to serve the page at: loopback, and what listen names of those that this host has now.

    listen: "overlay", names of interfaces, and addresses.  overlay: this node's addresses.
    """
    found = set(LOOPBACK)
    here = {address: interface.name for interface in interfaces for address in interface.addresses}
    for address, device in here.items():
        if str(address) in listen or (device in listen and is_near(address) and not address.is_link_local):
            found.add(address)
    if OVERLAY in listen:
        found.update(address for address in overlay if address in here)
    return found
