"""Says whether a flow may pass, and by which rule: the reference that the compiled judge is held against.

A flow may pass if the default or any rule allows it.  So the order of rules means nothing, and to add one never takes
anything away.  Who the source is was proved before: a node by its stream, a host behind a gateway by that gateway.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from conflux.policy.rules import End, Exit, Node, Policy, Rule
from conflux.policy.terms import ANY, Kind, Span, Term, key_of


class Verdict(NamedTuple):
    """Whether a flow may pass.  rule: what allows it; None: the default does, or nothing."""

    is_allowed: bool
    rule: Rule | None


class Passing(NamedTuple):
    """Flows that may pass between two ends.  rule: what allows them; None: the default."""

    span: Span
    rule: Rule | None


def judge(policy: Policy, source: End, target: End, protocol: int, port: int, *, at_unix: float) -> Verdict:
    """Say whether a flow may pass.

    protocol: the last header's, behind every extension header.  port: of the destination, the type of ICMP, or 0.
    """
    key = key_of(protocol, port)
    for passing in passing_between(policy, source, target, at_unix=at_unix):
        if passing.span.first <= key <= passing.span.last:
            return Verdict(True, passing.rule)
    return Verdict(False, None)


def passing_between(
    policy: Policy, source: End, target: End, *, at_unix: float, rules: Sequence[Rule] | None = None
) -> Iterator[Passing]:
    """Yield all that may pass between two ends: by the default first, then by each rule, in the order of the file.

    rules: those that may mean both ends; None: all.
    """
    if by_default(policy, source, target):
        yield Passing(ANY, None)
    for rule in policy.rules if rules is None else rules:
        if (
            rule.holds(at_unix)
            and any(means(policy, term, source) for term in rule.sources)
            and any(means(policy, term, target) for term in rule.targets)
        ):
            yield from (Passing(span, rule) for span in rule.spans)


def by_default(policy: Policy, source: End, target: End) -> bool:
    """Say whether two ends are nodes that reach each other without a rule."""
    return (
        policy.is_open
        and isinstance(source, Node)
        and isinstance(target, Node)
        and policy.is_member(source)
        and policy.is_member(target)
    )


def means(policy: Policy, term: Term, end: End) -> bool:
    """Say whether a term of a rule means that end."""
    if isinstance(end, Exit):
        return term.kind is Kind.EXIT
    if not isinstance(end, Node):
        return term.network is not None and term.network.version == end.version and end in term.network
    match term.kind:
        case Kind.TAG:
            return term.name in end.tags
        case Kind.NODE:
            return term.name == end.name
        case Kind.MEMBERS:
            return policy.is_member(end)
        case kind:
            return kind is Kind.EVERY
