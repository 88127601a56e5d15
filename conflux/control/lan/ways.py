"""How a node of a large LAN finds one that is no neighbour: where it is, or the way its messages came.  Sans-IO.

Where a node is, a handshake proves.  Before there was one, the message that spread says where it began, and any node
that passed it on may have lied.  Who lies speaks after it has heard: so what was said first stands for some seconds,
and is tried first; what was said otherwise is tried when the first brought no answer.  A neighbour that tells of many
nodes pushes out only what it told itself.  What is kept is who sent something readable, and which neighbour brought it;
nothing of who wrote to whom.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from conflux.ids import NodeId

COUNT_MAX: Final = 1280  # nodes that proved where they are; the oldest is forgotten
WORD_COUNT_MAX: Final = 1024  # nodes of which messages say where they are; the oldest is forgotten
WORD_EACH_MAX: Final = 128  # of them by the word of one neighbour; its own oldest is forgotten
WAY_S: Final = 600.0
FIRST_S: Final = 5.0  # so long stands what was said first; chosen: an answer and two repeats of it


class Word(NamedTuple):
    """What a message says.  began: the instance of who said it first; None: not said.  via: the neighbour."""

    began: bytes | None
    via: NodeId
    at: float


class Ways:
    """What is known of the ways to nodes."""

    def __init__(self) -> None:
        self._proved: OrderedDict[NodeId, bytes] = OrderedDict()
        self._words: OrderedDict[NodeId, list[Word]] = OrderedDict()  # one or two of each: the first is tried first
        self._told_by: dict[NodeId, OrderedDict[NodeId, None]] = {}  # neighbour → nodes whose first word it brought

    def proved(self, node: NodeId, instance: bytes) -> bytes | None:
        """Take note of the instance that a node proved to have; return the other one that it had before."""
        before = self._proved.pop(node, None)
        self._proved[node] = instance
        if len(self._proved) > COUNT_MAX:
            self._proved.popitem(last=False)
        return None if before == instance else before

    def heard_untrusted(self, node: NodeId, began: bytes | None, via: NodeId, now: float) -> None:
        """Take note that a message which says that it is the node's began at an instance, and came by a neighbour."""
        words = self._words.get(node, [])
        word = Word(began, via, now)
        if words and now < words[0].at + FIRST_S:
            if (began, via) != words[0][:2]:
                self._words[node] = [words[0], word]
            return
        self._forget(node)
        self._words[node] = [word, *words[:1]]
        told = self._told_by.setdefault(via, OrderedDict())
        told[node] = None
        if len(told) > WORD_EACH_MAX:
            self._forget(next(iter(told)))
        elif len(self._words) > WORD_COUNT_MAX:
            self._forget(next(iter(self._words)))

    def gone(self, instance: bytes) -> None:
        """Forget where a node was that is not there any more."""
        for node in [node for node, each in self._proved.items() if each == instance]:
            del self._proved[node]
        for node in [node for node, words in self._words.items() if any(each.began == instance for each in words)]:
            self._forget(node)

    def is_proved(self, node: NodeId) -> bool:
        """Say whether it is certain where a node is."""
        return node in self._proved

    def instance(self, node: NodeId, now: float, *, again: bool = False) -> bytes | None:
        """Return where a node is, or where one is that knows the way; None: unknown.  again: the first was tried."""
        word = self._word(node, now, again)
        return self._proved.get(node) or (None if word is None else word.began)

    def by(self, node: NodeId, now: float, *, again: bool = False) -> NodeId | None:
        """Return the neighbour that brought a node's message; None: unknown.  again: the first was tried."""
        word = self._word(node, now, again)
        return None if word is None else word.via

    def _word(self, node: NodeId, now: float, again: bool) -> Word | None:
        words = [each for each in self._words.get(node, ()) if now < each.at + WAY_S]
        return None if not words else words[-1 if again else 0]

    def _forget(self, node: NodeId) -> None:
        words = self._words.pop(node, [])
        if words and (told := self._told_by.get(words[0].via)) is not None:
            told.pop(node, None)
            if not told:
                del self._told_by[words[0].via]
