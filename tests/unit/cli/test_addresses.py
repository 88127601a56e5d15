"""Lines for /etc/hosts: whose they are, in which order, and what a node cannot take over by its name."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

import pytest

from conflux.cli import addresses, context
from conflux.errors import UserError

OWN = {"name": "gate", "node": "g" * 26, "ipv6": "fd00::1", "ipv4": "100.64.0.1"}


def node(name: str, number: int, *, named: bool = True, ipv4: str | None = "100.64.0.9") -> dict[str, Any]:
    return {"name": name, "node": str(number) * 26, "ipv6": f"fd00::{number}", "ipv4": ipv4, "named": named}


def test_every_node_has_its_lines_by_name():
    got = {"node": OWN, "nodes": [node("attic", 2), node("shed", 3, ipv4=None)]}
    lines, left_out = addresses.host_lines(got, "gate")
    assert lines == [
        "fd00::2\tattic",
        "100.64.0.9\tattic",
        "fd00::1\tgate",
        "100.64.0.1\tgate",
        "fd00::3\tshed",
    ]
    assert left_out == []


def test_a_family_that_this_node_lacks_has_no_lines():
    got = {"node": OWN | {"ipv4": None}, "nodes": [node("attic", 2)]}
    assert addresses.host_lines(got, "gate")[0] == ["fd00::2\tattic", "fd00::1\tgate"]


@pytest.mark.parametrize("name", ["localhost", "ip6-loopback", "pi", "gate"])
def test_a_node_cannot_take_over_a_name_of_the_host(name):
    lines, left_out = addresses.host_lines({"node": OWN, "nodes": [node(name, 2)]}, "pi")
    assert not any("fd00::2" in line for line in lines)
    assert left_out == [name]


def test_of_two_nodes_with_one_name_the_one_that_answers_to_it_has_the_lines():
    got = {"node": OWN, "nodes": [node("attic", 2), node("attic", 3, named=False)]}
    assert [line for line in addresses.host_lines(got, "gate")[0] if "fd00" in line] == [
        "fd00::2\tattic",
        "fd00::1\tgate",
    ]


@pytest.mark.parametrize(
    ("family", "out"), [(None, "fd00::1\n100.64.0.1\n"), ("ipv6", "fd00::1\n"), ("ipv4", "100.64.0.1\n")]
)
def test_ip_prints_the_addresses_alone(monkeypatch, capsys, family, out):
    daemon = Namespace(call=lambda do, **arguments: OWN)
    monkeypatch.setattr(context, "daemon", lambda options: daemon)
    assert addresses.ip(Namespace(name=None, family=family, json=False)) == 0
    assert capsys.readouterr().out == out


def test_ip_fails_where_there_is_no_such_address(monkeypatch, capsys):
    daemon = Namespace(call=lambda do, **arguments: OWN | {"ipv4": None})
    monkeypatch.setattr(context, "daemon", lambda options: daemon)
    with pytest.raises(UserError, match=r"^gate has no IPv4 address$"):
        addresses.ip(Namespace(name=None, family="ipv4", json=False))
    assert addresses.ip(Namespace(name="gate", family=None, json=True)) == 0
    assert json.loads(capsys.readouterr().out)["ipv4"] is None
