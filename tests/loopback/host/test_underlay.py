"""Which of this host's addresses are used, in which order, and what is said of the others."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network

import ifaddr
import pytest

from conflux.host import underlay
from conflux.host.underlay import Underlay, Use, survey


def adapter(name: str, index: int, *hosts: str) -> ifaddr.Adapter:
    ips = [ifaddr.IP(host if ":" not in host else (host, 0, index), 24, name) for host in hosts]
    return ifaddr.Adapter(name, name, ips, index)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty networks of containers, two of them in use, that are older than the LANs."""
    bridges = [adapter(f"br-{number}", 10 + number, f"172.17.{number}.1") for number in range(20)]
    lans = [adapter("eth0", 50, "192.0.2.5", "fe80::5"), adapter("usb0", 51, "198.51.100.5", "2001:db8:7::5")]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [adapter("lo", 1, "127.0.0.1", "::1"), *bridges, *lans])
    monkeypatch.setattr(underlay, "_default_sources", lambda: {ip_address("198.51.100.5")})
    drivers = {each.name.encode(): "bridge" for each in bridges}
    monkeypatch.setattr(underlay, "_driver", lambda name, fd: drivers.get(name, "veth"))
    flags = {name: 0 for name in drivers if name not in (b"br-3", b"br-4")}
    monkeypatch.setattr(underlay, "_has_carrier", lambda name, fd: bool(flags.get(name, 1)))


@pytest.mark.usefixtures("gateway")
def test_networks_of_use_come_before_those_of_containers() -> None:
    assert [each.name for each in survey()][:6] == ["usb0", "lo", "eth0", "br-3", "br-4", "br-0"]
    near = survey(in_use=("192.0.2.5", "fe80::9%br-7"))
    assert [each.name for each in near][:2] == ["eth0", "usb0"], "a neighbour's comes before the default route's"


@pytest.mark.usefixtures("gateway")
def test_links_have_the_lans_among_their_addresses_and_what_is_cut_is_said() -> None:
    used = Underlay(count_max=4, excluded=(ip_network("2001:db8:7::/48"),))
    assert used.addresses() == ["198.51.100.5", "192.0.2.5", "172.17.3.1", "172.17.4.1"]
    assert used.warning is not None
    assert "none of br-0, br-1, br-2, br-5 and 14 more" in used.warning
    assert "control.lan.interfaces" in used.warning


@pytest.mark.usefixtures("gateway")
def test_named_interfaces_are_those_of_links_too() -> None:
    used = Underlay(count_max=4, excluded=(), interfaces=("eth0",))
    assert used.addresses() == ["192.0.2.5"]
    assert used.warning is None


@pytest.mark.usefixtures("gateway")
def test_link_local_address_is_used_where_a_neighbour_has_no_other() -> None:
    near: list[str] = []
    used = Underlay(count_max=4, excluded=(), interfaces=("eth0",), in_use=lambda: near)
    assert used.addresses() == ["192.0.2.5"]
    near.append("fe80::5%eth0")
    assert used.addresses() == ["192.0.2.5", "fe80::5%eth0"]


@pytest.mark.usefixtures("gateway")
def test_host_without_an_address_for_links_says_so() -> None:
    used = Underlay(count_max=4, excluded=(), interfaces=("wlan9",))
    assert used.addresses() == []
    assert used.warning == "no-address: this host has no address on wlan9 that a link can use"


def test_loopback_is_plain_and_no_bridge_as_the_kernel_says() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        assert underlay._has_carrier(b"lo", asking.fileno())
        assert underlay._driver(b"lo", asking.fileno()) != "bridge"
        assert underlay._driver(b"none0", asking.fileno()) == ""
    assert {each.name: each for each in survey()}["lo"].addresses[0] == ip_address("127.0.0.1")
    assert Use.NEIGHBOUR < Use.DEFAULT_ROUTE < Use.PLAIN < Use.BRIDGE < Use.NO_CARRIER


@pytest.mark.parametrize(
    ("address", "here"), [("127.0.0.1", True), ("::1", True), ("192.0.2.1", False), ("2001:db8::1", False)]
)
def test_host_knows_which_addresses_are_its_own(address: str, here: bool) -> None:
    assert underlay.is_here(address) is here
