"""Names and overlay addresses, as people type them and as peers send them."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from conflux.errors import ConfigError, RemoteProtocolError
from conflux.ids import NodeId, RealmId
from conflux.realm import address
from conflux.realm.name import label, parse_name

REALM_ID = RealmId(bytes.fromhex("0123456789abcdef0123456789abcdef"))
NODE_ID = NodeId(bytes.fromhex("fedcba98765432100011223344556677"))


def test_ipv6_address_is_realm_then_node():
    assert address.ipv6_address(REALM_ID, NODE_ID) == IPv6Address("fd01:2345:6789:fedc:ba98:7654:3210:0011")
    assert address.ipv6_prefix(REALM_ID) == IPv6Network("fd01:2345:6789::/48")


def test_default_ipv4_prefix_is_one_of_64_by_realm_id():
    assert address.default_ipv4_prefix(REALM_ID) == IPv4Network("100.107.0.0/16")
    found = {address.default_ipv4_prefix(RealmId(bytes([0, 0, 0, 0, 0, byte, *bytes(10)]))) for byte in range(256)}
    assert len(found) == 64
    assert all(prefix.subnet_of(IPv4Network("100.64.0.0/10")) for prefix in found)


def test_ipv4_shapes_round_trip():
    assert address.ipv4().load(address.ipv4().dump(IPv4Address("10.1.2.3"))) == IPv4Address("10.1.2.3")
    network = IPv4Network("10.1.0.0/16")
    assert address.ipv4_network().dump(network) == bytes([10, 1, 0, 0, 16])
    assert address.ipv4_network().load(bytes([10, 1, 0, 0, 16])) == network


@pytest.mark.parametrize("item", [b"", bytes(3), bytes(5), "10.0.0.1", 7, None, []])
def test_malformed_ipv4_is_refused(item):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        address.ipv4().load(item)


@pytest.mark.parametrize(
    "item", [b"", bytes(4), bytes([10, 0, 0, 1, 8]), bytes([10, 0, 0, 0, 33]), bytes(6), "10.0.0.0/8", None]
)
def test_malformed_ipv4_network_is_refused(item):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        address.ipv4_network().load(item)


@pytest.mark.parametrize("name", ["a", "7", "pi-4", "a" * 63, "0-0"])
def test_names_are_dns_labels(name):
    assert parse_name(name) == name
    assert label().load(name) == name


@pytest.mark.parametrize(
    "name", ["", "-", "a-", "-a", "A", "a.b", "a_b", "a b", "a" * 64, "é", "a\n", "a\0", "../x", "\x1b[31m"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match="node name"):
        parse_name(name, "node name")
    with pytest.raises(RemoteProtocolError, match="malformed"):
        label().load(name)


@pytest.mark.parametrize("item", [None, 1, b"a", ["a"]])
def test_name_of_another_type_is_refused(item):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        label().load(item)
