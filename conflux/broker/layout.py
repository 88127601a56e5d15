"""Which servers a broker has: regions of servers, and sites with a server of their own.

servers of a region        one, or a cluster of them
regions                    clusters, joined by gateways
leaves                     servers at sites: each dials the regions, and serves its LAN when the way there is cut
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from conflux.errors import ConfigError, RemoteProtocolError
from conflux.record import Record, nested, sequence, text, uint

REGION_COUNT_MAX = 16
SERVER_COUNT_MAX = 16  # of one region
LEAF_COUNT_MAX = 256
HOST_CHARS_MAX = 253
REGION_CHARS_MAX = 32
ONLY_REGION = "main"

# Beside the port for clients, so that another broker on the same host is moved by one number.
CLUSTER_STEP, GATEWAY_STEP, LEAF_STEP = 2000, 3000, 3200
PORT_MAX = 65535 - LEAF_STEP

_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Region(Record):
    """A cluster of servers, or one server, under a name."""

    SHAPES = (text(REGION_CHARS_MAX), sequence(text(HOST_CHARS_MAX), SERVER_COUNT_MAX))

    name: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layout(Record):
    """All servers of a broker."""

    SHAPES = (
        sequence(nested(Region), REGION_COUNT_MAX),
        sequence(text(HOST_CHARS_MAX), LEAF_COUNT_MAX),
        uint(PORT_MAX),
    )

    regions: tuple[Region, ...]
    leaves: tuple[str, ...]
    port: int  # for clients

    @property
    def hosts(self) -> tuple[str, ...]:
        """The servers of all regions."""
        return tuple(host for region in self.regions for host in region.hosts)

    @property
    def cluster_port(self) -> int:
        """Where the servers of a region listen for one another."""
        return self.port + CLUSTER_STEP

    @property
    def gateway_port(self) -> int:
        """Where the servers listen for those of other regions."""
        return self.port + GATEWAY_STEP

    @property
    def leaf_port(self) -> int:
        """Where the servers listen for those of sites."""
        return self.port + LEAF_STEP

    def region_of(self, host: str) -> Region:
        """Return the region of a server."""
        return next(region for region in self.regions if host in region.hosts)


def at(host: str, port: int) -> str:
    """Return "host:port", "[host]:port" for an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def make_layout(regions: dict[str, tuple[str, ...]], leaves: tuple[str, ...], port: int) -> Layout:
    """Return a layout of checked names.  Raises ConfigError."""
    if not regions:
        raise ConfigError("a broker needs a server: --servers HOST, or --region NAME=HOST")
    if len(regions) > REGION_COUNT_MAX or len(leaves) > LEAF_COUNT_MAX:
        raise ConfigError(f"a broker has at most {REGION_COUNT_MAX} regions and {LEAF_COUNT_MAX} sites")
    for name, hosts in regions.items():
        if not _REGION.fullmatch(name):
            raise ConfigError(f"region {name!r}: 1 to {REGION_CHARS_MAX} of a-z, 0-9 and hyphens inside")
        if not 1 <= len(hosts) <= SERVER_COUNT_MAX:
            raise ConfigError(f"region {name}: 1 to {SERVER_COUNT_MAX} servers, not {len(hosts)}")
    if not 1024 <= port <= PORT_MAX:
        raise ConfigError(f"port {port}: 1024 to {PORT_MAX}, since the servers use others {LEAF_STEP} above it")
    every = [*(host for hosts in regions.values() for host in hosts), *leaves]
    for host in every:
        if not is_host(host):
            raise ConfigError(f"server {host!r}: neither a host name in lower case nor an address")
        if every.count(host) > 1:
            raise ConfigError(f"server {host}: named twice")
    return Layout(tuple(Region(name, hosts) for name, hosts in regions.items()), leaves, port)


def load_layout(data: bytes) -> Layout:
    """Return the layout of a file.  Raises ConfigError."""
    try:
        found = Layout.decode_untrusted(data)
    except RemoteProtocolError as error:
        raise ConfigError(f"not what this version of conflux writes ({error})") from None
    return make_layout({region.name: region.hosts for region in found.regions}, found.leaves, found.port)


def is_host(host: str) -> bool:
    """Say whether this is a host name in lower case, or an address as it is written shortest."""
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        try:
            return str(ip_address(host)) == host and "%" not in host
        except ValueError:
            return False
    return len(host) <= HOST_CHARS_MAX and _NAME.fullmatch(host) is not None
