"""The two tables of a board: what members may begin here, and what this board may begin at members.

Members are the nodes that it has spoken with or is about to.  One that is not among them may begin nothing here, so a
node is made known before its first packet is judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from conflux.errors import ConfigError
from conflux.ids import IPAddress
from conflux.policy.cover import Index
from conflux.policy.guard import PolicyTables
from conflux.policy.judge import passing_between
from conflux.policy.rules import Node, Policy
from conflux.policy.table import NO_CLASS, SPAN_COUNT_MAX, Range, Table, next_change, number_of
from conflux.policy.terms import Span, merged


class Member(NamedTuple):
    """A node, and its overlay addresses."""

    node: Node
    addresses: tuple[IPAddress, ...]


class Sides:
    """Makes the tables of one board under one policy at one moment; what nodes may do is worked out once for each."""

    def __init__(self, policy: Policy, me: Member, *, at_unix: float) -> None:
        self.until = next_change(policy, at_unix)
        self._policy, self._me, self._at_unix = policy, me, at_unix
        self._index = Index(policy)
        self._permits: dict[tuple[Span, ...], int] = {(): 0}
        self._of: dict[Node, tuple[int, int]] = {}  # the permits of each node: here, and of this board there

    def tables(self, members: Sequence[Member]) -> PolicyTables:
        """Return both tables.  Raises ConfigError if they have more than a board shall hold."""
        here, there = {0: NO_CLASS}, {0: 0}  # by permit: its class, its column
        sources: list[Range] = []
        targets: list[Range] = []
        for member in members:
            incoming, outgoing = self._permits_of(member.node)
            source_class = here.setdefault(incoming, len(here))
            column = there.setdefault(outgoing, len(there))
            for address in member.addresses:
                number = number_of(address)
                sources.append(Range(number, number, source_class))
                targets.append(Range(number, number, column))
        own = [Range(number_of(each), number_of(each), 0) for each in self._me.addresses]
        mine = [each._replace(value=1) for each in own]
        permits = tuple(self._permits)
        if sum(map(len, permits)) > SPAN_COUNT_MAX:
            raise ConfigError("the policy has more kinds of flows than a board holds: take rules together")
        return PolicyTables(
            Table(permits, tuple((permit,) for permit in here), _sorted(sources), _sorted(own), self.until),
            Table(permits, ((0,) * len(there), tuple(there)), _sorted(mine), _sorted(targets), self.until),
        )

    def _permits_of(self, node: Node) -> tuple[int, int]:
        found = self._of.get(node)
        if found is None:
            found = self._of[node] = (self._permit(node, self._me.node), self._permit(self._me.node, node))
        return found

    def _permit(self, source: Node, target: Node) -> int:
        rules = self._index.rules_between(source, target)
        passing = passing_between(self._policy, source, target, at_unix=self._at_unix, rules=rules)
        permit = tuple(merged([each.span for each in passing]))
        return self._permits.setdefault(permit, len(self._permits))


def _sorted(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Return ranges in order; an address that two members claim is in none: whose it is is for others to say."""
    found: dict[int, list[Range]] = {}
    for each in ranges:
        found.setdefault(each.first, []).append(each)
    return tuple(sorted(same[0] for same in found.values() if len(same) == 1))
