"""Rule files for tests."""

from __future__ import annotations

from ipaddress import ip_address

from conflux.policy.checks import Found, examine
from conflux.policy.judge import Verdict, judge
from conflux.policy.reading import read_untrusted
from conflux.policy.rules import End, Exit, Node, Policy
from conflux.policy.terms import parse_flow

NOW = 1_800_000_000  # 2027-01-15
HEAD = "version = 1\n"


def faults(text: str, head: str = HEAD) -> list[str]:
    """Return what is wrong in a rule file, each as "line:column: text"; head stands in its first line."""
    return [f"{each.line}:{each.column}: {each.text}" for each in read_untrusted((head + text).encode()).faults]


def policy(text: str) -> Policy:
    """Return a rule file that has nothing wrong."""
    read = read_untrusted((HEAD + text).encode())
    assert read.faults == ()
    assert read.policy is not None
    return read.policy


def rule(sources: str, targets: str, on: str = "any", name: str = "r", more: str = "") -> str:
    """Return one rule as TOML; several words of a side stand between spaces."""
    sides = ("from", sources), ("to", targets), ("on", on)
    lists = "".join(f"{key} = [{', '.join(repr(word) for word in words.split())}]\n" for key, words in sides)
    return f'[[allow]]\nname = "{name}"\n{lists}{more}\n'


def found(text: str, members: list[Node] | None = None, now: float = NOW) -> Found:
    """Return what is to be said of a rule file."""
    return examine(read_untrusted((HEAD + text).encode()), members, now_unix=now)


def node(name: str | None, *tags: str) -> Node:
    """Return a node."""
    return Node(name, frozenset(tags))


def end(text: str) -> End:
    """Return an end: "exit", an address, or the name and tags of a node, as "printer+office"; "+office": no name."""
    if text == "exit":
        return Exit()
    if "." in text or ":" in text:
        return ip_address(text)
    name, *tags = text.split("+")
    return node(name or None, *tags)


def verdict(rules: Policy, source: str, target: str, flow: str, at: float = NOW) -> Verdict:
    """Return what is judged of the first flow that a text such as "tcp/22" means."""
    first = parse_flow(flow)[0].first
    return judge(rules, end(source), end(target), first >> 16, first & 0xFFFF, at_unix=at)


def passes(rules: Policy, source: str, target: str, flow: str, at: float = NOW) -> bool:
    """Say whether a flow may pass."""
    return verdict(rules, source, target, flow, at).is_allowed
