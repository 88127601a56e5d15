"""A rule file as it is used: rules that allow, and checks of its own.  Rules have no order, and none forbids."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from conflux.ids import IPAddress
from conflux.policy.terms import IPNetwork, Kind, Span, Term


class Rule(NamedTuple):
    """Flows that may pass.  number: its place in the file, from 0.  since, until: Unix seconds; None: no bound.

    via: the boards by which subnets and exits are reached, the first first; empty: any.
    """

    number: int
    name: str
    sources: tuple[Term, ...]
    targets: tuple[Term, ...]
    spans: tuple[Span, ...]
    since: int | None
    until: int | None
    via: tuple[Term, ...]

    def holds(self, at_unix: float) -> bool:
        """Say whether the rule counts at a moment: from since on, and before until."""
        return (self.since is None or at_unix >= self.since) and (self.until is None or at_unix < self.until)


class Node(NamedTuple):
    """A node as an end of a flow.  name: None if it is any node with these tags."""

    name: str | None
    tags: frozenset[str] = frozenset()


class Exit(NamedTuple):
    """A host of the internet, behind a board that offers an exit."""


End: TypeAlias = Node | IPAddress | Exit
"""An end of a flow: a node, a host in a subnet behind a gateway, or the internet."""


class Aim(NamedTuple):
    """What a check asks about.  text: as the file has it; place: of it in the list, from 0."""

    text: str
    place: int
    target: Term | IPAddress
    spans: tuple[Span, ...]


class Check(NamedTuple):
    """A [[test]] of a rule file.  at: Unix seconds; None: now.  number: its place in the file, from 0.

    source: a host behind a gateway, or what a node has: one name at most, and tags.
    """

    number: int
    source: tuple[Term, ...] | IPAddress
    at: int | None
    reaches: tuple[Aim, ...]
    refused: tuple[Aim, ...]


class Policy(NamedTuple):
    """A rule file.  is_open: members reach one another without a rule.  closed: tags and nodes that are no members.

    tags, nodes, subnets: what the file says there is; None: it does not say.
    """

    is_open: bool
    closed: frozenset[Term]
    rules: tuple[Rule, ...]
    checks: tuple[Check, ...]
    tags: frozenset[str] | None
    nodes: frozenset[str] | None
    subnets: tuple[IPNetwork, ...] | None

    def is_member(self, node: Node) -> bool:
        """Say whether the default covers a node: neither it nor a tag of it is closed."""
        return not any(
            term.name == node.name if term.kind is Kind.NODE else term.name in node.tags for term in self.closed
        )


OPEN = Policy(True, frozenset(), (), (), None, None, None)
"""What counts in a realm without a policy: members reach one another, and no subnet and no exit."""
