"""What the LAN engine can be told, and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

DEFAULT_PORT = 7464

HANDSHAKE_S = 5.0  # TCP, TLS and ours together; a board of 2012 needs a tenth of it
PING_S = 15.0  # of silence
PING_LATER_S = 18.0  # the acceptor's: the dialler's ping breaks its silence first, so that one side pings and not both
SILENCE_S_MAX = 45.0  # pinged twice and a third one due
PROBE_S_MAX = 2.0  # for the answer to one ping, when there is reason to doubt that the peer is there
TCP_UNACKED_MS_MAX = 10_000  # TCP gives up on what it sent sooner than on silence (TCP_USER_TIMEOUT, RFC 5482)
CLOSE_S_MAX = 1.0
RETIRE_S = 1.0  # how long the loser of two connections still delivers what was on its way

CONNECTION_COUNT_MAX = 128  # about 100 kB each; above it an engine is due, and the log says so
HANDSHAKE_COUNT_MAX = 32  # at once, by strangers
DIAL_COUNT_MAX = 8  # at once
TARGET_COUNT_MAX = 256
WRITE_BUFFER_BYTES_MAX = 512 * 1024  # 16 of the largest messages; who is that slow is dropped and dials again

FORWARD_BACKLOG_BYTES_MAX = 256 * 1024  # what others want passed on gives way first, or they could cut a neighbour off

REDIAL_S_MIN = 0.2
REDIAL_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class LanConfig:
    """interfaces: names; none: all.  peers: neighbours mDNS cannot find.  overlay: never dialled and never announced.

    listen: addresses to bind.  Rates are per second, bursts at once; per_address ones count each remote address.
    """

    port: int = DEFAULT_PORT
    interfaces: tuple[str, ...] = ()
    mdns: bool = True
    peers: tuple[tuple[str, int], ...] = ()
    overlay: tuple[IPv4Network | IPv6Network, ...] = ()
    listen: tuple[str, ...] = ("0.0.0.0", "::")
    accept_rate: float = 20.0
    accept_burst: float = 64.0
    accept_rate_per_address: float = 2.0
    accept_burst_per_address: float = 16.0
    join_rate: float = 2.0
    join_burst: float = 16.0
    join_rate_per_address: float = 0.2  # a guess every five seconds, of a secret of 128 bits
    join_burst_per_address: float = 5.0

    def allows(self, host: str) -> bool:
        """Say whether an address is on the underlay: one of the overlay's would carry the overlay through itself."""
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return True  # a name; what it resolves to is asked again
        mapped = getattr(address, "ipv4_mapped", None)
        return not any((mapped or address) in network for network in self.overlay)
