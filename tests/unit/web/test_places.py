"""Where the page is served: never at a public address."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from conflux.config import settings
from conflux.errors import ConfigError
from conflux.host.underlay import Interface
from conflux.web.places import LOOPBACK, is_near, wanted

HERE = (
    Interface("lo", 1, (ip_interface("127.0.0.1/8"), ip_interface("::1/128"))),
    Interface(
        "eth0",
        2,
        (
            ip_interface("192.168.1.7/24"),
            ip_interface("203.0.113.9/24"),
            ip_interface("2a01:4f8::7/64"),
            ip_interface("fd00:7::7/64"),
            ip_interface("fe80::7/64"),
        ),
    ),
    Interface("conflux0", 3, (ip_interface("100.79.3.1/16"), ip_interface("fd29::1/64"))),
)
OVERLAY = (ip_address("fd29::1"), ip_address("100.79.3.1"))


def places(*listen: str) -> set[str]:
    return {str(address) for address in wanted(listen, OVERLAY, HERE) - set(LOOPBACK)}


def test_nothing_named_is_loopback_alone():
    assert wanted((), OVERLAY, HERE) == set(LOOPBACK)


def test_of_an_interface_the_private_addresses_alone_are_taken():
    assert places("eth0") == {"192.168.1.7", "fd00:7::7"}


def test_the_overlay_is_this_nodes_addresses_while_the_device_has_them():
    assert places("overlay") == {"fd29::1", "100.79.3.1"}
    assert wanted(("overlay",), OVERLAY, HERE[:2]) == set(LOOPBACK)


def test_an_address_is_taken_while_the_host_has_it():
    assert places("192.168.1.7", "192.168.1.8") == {"192.168.1.7"}


@pytest.mark.parametrize("address", ["8.8.8.8", "2a01:4f8::7", "0.0.0.0", "::"])
def test_a_public_address_is_refused_in_the_configuration(address):
    with pytest.raises(ConfigError, match="must not be"):
        settings.parse(f'[page]\nlisten = ["{address}"]')


@pytest.mark.parametrize("listen", ['"eth0"', "[7]", '["two words"]'])
def test_what_is_no_place_is_refused_in_the_configuration(listen):
    with pytest.raises(ConfigError):
        settings.parse(f"[page]\nlisten = {listen}")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.31.0.1", "192.168.0.1", "169.254.1.1", "100.64.0.1", "::1", "fd00::1", "fe80::1"],
)
def test_addresses_of_a_lan_and_of_an_overlay_are_near(address):
    assert is_near(ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "0.0.0.0", "2001:db8::1", "2a01::1", "::", "ff02::1"]
)
def test_all_other_addresses_are_not(address):
    assert not is_near(ip_address(address))
