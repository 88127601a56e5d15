"""The LAN engine's settings and limits."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from conflux.ids import LAN_PORT

DEFAULT_PORT = LAN_PORT
MDNS_PORT = 5353  # RFC 6762

Place = tuple[str, int]
"""Where a node may be: a host name or an address, and a port."""

HANDSHAKE_S = 5.0  # TCP, TLS and ours together; a board of 2012 needs a tenth of it
PING_S = 32.0  # of silence.  What the network loses, TCP repeats; what is not acknowledged for 10 s ends a connection
PING_LATER_S = 36.0  # of the acceptor: it hears the dialler's ping before, so only one end pings
SILENCE_S_MAX = 45.0  # a host is there that acknowledges, but its process answers no ping for 13 s (9 s)
PROBE_S_MAX = 2.0  # for the answer to a ping, when there is reason to doubt that the peer is there
TCP_UNACKED_MS_MAX = 10_000  # TCP gives up on what it sent sooner than on silence (TCP_USER_TIMEOUT, RFC 5482)
CLOSE_S_MAX = 1.0
RETIRE_S = 1.0  # how long the loser of two connections still delivers

CONNECTION_COUNT_MAX = 128  # about 100 kB each; larger realms need another engine
HANDSHAKE_COUNT_MAX = 32  # at once, of strangers
DIAL_COUNT_MAX = 8  # at once
DIAL_S_MAX = 10.0  # of one node, at all its addresses: then another has its turn
TARGET_COUNT_MAX = 256
RING_TARGET_COUNT_MAX = 1280  # a LAN of a thousand
REMOTE_COUNT_MAX = 1024  # remote addresses whose budgets are kept
WRITE_BUFFER_BYTES_MAX = 512 * 1024  # 16 of the largest messages; a slower peer is dropped, and dials again

# Envelopes of others give way first: otherwise other nodes could fill the write buffer, and cut a neighbour off.
FORWARD_BACKLOG_BYTES_MAX = 256 * 1024

SETTLE_S = 0.5  # an interface comes up in several steps

REDIAL_S_MIN = 0.2
REDIAL_S_MAX = 30.0
SHUN_S_MIN, SHUN_S_MAX = 1.0, 300.0  # how long a place that answered, and proved nothing, is left alone


class LanConfig(NamedTuple):
    """What a person may set.  Rates are per second, bursts at once; per_address ones count each remote address.

    interfaces: the names of those that are listened on, spoken on and dialled by; none: all.  peers: nodes that mDNS
    cannot find.  overlay: prefixes that are never dialled and never announced.  listen: addresses to bind.  ring: on a
    LAN of more than ten nodes, stand beside ten of them at most.
    """

    port: int = DEFAULT_PORT
    interfaces: tuple[str, ...] = ()
    mdns: bool = True
    peers: tuple[Place, ...] = ()
    overlay: tuple[IPv4Network | IPv6Network, ...] = ()
    listen: tuple[str, ...] = ("0.0.0.0", "::")
    ring: bool = False
    accept_rate: float = 20.0
    accept_burst: float = 64.0
    accept_rate_per_address: float = 2.0
    accept_burst_per_address: float = 16.0
    join_rate: float = 2.0
    join_burst: float = 16.0
    join_rate_per_address: float = 0.2  # one guess of a 128-bit secret every five seconds
    join_burst_per_address: float = 5.0

    def allows(self, host: str) -> bool:
        """Say whether an address is on the underlay: over one of the overlay's, the overlay would carry itself."""
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return True  # a host name; the addresses it resolves to are asked about again
        mapped = getattr(address, "ipv4_mapped", None)
        return not any((mapped or address) in network for network in self.overlay)


def budget_key(host: str, is_on_link: Callable[[str], bool]) -> str:
    """Return what a remote address is charged as.

    An IPv6 host behind a router may have a whole /64 to itself, so that is charged.  On a link of ours all hosts share
    a /64, and fe80:: with the hosts of every other link: there each address has its own budget, with its scope.
    """
    address = ip_address(host.partition("%")[0])
    return host if address.version == 4 or is_on_link(host) else address.packed[:8].hex()
