"""Bodies of the messages that travel plain: questions, and signs of presence."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from conflux.control.drop import Drop
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import NODE_ID_BYTES, IPAddress, NodeId
from conflux.realm.broker.subjects import bucket_of
from conflux.realm.card import FEATURE_CHARS_MAX, Card
from conflux.realm.listbook import DIGEST_BYTES
from conflux.realm.name import label
from conflux.record import Record, Shape, nested, octets, optional, text, uint


def _load_address(item: Any) -> IPAddress:
    if type(item) is not bytes or len(item) not in (4, 16):
        raise RemoteProtocolError(Drop.MALFORMED, "expected an address of 4 or 16 bytes")
    return ipaddress.ip_address(item)


_ADDRESS = Shape(_load_address, lambda value: value.packed)


@dataclass(frozen=True, slots=True)
class Who(Record):
    """What a question asks for: the node with this address, name or id, or any that has this feature on its card.

    Exactly one of the four is given.
    """

    BYTES_MAX = 512
    SHAPES = (optional(_ADDRESS), optional(label()), optional(octets(NODE_ID_BYTES)), optional(text(FEATURE_CHARS_MAX)))

    address: IPAddress | None = None
    name: str | None = None
    node: NodeId | None = None
    feature: str | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.address, self.name, self.node, self.feature)) != 1:
            raise LocalProtocolError("a question names an address, a name, a node or a feature")

    @classmethod
    def _from_item(cls, item: Any) -> Who:
        try:
            return super(Who, cls)._from_item(item)
        except LocalProtocolError as error:  # of __post_init__, but the fault is the peer's
            raise RemoteProtocolError(Drop.MALFORMED, str(error)) from None

    @property
    def bucket(self) -> int:
        """The bucket that the question goes to: whoever answers it listens there."""
        if self.address is not None:
            return bucket_of(self.address.packed)
        word = self.name or self.feature
        return bucket_of(word.encode() if word is not None else self.node or b"")

    def __str__(self) -> str:
        if self.node is not None:
            return f"node {self.node.hex()}"
        if self.feature is not None:
            return f"any node that is {self.feature!r}"
        return f"address {self.address}" if self.address is not None else f"name {self.name!r}"


@dataclass(frozen=True, slots=True)
class Question(Record):
    """Body of WHO.

    With the asking node's card the owner verifies the question, and seals to it.  A question for many has none: it is
    15 kB less for every node that hears it, and an owner that does not know the asker asks back.
    """

    BYTES_MAX = Card.BYTES_MAX + 1024
    SHAPES = (nested(Who), octets(0, Card.BYTES_MAX))

    who: Who
    card: bytes  # empty: none


PRESENCE_BYTES_MAX = 27  # so much is left of presence.ENVELOPE_BYTES_MAX: every node of an area gets it


@dataclass(frozen=True, slots=True)
class Presence(Record):
    """Body of PRESENCE: no key and no name.

    A node that has the sender's card sees by boot and serial whether it is the newest.  lists: the digest of the signed
    lists that the sender holds.
    """

    BYTES_MAX = PRESENCE_BYTES_MAX
    SHAPES = (uint(), octets(DIGEST_BYTES))

    card_serial: int
    lists: bytes
