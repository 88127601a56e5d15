"""Overlay addresses.

IPv6   fd | 40 bits of the realm id | 80 bits of the node id      self-certifying: it follows from the keys
IPv4   a /32 inside the realm's prefix, recorded by the issuer that grants it, part of the credential
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId, RealmId
from conflux.realm.reason import Reason
from conflux.record import Shape

# A realm's prefix becomes a route on every member, so it must not be public: RFC 1918, RFC 6598.
_PRIVATE = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
_PREFIX_LENGTH_MAX = 28  # room for 14 members; a longer prefix is a typing error


def ipv6_address(realm_id: RealmId, node_id: NodeId) -> IPv6Address:
    """Return a node's address."""
    return IPv6Address(b"\xfd" + realm_id[:5] + node_id[:10])


def ipv6_prefix(realm_id: RealmId) -> IPv6Network:
    """Return the /48 of a realm."""
    return IPv6Network((b"\xfd" + realm_id[:5] + bytes(10), 48))


def default_ipv4_prefix(realm_id: RealmId) -> IPv4Network:
    """Return the /16 inside 100.64.0.0/10 that the realm id picks, so that two realms on one host rarely collide."""
    return IPv4Network((bytes((100, 64 + realm_id[5] % 64, 0, 0)), 16))


def realm_prefix_allowed(prefix: IPv4Network) -> bool:
    """Say whether prefix may be a realm's: private, and with room for members."""
    return prefix.prefixlen <= _PREFIX_LENGTH_MAX and any(prefix.subnet_of(range_) for range_ in _PRIVATE)


def ipv4() -> Shape:
    """An IPv4 address on the wire: 4 bytes."""

    def load(item: Any) -> IPv4Address:
        if type(item) is not bytes or len(item) != 4:
            raise RemoteProtocolError(Reason.MALFORMED, "expected an IPv4 address")
        return IPv4Address(item)

    return Shape(load, lambda value: value.packed)


def ipv4_network() -> Shape:
    """An IPv4 network on the wire: 4 bytes, then its length; no host bits."""

    def load(item: Any) -> IPv4Network:
        if type(item) is not bytes or len(item) != 5:
            raise RemoteProtocolError(Reason.MALFORMED, "expected an IPv4 network")
        try:
            return IPv4Network((item[:4], item[4]))
        except ValueError as error:
            raise RemoteProtocolError(Reason.MALFORMED, str(error)) from None

    return Shape(load, lambda value: value.network_address.packed + bytes((value.prefixlen,)))
