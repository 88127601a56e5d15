"""The messages that make the fence, read back.  That the kernel understands them, labs show."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from conflux.host import fence

REALM = (ip_network("fd12:3456:789a::/48"), ip_network("100.64.0.0/16"))
DOCKER = ("!=", b"docker0".ljust(16, b"\0"))
KEYS = {(1, 6): "iifname", (1, 7): "oifname", (1, 15): "nfproto"}


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and the value of each attribute."""
    while data:
        size, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:size]
        data = data[size + 3 & ~3 :]


def number(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


def read(expression: bytes) -> tuple[object, ...]:
    """Return an expression of a rule in words."""
    found = dict(attributes(expression))
    name, inner = found[1].rstrip(b"\0").decode(), dict(attributes(found[2]))
    match name:
        case "meta":
            return KEYS[number(inner[1]), number(inner[2])], ""
        case "cmp":
            return ("==", "!=")[number(inner[2])], dict(attributes(inner[3]))[1]
        case "payload":
            return "header", number(inner[3]), number(inner[4])
        case "bitwise":
            return "&", dict(attributes(inner[4]))[1]
        case "immediate":
            return ("verdict", number(dict(attributes(dict(attributes(inner[2]))[2]))[1]))
        case _:
            return (name,)


def rules(chain: str, *forward_from: str) -> list[list[tuple[object, ...]]]:
    """Return the rules of one chain of the fence around conflux0."""
    made = fence._table("conflux0", REALM, forward_from, fence.TABLE_F_OWNER)
    found = []
    for message in made:
        kind, parts = struct.unpack_from("=H", message, 4)[0] & 0xFF, dict(attributes(message[20:]))
        if kind == fence.NEWRULE and parts[2] == chain.encode() + b"\0":
            found.append([read(body) for _, body in attributes(parts[4])])
    return found


def rule(interface: str, network: object, offset: int, family: int, *devices: str) -> list[tuple[object, ...]]:
    """Return what drops packets by other devices than these whose address at offset is in the network."""
    return [
        (interface, ""),
        *(("!=", device.encode().ljust(16, b"\0")) for device in devices),
        ("nfproto", ""),
        ("==", bytes([family])),
        ("header", offset, len(network.netmask.packed)),  # type: ignore[attr-defined]
        ("&", network.netmask.packed),  # type: ignore[attr-defined]
        ("==", network.network_address.packed),  # type: ignore[attr-defined]
        ("counter",),
        ("verdict", fence.NF_DROP),
    ]


@pytest.mark.parametrize(("chain", "interface"), [("prerouting", "iifname"), ("postrouting", "oifname")])
def test_sources_and_destinations_in_the_realm_pass_the_device_and_this_host_alone(chain: str, interface: str) -> None:
    ours = ("conflux0", "lo")
    assert rules(chain) == [
        rule(interface, REALM[0], 8, 10, *ours),
        rule(interface, REALM[0], 24, 10, *ours),
        rule(interface, REALM[1], 12, 2, *ours),
        rule(interface, REALM[1], 16, 2, *ours),
    ]


def test_a_device_that_may_send_into_the_realm_may_not_send_in_a_members_name() -> None:
    coming = rules("prerouting", "docker0")
    assert [DOCKER in each for each in coming] == [False, True, False, True]


def test_a_device_that_may_send_into_the_realm_gets_its_answers_and_nothing_for_a_member() -> None:
    going = rules("postrouting", "docker0")
    assert [DOCKER in each for each in going] == [True, False, True, False]


def test_a_table_of_an_earlier_life_is_replaced_in_the_same_transaction() -> None:
    kinds = [struct.unpack_from("=H", each, 4)[0] & 0xFF for each in fence._table("conflux0", REALM, (), 2)]
    assert kinds[:5] == [fence.NEWTABLE, fence.DELTABLE, fence.NEWTABLE, fence.NEWCHAIN, fence.NEWCHAIN]
    flags = [dict(attributes(each[20:])).get(2) for each in fence._table("conflux0", REALM, (), 2)[:3]]
    assert flags == [None, None, struct.pack(">I", fence.TABLE_F_OWNER)]
