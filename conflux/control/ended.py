"""Whose credential has ended: such a node is no member, and a person who asks for it is told why."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from conflux.control.who import Who
from conflux.ids import IPAddress, NodeId

COUNT_MAX = 256  # about 500 B each; the one that ended first goes first


class Ended(NamedTuple):
    """A node that was a member.  not_after: when its credential ended, in Unix seconds."""

    node: NodeId
    name: str
    addresses: tuple[IPAddress, ...]
    not_after: int


class EndedCards:
    """The nodes whose credential ended and was seen to, until a newer card comes.

    A credential that has ended may be shown by anyone who recorded it, so this is told to people and decides nothing.
    """

    def __init__(self) -> None:
        self._ended: OrderedDict[NodeId, Ended] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ended)

    def add(self, ended: Ended) -> None:
        """Remember a node."""
        self._ended.pop(ended.node, None)
        self._ended[ended.node] = ended
        if len(self._ended) > COUNT_MAX:
            self._ended.popitem(last=False)

    def forget(self, node: NodeId) -> None:
        """Forget a node: it has a card again."""
        self._ended.pop(node, None)

    def find(self, who: Who) -> Ended | None:
        """Return the node that a question asks for; of several of one name, the one that ended last."""
        found = (
            each
            for each in reversed(self._ended.values())
            if who.node == each.node or who.name == each.name or who.address in each.addresses
        )
        return next(found, None)
