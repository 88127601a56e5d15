"""Who is there, as the node's parts know it together."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from conflux.api import nodes
from conflux.api.nodes import Clock, PeerRow, Reach
from conflux.control.channel import Departed, NeighbourStatus
from conflux.datapath.traffic import Traffic
from conflux.ids import NodeId, RealmId, format_node_id
from conflux.node.status import DestinationState
from conflux.node.trail import Trail
from conflux.realm.address import ipv6_address

ME, ATTIC, BARN, ROD = (NodeId(letter * 16) for letter in (b"m", b"a", b"b", b"r"))
NAMES = {ATTIC: "attic", BARN: "barn", ROD: "rod"}
REALM = RealmId(b"R" * 16)
CLOCK = Clock(now=1000.0, now_unix=5000.0)
UNTIL = 9000


def card(node: NodeId, *features: str) -> Any:
    addresses = (ip_address("fd00::1"), ip_address("100.64.0.1"))
    chain = SimpleNamespace(not_after=UNTIL)
    return SimpleNamespace(node_id=node, name=NAMES[node], addresses=addresses, chain=chain, features=features)


def neighbour(node: NodeId, heard_s: float = 3.0) -> NeighbourStatus:
    return NeighbourStatus(
        format_node_id(node), NAMES[node], "10.0.0.1", None, False, True, 60.0, heard_s, ("fd00::1",), UNTIL
    )


def departed(node: NodeId, left_s: float) -> Departed:
    return Departed(format_node_id(node), NAMES[node], left_s, "closed", ("fd00::1",), UNTIL)


def going(node: NodeId, *hops: NodeId, stream: bytes = b"s", state: DestinationState = DestinationState.FLOWING) -> Any:
    return SimpleNamespace(node=node, name=NAMES[node], addresses=(), stream=stream, path=hops or None, state=state)


def heard(at: float, via: NodeId | None) -> dict[NodeId, Trail]:
    return {ATTIC: Trail(heard_at=at, heard_via=via)}


def known(
    *,
    near: tuple[NeighbourStatus, ...] = (),
    left: tuple[Departed, ...] = (),
    broker_up: bool = False,
    owners: Mapping[str, NodeId] | None = None,
    senders: tuple[Any, ...] = (),
    traffic: tuple[Traffic, ...] = (),
    **parts: Any,
) -> dict[str, PeerRow]:
    """Return the rows of a node with those parts, by name."""
    held: dict[str, Any] = {"node": ME, "realm": REALM, "destinations": (), "trails": {}, "cards": ()}
    datapath = SimpleNamespace(traffic=traffic, senders=senders)
    status: Any = SimpleNamespace(**(held | {"datapath": datapath} | parts))
    rows = nodes.nodes(
        status, near, left, broker_up=broker_up, owner_of=lambda name: (owners or {}).get(name), clock=CLOCK
    )
    return {row.name: row for row in rows}


def test_a_neighbour_whose_card_is_not_here_is_known_by_its_handshake():
    row = known(near=(neighbour(ATTIC),))["attic"]
    assert (row.ipv6, row.ipv4, row.reach, row.heard_at, row.expires_at) == ("fd00::1", None, Reach.LAN, 4997.0, UNTIL)
    assert (row.sent_bytes, row.received_bytes, row.state, row.named) == (0, 0, None, True)


def test_a_card_knows_both_addresses_and_a_node_without_ipv6_has_none():
    assert known(cards=(card(ATTIC),))["attic"][2:4] == ("fd00::1", "100.64.0.1")
    assert known(cards=(card(ATTIC, "no-ipv6"),))["attic"][2:4] == (None, "100.64.0.1")
    assert known(destinations=(going(ATTIC),))["attic"].ipv6 == str(ipv6_address(REALM, ATTIC))


@pytest.mark.parametrize(
    ("parts", "reach", "by"),
    [
        ({"near": (neighbour(ATTIC),)}, Reach.LAN, ()),
        ({"destinations": (going(ATTIC, ROD, ATTIC),), "near": (neighbour(ATTIC),)}, Reach.RELAY, ("rod",)),
        ({"destinations": (going(ATTIC, ATTIC),)}, Reach.DIRECT, ()),
        ({"trails": heard(990.0, ROD), "near": (neighbour(ROD),)}, Reach.RELAY, ("rod",)),
        ({"trails": heard(990.0, ROD)}, None, ()),
        ({"trails": heard(990.0, None), "broker_up": True}, Reach.BROKER, ()),
        ({"trails": heard(990.0, None)}, None, ()),
        ({"trails": heard(990.0, ATTIC), "broker_up": True}, Reach.LAN, ()),
        ({}, None, ()),
    ],
)
def test_a_node_is_reached_by_what_carries_its_stream_else_by_what_its_messages_came_by(parts, reach, by):
    row = known(cards=(card(ATTIC), card(ROD)), **parts)["attic"]
    assert (row.reach, row.by) == (reach, by)


def test_the_newest_of_message_frame_and_connection_is_what_was_heard_last():
    moved = Traffic(ATTIC, 10, 20, 998.0)
    row = known(cards=(card(ATTIC),), trails=heard(900.0, ATTIC), traffic=(moved,))["attic"]
    assert (row.heard_at, row.sent_bytes, row.received_bytes) == (4998.0, 10, 20)
    assert known(cards=(card(ATTIC),), trails=heard(900.0, ATTIC))["attic"].heard_at == 4900.0
    assert known(cards=(card(ATTIC),))["attic"].heard_at is None


def test_who_left_the_lan_is_told_with_the_moment_unless_it_was_heard_since():
    row = known(left=(departed(ATTIC, 20.0),))["attic"]
    assert (row.left_at, row.heard_at, row.reach) == (4980.0, 4980.0, None)
    later = known(left=(departed(ATTIC, 20.0),), trails=heard(995.0, None), broker_up=True)["attic"]
    assert (later.left_at, later.heard_at, later.reach) == (None, 4995.0, Reach.BROKER)
    assert known(left=(departed(ATTIC, 20.0),), near=(neighbour(ATTIC),))["attic"].left_at is None


def test_a_stream_that_nothing_is_heard_of_does_not_flow():
    silent = SimpleNamespace(stream=b"s".hex(), suspect=True)
    assert known(destinations=(going(ATTIC, ATTIC),), senders=(silent,))["attic"].state == "no answer"
    assert known(destinations=(going(ATTIC, ATTIC),))["attic"].state == "flowing"


def test_rows_are_in_the_order_of_names_without_this_node_and_say_who_answers_to_its_name():
    here = SimpleNamespace(node=ME, name="me", addresses=(), stream=None, path=None, state=DestinationState.WAITING)
    rows = known(cards=(card(BARN), card(ATTIC)), destinations=(here,), owners={"barn": ATTIC})
    assert list(rows) == ["attic", "barn"]
    assert (rows["attic"].named, rows["barn"].named) == (True, False)
