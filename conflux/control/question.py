"""Bodies of the messages that travel plain: who owns this, and I am here."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import NODE_ID_BYTES, IPAddress, NodeId
from conflux.realm.card import Card
from conflux.realm.name import label
from conflux.wire import Record, Shape, nested, octets, optional, uint


def _load_address(item: Any) -> IPAddress:
    if type(item) is not bytes or len(item) not in (4, 16):
        raise RemoteProtocolError("malformed", "expected an address of 4 or 16 bytes")
    return ipaddress.ip_address(item)


_ADDRESS = Shape(_load_address, lambda value: value.packed)


@dataclass(frozen=True, slots=True)
class Who(Record):
    """What is asked for; exactly one of the three is given."""

    BYTES_MAX = 512
    SHAPES = (optional(_ADDRESS), optional(label()), optional(octets(NODE_ID_BYTES)))

    address: IPAddress | None = None
    name: str | None = None
    node: NodeId | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.address, self.name, self.node)) != 1:
            raise LocalProtocolError("a question names an address, a name or a node")

    @classmethod
    def _from_item(cls, item: Any) -> Who:
        try:
            return super(Who, cls)._from_item(item)
        except LocalProtocolError as error:  # from __post_init__, about what a peer sent
            raise RemoteProtocolError("malformed", str(error)) from None

    def __str__(self) -> str:
        if self.node is not None:
            return f"node {self.node.hex()}"
        return f"address {self.address}" if self.address is not None else f"name {self.name!r}"


@dataclass(frozen=True, slots=True)
class Question(Record):
    """Body of WHO.  The asker's card comes along, so that the owner can verify the question and seal to the asker."""

    BYTES_MAX = Card.BYTES_MAX + 1024
    SHAPES = (nested(Who), octets(1, Card.BYTES_MAX))

    who: Who
    card: bytes


@dataclass(frozen=True, slots=True)
class Presence(Record):
    """Body of PRESENCE: no keys, no names; who has the card sees by boot and serial whether it is still the newest."""

    BYTES_MAX = 32
    SHAPES = (uint(),)

    card_serial: int
