"""Which servers a broker may have, and how wrong names are refused."""

from __future__ import annotations

import pytest

from conflux.broker.layout import at, load_layout, make_layout
from conflux.errors import ConfigError


def test_a_layout_crosses_a_file():
    layout = make_layout({"eu": ("a.example.org", "192.0.2.1"), "us": ("2001:db8::1",)}, ("gate.lan",), 4222)
    assert load_layout(layout.encode()) == layout
    assert layout.hosts == ("a.example.org", "192.0.2.1", "2001:db8::1")
    assert layout.region_of("192.0.2.1").name == "eu"
    assert (layout.cluster_port, layout.gateway_port, layout.leaf_port) == (6222, 7222, 7422)


@pytest.mark.parametrize(
    ("regions", "leaves", "port", "told"),
    [
        ({}, (), 4222, "needs a server"),
        ({"main": ()}, (), 4222, "1 to 16 servers, not 0"),
        ({"main": ("a",) * 17}, (), 4222, "1 to 16 servers, not 17"),
        ({"Main": ("a",)}, (), 4222, "region 'Main'"),
        ({"a.b": ("a",)}, (), 4222, "region 'a.b'"),
        ({"main": ("a", "a")}, (), 4222, "named twice"),
        ({"main": ("a",)}, ("a",), 4222, "named twice"),
        ({"eu": ("a",), "us": ("a",)}, (), 4222, "named twice"),
        ({"main": ("a b",)}, (), 4222, "server 'a b'"),
        ({"main": ("A",)}, (), 4222, "lower case"),
        ({"main": ("-a",)}, (), 4222, "server '-a'"),
        ({"main": ("a..b",)}, (), 4222, "server 'a..b'"),
        ({"main": ("../x",)}, (), 4222, "server '../x'"),
        ({"main": ("a/b",)}, (), 4222, "server 'a/b'"),
        ({"main": ("",)}, (), 4222, "server ''"),
        ({"main": ("192.0.2",)}, (), 4222, "server '192.0.2'"),
        ({"main": ("192.0.2.256",)}, (), 4222, "server '192.0.2.256'"),
        ({"main": ("2001:DB8::1",)}, (), 4222, "server"),
        ({"main": ("fe80::1%eth0",)}, (), 4222, "server"),
        ({"main": ("a" * 254,)}, (), 4222, "server"),
        ({"main": ("a:4222",)}, (), 4222, "server 'a:4222'"),
        ({"main": ("a",)}, (), 80, "port 80"),
        ({"main": ("a",)}, (), 63000, "port 63000"),
        ({f"r{n}": (f"h{n}",) for n in range(17)}, (), 4222, "at most 16 regions"),
        ({"main": ("a",)}, tuple(f"h{n}" for n in range(257)), 4222, "256 sites"),
    ],
)
def test_what_is_no_layout_is_refused_by_name(regions, leaves, port, told):
    with pytest.raises(ConfigError, match=told):
        make_layout(regions, leaves, port)


@pytest.mark.parametrize("data", [b"", b"\x80", b"x" * 100])
def test_a_damaged_layout_is_refused(data):
    with pytest.raises(ConfigError, match="not what this version"):
        load_layout(data)


def test_an_ipv6_address_stands_in_brackets():
    assert at("2001:db8::1", 4222) == "[2001:db8::1]:4222"
    assert at("a.example.org", 4222) == "a.example.org:4222"
