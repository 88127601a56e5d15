"""What keeps packets from passing the TUN device, as /proc/net shows it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from conflux.host import tun
from conflux.host.netlink import DeviceConfig
from conflux.host.tun import IFF_UP, Tun

CONFIG = DeviceConfig(
    "conflux9",
    4000,
    (IPv6Address("fd00::1"), IPv4Address("100.64.0.1")),
    (IPv6Network("fd00::/64"), IPv4Network("100.64.0.0/16")),
)

# As the kernel writes them: numbers of IPv4 in the byte order of the machine, here little-endian.
ROUTE = """\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
conflux9\t00004064\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
NONE = "00000000000000000000000000000000"
IPV6_ROUTE = f"""\
fd000000000000000000000000000000 40 {NONE} 00 {NONE} 00000400 00000001 00000000 00000001 conflux9
{NONE} 00 {NONE} 00 {NONE} ffffffff 00000001 00000000 00200200       lo
"""
IF_INET6 = """\
fd000000000000000000000000000001 0a 80 00 82 conflux9
00000000000000000000000000000001 01 80 10 80       lo
"""
WORLD = {"/proc/net/route": ROUTE, "/proc/net/ipv6_route": IPV6_ROUTE, "/proc/net/if_inet6": IF_INET6}


@pytest.fixture
def trouble(monkeypatch):
    """Return a function that says what the trouble is in a changed world.  flags: the device's; None: it is gone."""

    def trouble(
        changed: dict[str, str] | None = None,
        flags: int | None = IFF_UP,
        fd: int = 99,
        ipv4: IPv4Address | None = CONFIG.addresses[1],
    ) -> str | None:
        world = WORLD | (changed or {})
        monkeypatch.setattr(tun, "_lines", lambda path: [line.split() for line in world[path].splitlines()])
        device = Tun("conflux9", fd)
        monkeypatch.setattr(Tun, "_flags", lambda self: flags)
        monkeypatch.setattr(Tun, "_ipv4_address", lambda self: ipv4)
        return device.trouble(CONFIG)

    return trouble


def test_a_device_as_it_was_configured_has_no_trouble(trouble):
    assert trouble() is None


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"flags": None}, "conflux9 is gone"),
        ({"fd": -1}, "conflux9 is gone"),
        ({"flags": 0}, "conflux9 is down"),
        (
            {"changed": {"/proc/net/route": ROUTE.replace("conflux9", "conflux8")}},
            "conflux9 has lost the route to 100.64.0.0/16",
        ),
        (
            {"changed": {"/proc/net/ipv6_route": IPV6_ROUTE.replace("conflux9", "conflux8")}},
            "conflux9 has lost the route to fd00::/64",
        ),
        (
            {"changed": {"/proc/net/if_inet6": IF_INET6.replace("conflux9", "conflux8")}},
            "conflux9 has lost its address fd00::1",
        ),
        ({"ipv4": None}, "conflux9 has lost its address 100.64.0.1"),
        ({"ipv4": IPv4Address("192.0.2.1")}, "conflux9 has lost its address 100.64.0.1"),
    ],
)
def test_a_part_that_another_program_took_away_is_named(trouble, changed, problem):
    assert trouble(**changed) == problem


def test_a_kernel_without_ipv6_has_no_table_of_it(monkeypatch, tmp_path):
    assert tun._lines(str(tmp_path / "ipv6_route")) == []


def test_the_table_of_routes_is_read_once_a_look(trouble, monkeypatch):
    """A router's has a million lines, and each change of it is followed by a look."""
    reads: list[str] = []
    assert trouble() is None
    found = tun.routes()
    monkeypatch.setattr(tun, "routes", lambda: reads.append("routes") or found)
    assert trouble() is None
    assert reads == ["routes"]
