"""Which networks of a host collide with a prefix, as /proc/net and the devices' addresses show them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_interface

import pytest

from conflux.host import networks
from conflux.host.networks import Taken, collision, overlap, taken
from conflux.host.underlay import Interface

NONE = "00000000000000000000000000000000"
# As the kernel writes them: numbers of IPv4 in the byte order of the machine, here little-endian.
ROUTE = """\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t0100070A\t0003\t0\t0\t0\t00000000\t0\t0\t0
tun9\t00000080\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
eth0\t0001070A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
*\t00000B0A\t00000000\t0201\t0\t0\t0\t0000FFFF\t0\t0\t0
conflux0\t00000C0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
IPV6_ROUTE = f"""\
fd000007000100000000000000000000 40 {NONE} 00 {NONE} 00000100 00000001 00000000 00000001 eth0
fd000007000100000000000000000011 80 {NONE} 00 {NONE} 00000000 00000001 00000000 80200001 eth0
fd000008000000000000000000000000 30 {NONE} 00 {NONE} ffffffff 00000001 00000000 00200200       lo
{NONE} 00 {NONE} 00 {NONE} ffffffff 00000001 00000000 00200200       lo
"""


@pytest.fixture
def used(monkeypatch) -> list[Taken]:
    """What a host leads to: a LAN, a tunnel's address without a route, default routes, and our own device."""
    world = {"/proc/net/route": ROUTE, "/proc/net/ipv6_route": IPV6_ROUTE}
    addresses = {"wwan0": "100.72.5.6", "conflux0": "10.12.0.1", "lo": "127.0.0.1", "eth0": "fe80::1"}
    monkeypatch.setattr(networks, "_lines", lambda path: [line.split() for line in world[path].splitlines()])
    here = [Interface(name, 1, (ip_interface(address),)) for name, address in addresses.items()]
    monkeypatch.setattr(networks, "interfaces", lambda: here)
    return taken(but="conflux0")


def test_routes_and_addresses_of_other_devices_are_taken_and_default_and_closed_routes_are_not(used):
    assert {str(each) for each in used} == {
        "10.7.1.0/24 on eth0",
        "fd00:7:1::/64 on eth0",
        "100.72.5.6/32 on wwan0",
        "fe80::1/128 on eth0",
    }


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("10.7.0.0/16", "10.7.1.0/24 on eth0"),
        ("10.7.1.0/24", "10.7.1.0/24 on eth0"),
        ("100.72.0.0/16", "100.72.5.6/32 on wwan0"),
        ("10.7.1.16/28", None),  # its LAN is wider: our route is the more specific one
        ("10.8.0.0/16", None),
        ("10.11.0.0/16", None),  # an unreachable route, as an earlier daemon leaves it
        ("10.12.0.0/16", None),  # our own device
    ],
)
def test_a_prefix_collides_with_what_lies_inside_it(used, prefix, found):
    collides = collision(IPv4Network(prefix), used)
    assert (None if collides is None else str(collides)) == found


def test_a_network_around_a_prefix_overlaps_it(used):
    assert str(overlap(IPv4Network("10.7.1.16/28"), used)) == "10.7.1.0/24 on eth0"
    assert overlap(IPv4Network("10.8.0.0/16"), used) is None


def test_ipv6_prefixes_are_looked_at_too(used):
    assert str(collision(IPv6Network("fd00:7:1::/48"), used)) == "fd00:7:1::/64 on eth0"
    assert collision(IPv6Network("fd00:8::/48"), used) is None


def test_interfaces_that_are_not_here_are_named(monkeypatch):
    monkeypatch.setattr("conflux.host.networks.socket.if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    assert networks.missing(["eth0"]) is None
    assert networks.missing(["eth0", "wlan9", "x"]) == "no interface 'wlan9', 'x' here (lo, eth0)"


@pytest.mark.parametrize(("device", "drops"), [("tailscale0", True), ("eth0", False)])
def test_the_firewall_of_tailscale_drops_its_range_alone(monkeypatch, device, drops):
    monkeypatch.setattr("conflux.host.networks.socket.if_nameindex", lambda: [(1, "lo"), (2, device)])
    assert networks.tailscale_drops(IPv4Network("100.72.0.0/16")) == drops
    assert not networks.tailscale_drops(IPv4Network("10.7.0.0/16"))
