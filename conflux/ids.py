"""Identifiers of nodes, realms, boots, streams, links and tethers, and how a node id is written for people."""

from __future__ import annotations

import base64
import binascii
import re
from ipaddress import IPv4Address, IPv6Address
from typing import NewType

from conflux.errors import ConfigError

NodeId = NewType("NodeId", bytes)  # the first 16 bytes of SHA-256 over both public keys
RealmId = NewType("RealmId", bytes)  # 16 bytes, made the same way from the realm's root keys
BootId = NewType("BootId", bytes)  # 8 bytes: boot number (5, big-endian, only ever grows), then 3 random
StreamId = NewType("StreamId", bytes)  # 16 random bytes, chosen by the sender
LinkId = NewType("LinkId", int)  # local to one process, never sent, never reused
TetherId = NewType("TetherId", bytes)  # 8 random bytes, chosen by the node that opens the tether

NODE_ID_BYTES = 16
REALM_ID_BYTES = 16
BOOT_ID_BYTES = 8
STREAM_ID_BYTES = 16
TETHER_ID_BYTES = 8

LAN_PORT = 7464  # TCP port on which a node listens for its neighbours, if nothing else is configured
BROKER_PORT = 4222  # TCP port on which a broker's server listens for nodes, likewise: NATS's own

IPAddress = IPv4Address | IPv6Address

# A name is a DNS label (RFC 1035, section 2.3.4), so that it can be a host name as it is.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
NAME_CHARS_MAX = 63


def with_port(place: str, port: int) -> str:
    """Return "host:port" of a place, which may have a port already, as "[ipv6]:port" may."""
    return place if ":" in place and not place.endswith("]") else f"{place}:{port}"


def format_node_id(node: bytes) -> str:
    """Return a node id in 26 lower-case base32 characters."""
    return base64.b32encode(node).decode().rstrip("=").lower()


def parse_node_id(text: str) -> NodeId:
    """Return the node id that format_node_id() wrote; case does not matter.  Raises ConfigError."""
    try:
        node = base64.b32decode(text.upper() + "======")
    except (binascii.Error, ValueError):
        node = b""
    if len(node) != NODE_ID_BYTES or format_node_id(node) != text.lower():
        raise ConfigError(f"{text!r} is not a node id: 26 characters a-z and 2-7")
    return NodeId(node)


def fold_name(text: str) -> str:
    """Return a person's word for a node as names, ids and addresses are written: "Attic.local." is "attic"."""
    return text.strip().lower().removesuffix(".").removesuffix(".local")
