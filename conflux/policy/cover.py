"""Which rules speak of an end or a term, by look-up; and rules that do nothing because others allow the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_network

from conflux.policy.judge import means
from conflux.policy.rules import End, Exit, Node, Policy, Rule
from conflux.policy.terms import IPNetwork, Kind, Term, covered, merged

PAIR_COUNT_MAX = 200_000  # chosen: of a source and a target, about 2 s on a fast machine; 1,000 rules have some 4,000

_EVERY, _MEMBERS, _EXIT = Term(Kind.EVERY), Term(Kind.MEMBERS), Term(Kind.EXIT)


class Index:
    """The rules of a policy, by the terms on their sides."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.by_source: dict[Term, set[int]] = {}
        self.by_target: dict[Term, set[int]] = {}
        for rule in policy.rules:
            for index, terms in ((self.by_source, rule.sources), (self.by_target, rule.targets)):
                for term in terms:
                    index.setdefault(term, set()).add(rule.number)

    def rules_between(self, source: End, target: End) -> list[Rule]:
        """Return the rules that mean both ends, in the order of the file, whatever their time and flows."""
        numbers = self._meaning(self.by_source, source) & self.numbers_to(target)
        return [self._policy.rules[number] for number in sorted(numbers)]

    def numbers_to(self, target: End) -> set[int]:
        """Return the numbers of the rules that mean an end as their target."""
        return self._meaning(self.by_target, target)

    def _meaning(self, index: Mapping[Term, set[int]], end: End) -> set[int]:
        return set().union(*(index.get(term, ()) for term in self._terms_of(end)))

    def _terms_of(self, end: End) -> Iterator[Term]:
        """Yield every term that means an end."""
        if isinstance(end, Exit):
            yield _EXIT
        elif isinstance(end, Node):
            yield _EVERY
            yield from (Term(Kind.TAG, tag) for tag in end.tags)
            if end.name is not None:
                yield Term(Kind.NODE, end.name)
            if self._policy.is_member(end):
                yield _MEMBERS
        else:
            yield from (Term(Kind.SUBNET, network=network) for network in wider(ip_network(end)))


def wider(network: IPNetwork) -> Iterator[IPNetwork]:
    """Yield a network and every one that it is in, but the whole of a family."""
    return (network.supernet(new_prefix=length) for length in range(network.prefixlen, 0, -1))


def shadowed_rules(policy: Policy, members: tuple[Node, ...] | None) -> dict[int, str] | None:
    """Return the rules that do nothing, by number, each with what allows the same; None: too many to compare.

    The later of two equal ones is out.  members: of the realm; None: they are not known.
    """
    if sum(len(rule.sources) * len(rule.targets) for rule in policy.rules) > PAIR_COUNT_MAX:
        return None
    return _Cover(policy, members).shadowed()


class _Cover:
    """Finds rules whose every flow the default or other rules allow.

    It speaks of terms: what holds for a tag has to hold for every node that may ever get it.  So it finds less than
    there may be, and never a rule that would be missed; the default alone is held against the members there are.
    """

    def __init__(self, policy: Policy, members: tuple[Node, ...] | None) -> None:
        self._policy, self._members = policy, members
        self._left = {rule.number: rule for rule in policy.rules}
        self._index = Index(policy)

    def shadowed(self) -> dict[int, str]:
        """Return the rules to be left out, by number, and what allows the same; the later of two equal ones is out."""
        found: dict[int, str] = {}
        for rule in reversed(self._policy.rules):
            by = self._covering(rule)
            if by is not None:
                found[rule.number] = _allowed_by(by, self._policy)
                del self._left[rule.number]
        return found

    def _covering(self, rule: Rule) -> set[int | None] | None:
        """Return the numbers of what allows all that rule does, None for the default; or None if something is left."""
        found: set[int | None] = set()
        for source in rule.sources:
            from_there = self._rules(self._index.by_source, source) - {rule.number}
            for target in rule.targets:
                if self._is_default(source, target):
                    found.add(None)
                    continue
                numbers = from_there & self._rules(self._index.by_target, target)
                others = [self._left[number] for number in numbers if _lasts(self._left[number], rule)]
                by = merged([span for other in others for span in other.spans])
                if not all(covered(span, by) for span in rule.spans):
                    return None
                found.update(other.number for other in others)
        return found

    def _rules(self, index: Mapping[Term, set[int]], term: Term) -> set[int]:
        """Return the rules of which a side means all that term means."""
        found = set(index.get(term, ()))
        if term.network is not None:
            for network in wider(term.network):
                found |= index.get(Term(Kind.SUBNET, network=network), set())
        elif term.kind is not Kind.EXIT:
            found |= index.get(_EVERY, set())
            if not self._policy.closed:
                found |= index.get(_MEMBERS, set())
        return found & self._left.keys()

    def _is_default(self, source: Term, target: Term) -> bool:
        """Say whether the default lets every node of one term reach every node of the other."""
        return self._policy.is_open and self._are_members(source) and self._are_members(target)

    def _are_members(self, term: Term) -> bool:
        if term.kind in (Kind.SUBNET, Kind.EXIT):
            return False
        if not self._policy.closed or term.kind is Kind.MEMBERS:
            return True
        if self._members is None:
            return False
        meant = [node for node in self._members if means(self._policy, term, node)]
        return bool(meant) and all(map(self._policy.is_member, meant))


def _lasts(other: Rule, rule: Rule) -> bool:
    """Say whether a rule holds whenever another one does, by the same boards or by more."""
    begins = other.since is None or (rule.since is not None and other.since <= rule.since)
    ends = other.until is None or (rule.until is not None and rule.until <= other.until)
    return begins and ends and (not other.via or other.via == rule.via)


def _allowed_by(numbers: set[int | None], policy: Policy) -> str:
    names = [f'"{policy.rules[number].name}"' for number in sorted(each for each in numbers if each is not None)]
    said = ["the default"] if None in numbers else []
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        said.append(f"rule{'s' if len(names) > 1 else ''} {shown}")
    verb = "allow" if len(names) + len(said) > 2 or len(names) > 1 else "allows"
    return f"{' and '.join(said)} {verb} the same"
