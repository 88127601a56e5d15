"""By which key a node is reached, and what was sent there that perhaps nobody took.  Sans-IO."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from conflux.control.nats.config import EXCLUDED_COUNT_MAX, PATH_COUNT_MAX, SENT_COUNT_MAX, SENT_S_MAX
from conflux.ids import NodeId


@dataclass(slots=True)
class Errand:
    """One envelope for a node, on its way to one inbox or several.

    own: this node's plane sent it, and is told if nobody is there.  open_count: inboxes of which no server has said so.
    """

    node: NodeId
    own: bool
    open_count: int = 0


class Parcel(NamedTuple):
    """One copy of an encoded envelope.

    key: the Ed25519 key of the inbox that it goes to.  again: to the receiver's other connection.
    """

    key: bytes
    data: bytes
    errand: Errand
    again: bool = False


class Paths:
    """By which key each node was reached last, and which keys are those of nodes that are members no more.

    Above PATH_COUNT_MAX the one not used for longest is forgotten; likewise above EXCLUDED_COUNT_MAX.
    """

    def __init__(self) -> None:
        self._paths: OrderedDict[NodeId, bytes] = OrderedDict()
        self._own: dict[NodeId, bytes] = {}  # of those, the ones whose path is their own key, and not a bridge's
        self._excluded: OrderedDict[bytes, None] = OrderedDict()

    def learn(self, node: NodeId, key: bytes, *, own: bool = False) -> None:
        """Take note that a verified member is reached by a key.  own: it is the node's, and not that of a bridge."""
        self._excluded.pop(key, None)
        self._own.pop(node, None)
        if own:
            self._own[node] = key
        self._paths[node] = key
        self._paths.move_to_end(node)
        if len(self._paths) > PATH_COUNT_MAX:
            oldest, _ = self._paths.popitem(last=False)
            self._own.pop(oldest, None)

    def find(self, node: NodeId) -> bytes | None:
        """Return the key by which a node is reached, if one is known."""
        if node in self._paths:
            self._paths.move_to_end(node)
        return self._paths.get(node)

    def forget(self, node: NodeId, key: bytes | None = None) -> None:
        """Forget how a node is reached.  key: only if it is by that one."""
        if key is None or self._paths.get(node) == key:
            self._paths.pop(node, None)
            self._own.pop(node, None)

    def exclude(self, node: NodeId) -> None:
        """Forget how a node is reached, and keep its key in mind: it is a member no more."""
        key = self._own.get(node)
        self.forget(node)
        if key is not None:
            self._excluded[key] = None
            if len(self._excluded) > EXCLUDED_COUNT_MAX:
                self._excluded.popitem(last=False)

    def excludes(self, key: bytes | None) -> bool:
        """Say whether a key is that of a node that is a member no more."""
        return key in self._excluded


class _Sent(NamedTuple):
    at: float
    parcel: Parcel
    again: bool  # it may be sent once more


class Sent:
    """Messages of which a server may still say that nobody listens for them."""

    def __init__(self) -> None:
        self._sent: OrderedDict[int, _Sent] = OrderedDict()
        self._number = 0

    def add(self, parcel: Parcel, *, again: bool, now: float) -> None:
        """Take note of a message to a node.  again: if nobody listens, try once more."""
        while self._sent:
            number, oldest = next(iter(self._sent.items()))
            if oldest.at > now - SENT_S_MAX and len(self._sent) < SENT_COUNT_MAX:
                break
            del self._sent[number]
        self._number += 1
        self._sent[self._number] = _Sent(now, parcel if again else parcel._replace(data=b""), again)

    def nobody(self, key: bytes, *, again: bool = False, now: float) -> tuple[list[Parcel], list[Parcel]]:
        """Take note that nobody listens for a key, or at its other connection.

        Returns the messages to send once more, and those that are lost; both empty: none was sent there lately.
        """
        found = {
            number: sent for number, sent in self._sent.items() if (sent.parcel.key, sent.parcel.again) == (key, again)
        }
        for number in found:
            del self._sent[number]
        fresh = [sent for sent in found.values() if sent.at > now - SENT_S_MAX]
        return [sent.parcel for sent in fresh if sent.again], [sent.parcel for sent in fresh if not sent.again]
