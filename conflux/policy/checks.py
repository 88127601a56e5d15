"""What a rule file means, held against itself and against the realm: its own tests, and rules that do nothing.

Faults: a test that fails; a tag, node or subnet that there is not.  Warnings: a rule that does nothing because others
allow the same (shadowed), or that can never hold or reach anything (unreachable).  Beside these: rules that no test
would miss.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import NamedTuple

from conflux.ids import IPAddress
from conflux.policy.cover import Index, shadowed_rules, wider
from conflux.policy.judge import Passing, means, passing_between
from conflux.policy.places import Path, Places
from conflux.policy.reading import Fault, Read
from conflux.policy.rules import Aim, Check, End, Exit, Node, Policy, Rule
from conflux.policy.terms import Kind, Span, Term, covered, merged

FOUND_COUNT_MAX = 100  # of each kind; a person mends no more at a time


class Found(NamedTuple):
    """What was found.  aims: how many lines of tests were judged.  unmissed: names of rules that no test would miss.

    compared: whether tags and names were held against the realm, or against what the file says there is.
    """

    faults: tuple[Fault, ...] = ()
    failed: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()
    unmissed: tuple[str, ...] = ()
    aims: int = 0
    compared: bool = False


def examine(read: Read, members: Iterable[Node] | None, *, now_unix: float) -> Found:
    """Return what is to be said of a rule file.  members: of the realm, with their tags; None: they are not known.

    now_unix: when tests without a moment of their own are judged.
    """
    if read.policy is None:
        return Found(read.faults)
    policy = read.policy
    there = None if members is None else tuple(members)
    unknown = _Unknown(policy, read.places, there)
    tests = _Tests(policy, read.places, there, now_unix)
    warnings = [_fault(read.places, path, said) for path, said in _idle(policy, unknown, there, now_unix)]
    return Found(
        tuple(unknown.faults()[:FOUND_COUNT_MAX]),
        tuple(tests.failed[:FOUND_COUNT_MAX]),
        tuple(warnings[:FOUND_COUNT_MAX]),
        tuple(rule.name for rule in policy.rules if rule.number not in tests.missed),
        tests.aims,
        unknown.is_comparing,
    )


def _fault(places: Places, path: Path, text: str) -> Fault:
    line, column = places.at(path) or (None, None)
    return Fault(line, column, text)


# ── tests ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Tests:
    """Runs the tests of a file.  missed: numbers of the rules without which a test would fail."""

    def __init__(self, policy: Policy, places: Places, members: tuple[Node, ...] | None, now_unix: float) -> None:
        self._policy = policy
        self._index = Index(policy)
        self._tags_of = {node.name: node.tags for node in members or ()}
        self.failed: list[Fault] = []
        self.missed: set[int] = set()
        self.aims = 0
        for check in policy.checks:
            source = self._source(check)
            at_unix = now_unix if check.at is None else check.at
            for key, aims in (("reaches", check.reaches), ("not", check.refused)):
                for aim in aims:
                    said = self._wrong(source, aim, at_unix, is_wanted=key == "reaches")
                    self.aims += 1
                    if said is not None:
                        path = ("test", check.number, key, aim.place)
                        text = f"test {check.number + 1}: {_who(check)} {said}"
                        self.failed.append(_fault(places, path, text))

    def _node(self, terms: Iterable[Term]) -> Node:
        """Return a node with a name and tags; a member of that name has the tags that the realm gave it."""
        name = next((term.name for term in terms if term.kind is Kind.NODE), None)
        tags = frozenset(term.name for term in terms if term.kind is Kind.TAG)
        return Node(name, tags | self._tags_of.get(name, frozenset()))

    def _source(self, check: Check) -> End:
        return self._node(check.source) if isinstance(check.source, tuple) else check.source

    def _target(self, target: Term | IPAddress) -> End:
        if not isinstance(target, Term):
            return target
        return Exit() if target.kind is Kind.EXIT else self._node((target,))

    def _wrong(self, source: End, aim: Aim, at_unix: float, *, is_wanted: bool) -> str | None:
        """Return how a line of a test fails; None if it holds."""
        target = self._target(aim.target)
        rules = self._index.rules_between(source, target)
        passing = [
            each
            for each in passing_between(self._policy, source, target, at_unix=at_unix, rules=rules)
            if any(each.span.first <= span.last and span.first <= each.span.last for span in aim.spans)
        ]
        if not is_wanted:
            return f"reaches {aim.text}, {_by(passing[0].rule)}" if passing else None
        if not _all_pass(aim.spans, passing):
            return f"does not reach {'all of ' if passing else ''}{aim.text}"
        needed = {each.rule.number for each in passing if each.rule is not None}
        self.missed |= {number for number in needed if not _all_pass(aim.spans, passing, without=number)}
        return None


def _all_pass(spans: tuple[Span, ...], passing: list[Passing], without: int | None = None) -> bool:
    by = merged([each.span for each in passing if each.rule is None or each.rule.number != without])
    return all(covered(span, by) for span in spans)


def _by(rule: Rule | None) -> str:
    return "by the default" if rule is None else f'by rule "{rule.name}"'


def _who(check: Check) -> str:
    if not isinstance(check.source, tuple):
        return str(check.source)
    return " with ".join(", ".join(map(str, part)) for part in _name_first(check.source) if part)


def _name_first(terms: tuple[Term, ...]) -> tuple[list[Term], list[Term]]:
    return [term for term in terms if term.kind is Kind.NODE], [term for term in terms if term.kind is Kind.TAG]


# ── what there is ────────────────────────────────────────────────────────────────────────────────────────────────────


class _Unknown:
    """Finds tags, nodes and subnets that neither the realm has nor the file names as being there."""

    def __init__(self, policy: Policy, places: Places, members: tuple[Node, ...] | None) -> None:
        self._policy, self._places = policy, places
        self._tags, self._nodes = policy.tags, policy.nodes
        if members is not None:
            self._tags = (policy.tags or frozenset()).union(*(node.tags for node in members))
            self._nodes = (policy.nodes or frozenset()) | {node.name for node in members if node.name is not None}

    @property
    def is_comparing(self) -> bool:
        """Whether both tags and names are compared with something."""
        return self._tags is not None and self._nodes is not None

    def faults(self) -> list[Fault]:
        """Return what is not there, each once for each place."""
        said = [(path, text) for path, term in self._used() if (text := self.missing(term)) is not None]
        return [_fault(self._places, path, text) for path, text in dict.fromkeys(said)]

    def _used(self) -> Iterator[tuple[Path, Term]]:
        """Yield every term that the file uses, with the list that it stands in, or a group of that list."""
        yield from ((("closed",), term) for term in sorted(self._policy.closed))
        for rule in self._policy.rules:
            for key, terms in (("from", rule.sources), ("to", rule.targets), ("via", rule.via)):
                yield from ((("allow", rule.number, key), term) for term in terms)
        for check in self._policy.checks:
            if isinstance(check.source, tuple):
                yield from ((("test", check.number, "from"), term) for term in check.source)
            for key, aims in (("reaches", check.reaches), ("not", check.refused)):
                for aim in aims:
                    if isinstance(aim.target, Term):
                        yield ("test", check.number, key, aim.place), aim.target

    def missing(self, term: Term) -> str | None:
        """Return that something is not there, and what may be meant; None if it is, or nothing is known."""
        if term.kind is Kind.TAG and self._tags is not None and term.name not in self._tags:
            return f'no tag "{term.name}"{_meant(term.name, self._tags, "tags")}'
        if term.kind is Kind.NODE and self._nodes is not None and term.name not in self._nodes:
            return f'no node "{term.name}"{_meant(term.name, self._nodes, "nodes")}'
        network, subnets = term.network, self._policy.subnets
        if network is not None and subnets is not None and not any(each in subnets for each in wider(network)):
            return f"{network} is in no subnet of the list subnets"
        return None


def _meant(name: str, known: Iterable[str], key: str) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f': did you mean "{close[0]}"?' if close else f": if it comes later, name it in {key} = [...]"


# ── rules that do nothing ────────────────────────────────────────────────────────────────────────────────────────────


def _idle(
    policy: Policy, unknown: _Unknown, members: tuple[Node, ...] | None, now_unix: float
) -> Iterator[tuple[Path, str]]:
    """Yield the rules that do nothing, each with the reason; a side with something unknown is a fault already."""
    shadowed = shadowed_rules(policy, members)
    if shadowed is None:
        yield ("allow",), "the rules have too many sides for all to be compared: some may be shadowed"
        shadowed = {}
    for rule in policy.rules:
        at: Path = ("allow", rule.number)
        if rule.until is not None and now_unix >= rule.until:
            yield (*at, "until"), f'rule "{rule.name}" is unreachable: its time is over'
        elif rule.number in shadowed:
            yield at, f'rule "{rule.name}" is shadowed: {shadowed[rule.number]}'
        elif members is not None:
            for key, terms in (("from", rule.sources), ("to", rule.targets)):
                if not any(_may_mean(policy, term, members) or unknown.missing(term) for term in terms):
                    said = f"no member is meant by {', '.join(map(str, terms))}"
                    yield (*at, key), f'rule "{rule.name}" is unreachable: {said}'


def _may_mean(policy: Policy, term: Term, members: tuple[Node, ...]) -> bool:
    """Say whether a term means something now.  A subnet or exit may come without a member's change."""
    return term.kind in (Kind.SUBNET, Kind.EXIT) or any(means(policy, term, node) for node in members)
