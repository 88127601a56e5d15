"""The other nodes that a status tells of, each once: neighbours of every control channel, and where packets go."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

LAN: Final = "lan"  # the name of its control channel


class OtherNode(NamedTuple):
    """One node.  way: "lan", "broker" or "relay"; None: not reached now.  via: the relays, by name."""

    node: str
    name: str
    addresses: tuple[str, ...]
    way: str | None
    via: tuple[str, ...]
    received_bytes: int | None
    sent_bytes: int | None


def nodes_of(status: dict[str, Any]) -> list[OtherNode]:
    """Return the nodes of a status, by name."""
    found: dict[str, OtherNode] = {}
    for channel in status["control"]:
        way = "lan" if channel["name"] == LAN else "broker"
        for each in channel["neighbours"]:
            if each["node"] not in found:  # the nearest channel comes first
                found[each["node"]] = OtherNode(each["node"], each["name"], (), way, (), None, None)
    for each in status["destinations"]:
        node, relays = each["node"], tuple((each["path"] or ())[:-1])
        known = found.get(node, OtherNode(node, each["name"], (), None, (), None, None))
        known = known._replace(addresses=tuple(each["addresses"]))
        found[node] = known._replace(way="relay", via=relays) if relays else known
    for link in status["links"]:
        if link["node"] in found:
            carried = {"received_bytes": link["received_bytes"], "sent_bytes": link["sent_bytes"]}
            found[link["node"]] = found[link["node"]]._replace(**carried)
    return sorted(found.values(), key=lambda each: each.name)
