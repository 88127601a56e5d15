"""What a person calls a node, and what a person may call one."""

from __future__ import annotations

from ipaddress import ip_address

from conflux.control.plane import ControlPlane
from conflux.control.who import Who
from conflux.errors import ConfigError
from conflux.ids import NodeId, fold_name, format_node_id, parse_node_id
from conflux.realm.name import parse_node_name


def node_name(node: NodeId, plane: ControlPlane) -> str:
    """Return the name on a node's card, or its id while its card is not here."""
    card = plane.card(node)
    return format_node_id(node) if card is None else card.name


def who_of(target: str) -> Who:
    """Return what a person's word for a node asks for: an address, a node id or a name; case does not matter.

    Raises ConfigError for a word that no node can be called by.
    """
    target = fold_name(target)
    try:
        return Who(address=ip_address(target))
    except ValueError:
        pass
    try:
        return Who(node=parse_node_id(target))
    except ConfigError:
        return Who(name=parse_node_name(target))


def who_text(who: Who) -> str:
    """Return the word for a node that was asked for."""
    if who.address is not None:
        return str(who.address)
    return format_node_id(who.node) if who.node is not None else who.name or str(who)
