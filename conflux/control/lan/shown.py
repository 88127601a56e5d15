"""Neighbours of the LANs as a person may want to see them."""

from __future__ import annotations

from collections.abc import Iterable

from conflux.control.channel import Departed, NeighbourStatus
from conflux.control.lan.bridge import Bridge
from conflux.control.lan.connection import Connection
from conflux.control.lan.neighbours import Gone, Neighbour
from conflux.ids import format_node_id


def neighbour_status(neighbour: Neighbour[Connection], bridge: Bridge, now: float) -> NeighbourStatus:
    """Return what there is to see of a neighbour."""
    peer = neighbour.peer
    return NeighbourStatus(
        node=format_node_id(peer.node),
        name=peer.name,
        address=neighbour.connection.remote,
        lan=bridge.lan(peer.node),
        bridging=bridge.says_it_joins(peer.node),
        dialled=neighbour.dialled,
        age_s=round(now - neighbour.since, 1),
        heard_s=round(neighbour.connection.heard_s, 1),
        addresses=tuple(map(str, peer.addresses)),
        expires_at=peer.not_after,
    )


def departed_status(gone: Iterable[Gone], now: float) -> tuple[Departed, ...]:
    """Return what there is to see of peers whose connections ended."""
    return tuple(
        Departed(
            node=format_node_id(each.peer.node),
            name=each.peer.name,
            left_s=round(now - each.at, 1),
            why=each.why,
            addresses=tuple(map(str, each.peer.addresses)),
            expires_at=each.peer.not_after,
        )
        for each in gone
    )
