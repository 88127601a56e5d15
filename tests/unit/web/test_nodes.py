"""Which nodes a status tells of, and by which way each is reached."""

from __future__ import annotations

from kit.answers import status

from conflux.web.nodes import nodes_of


def test_neighbours_and_destinations_are_one_list_each_node_once():
    assert [(node.name, node.way, node.via) for node in nodes_of(status())] == [
        ("barn", "relay", ("cellar",)),
        ("boat", None, ()),
        ("cellar", "lan", ()),
    ]


def test_a_node_has_the_bytes_of_its_link_and_the_addresses_that_are_known():
    barn, _, cellar = nodes_of(status())
    assert (cellar.received_bytes, cellar.sent_bytes) == (310_000_000, 95_000_000)
    assert (barn.addresses, barn.sent_bytes) == (("fd29:2798:c958:fdc5::2", "100.79.3.2"), None)


def test_a_neighbour_on_a_lan_and_at_a_broker_is_on_the_lan():
    lan = status()["control"][0]
    broker = lan | {"name": "nats", "neighbours": [*lan["neighbours"], {"node": "z" * 26, "name": "cabin"}]}
    ways = {node.name: node.way for node in nodes_of(status(control=[lan, broker]))}
    assert (ways["cellar"], ways["cabin"]) == ("lan", "broker")
