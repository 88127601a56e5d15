"""Reads a rule file, and says everything that is wrong in it, each with its line and column.

The file is TOML; docs/reference/policy.md has every key.  Its bytes may come from a peer, so they are counted before
they are parsed: the reader takes 0.7 s for a megabyte on a fast machine, and several on a board.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple, TypeVar

import tomli

from conflux.errors import ConfigError, printable
from conflux.ids import NAME
from conflux.policy.places import Path, Places
from conflux.policy.rules import Aim, Check, Policy, Rule
from conflux.policy.terms import Kind, Span, Term, merged, parse_address, parse_flow, parse_subnet, parse_term

T = TypeVar("T")

VERSION = 1
FILE_BYTES_MAX = 256 * 1024  # 1,000 rules are about 100 kB
RULE_COUNT_MAX = 2048
TERM_COUNT_MAX = 256  # of one list, and of one side of a rule with its groups opened
GROUP_COUNT_MAX = 256
CHECK_COUNT_MAX = 1024
AIM_COUNT_MAX = 64  # of one list of a check
KNOWN_COUNT_MAX = 4096  # of tags, nodes and subnets that the file says there are
RULE_NAME_CHARS_MAX = 64
FAULT_COUNT_MAX = 100  # a person mends no more at a time
_SHOWN_CHARS_MAX = 60

_DEFAULTS = ("allow", "deny")
_NODES = (Kind.TAG, Kind.NODE)
_SOURCES = (*_NODES, Kind.GROUP, Kind.SUBNET, Kind.MEMBERS, Kind.EVERY)
_TARGETS = (*_SOURCES, Kind.EXIT)
_WORD_OF = {
    Kind.TAG: "a tag",
    Kind.NODE: "a node",
    Kind.GROUP: "a group",
    Kind.SUBNET: "a subnet",
    Kind.MEMBERS: '"members"',
    Kind.EVERY: '"*"',
    Kind.EXIT: '"exit"',
}


class Fault(NamedTuple):
    """One thing that is wrong.  line, column: from 1; None: of the file as a whole."""

    line: int | None
    column: int | None
    text: str


class Read(NamedTuple):
    """A rule file that was read.  policy: None if something is wrong in it.  faults: in the order of the file."""

    policy: Policy | None
    faults: tuple[Fault, ...]
    places: Places


class _Enough(Exception):
    """There are as many faults as are told."""


def read_untrusted(data: bytes) -> Read:
    """Return what a rule file says, or what is wrong in it."""
    if len(data) > FILE_BYTES_MAX:
        return _unread(None, None, f"it has {len(data)} bytes, and a rule file at most {FILE_BYTES_MAX}")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        return _unread(data.count(b"\n", 0, error.start) + 1, None, "it is no UTF-8 text")
    try:
        table = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        return _unread(error.lineno, error.colno, f"{error.msg[:1].lower()}{error.msg[1:]}")
    except (ValueError, RecursionError) as error:
        return _unread(None, None, str(error))
    reader = _Reader(text)
    try:
        policy = reader.policy(table)
    except _Enough:
        policy = None
    faults = tuple(sorted(reader.faults, key=lambda fault: (fault.line or 0, fault.column or 0)))
    return Read(None if faults else policy, faults, reader.places)


def _unread(line: int | None, column: int | None, text: str) -> Read:
    return Read(None, (Fault(line, column, printable(text)),), Places(""))


class _Reader:
    """Takes the table of a rule file apart, and notes what is wrong instead of ending there."""

    def __init__(self, text: str) -> None:
        self.places = Places(text)
        self.faults: list[Fault] = []
        self._groups: dict[str, tuple[Term, ...]] = {}

    def _fault(self, path: Path, text: str) -> None:
        """Note what is wrong at a path, which may be longer than those that have a place."""
        line, column = self.places.at(path) or (None, None)
        self.faults.append(Fault(line, column, printable(f"{_named(path)}{text}")))
        if len(self.faults) >= FAULT_COUNT_MAX:
            raise _Enough

    # ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def policy(self, table: Mapping[str, Any]) -> Policy:
        keys = ("version", "default", "closed", "tags", "nodes", "subnets", "groups", "allow", "test")
        self._known_keys((), table, keys)
        if table.get("version") != VERSION or type(table.get("version")) is not int:
            said = f"must be {VERSION}, not {_shown(table['version'])}" if "version" in table else "is missing: write 1"
            self._fault(("version",), said)
        default = table.get("default", _DEFAULTS[0])
        if default not in _DEFAULTS:
            self._fault(("default",), f'must be "allow" or "deny", not {_shown(default)}')
        self._read_groups(table.get("groups", {}))
        closed = self._terms(("closed",), table.get("closed", []), (*_NODES, Kind.GROUP), least=0)
        rules = [self._rule(("allow", number), each) for number, each in self._tables("allow", table, RULE_COUNT_MAX)]
        self._names_once(rules)
        checks = [self._check(("test", number), each) for number, each in self._tables("test", table, CHECK_COUNT_MAX)]
        return Policy(
            default == _DEFAULTS[0],
            frozenset(closed),
            tuple(rules),
            tuple(checks),
            self._known_names("tags", table),
            self._known_names("nodes", table),
            self._known_subnets(table),
        )

    def _known_keys(self, path: Path, table: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        for key in table:
            if key not in keys:
                close = get_close_matches(key, keys, n=1)
                there = f"did you mean {close[0]!r}?" if close else f"there is {', '.join(keys)}"
                self._fault((*path, key), f"no such key: {there}")

    def _tables(self, key: str, table: Mapping[str, Any], most: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the tables of a list, each with its place in it."""
        entries = table.get(key, [])
        if not isinstance(entries, list):
            self._fault((key,), f"must be a list of tables: write [[{key}]]")
            return
        if len(entries) > most:
            self._fault((key,), f"has {len(entries)} entries, and at most {most} are read")
            return
        for number, entry in enumerate(entries):
            if isinstance(entry, dict):
                yield number, entry
            else:
                self._fault((key, number), f"must be a table, not {_shown(entry)}")

    def _names_once(self, rules: list[Rule]) -> None:
        first: dict[str, int] = {}
        for rule in rules:
            if rule.name and first.setdefault(rule.name, rule.number) != rule.number:
                self._fault(("allow", rule.number, "name"), f"rule {first[rule.name] + 1} has that name already")

    def _known_names(self, key: str, table: Mapping[str, Any]) -> frozenset[str] | None:
        if key not in table:
            return None
        entries = self._texts((key,), table[key], KNOWN_COUNT_MAX, least=0)
        for place, text in entries:
            if NAME.fullmatch(text) is None:
                self._fault((key, place), f"{_shown(text)} is no name")
        return frozenset(text for _, text in entries)

    def _known_subnets(self, table: Mapping[str, Any]) -> tuple[Any, ...] | None:
        if "subnets" not in table:
            return None
        terms = [
            Term(Kind.SUBNET, network=network)
            for place, text in self._texts(("subnets",), table["subnets"], KNOWN_COUNT_MAX, least=0)
            if (network := self._parsed(("subnets", place), parse_subnet, text)) is not None
        ]
        self._no_overlap(("subnets",), terms)
        return tuple(term.network for term in terms)

    # ── groups ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _read_groups(self, groups: object) -> None:
        if not isinstance(groups, dict):
            return self._fault(("groups",), f"must be a table of lists, not {_shown(groups)}")
        if len(groups) > GROUP_COUNT_MAX:
            return self._fault(("groups",), f"has {len(groups)} groups, and at most {GROUP_COUNT_MAX} are read")
        raw: dict[str, tuple[Term, ...]] = {}
        for name, entries in groups.items():
            if NAME.fullmatch(name) is None:
                self._fault(("groups", name), "is no name of a group: use a-z, 0-9 and '-'")
            raw[name] = self._listed(("groups", name), entries, _TARGETS)
        for name, terms in raw.items():
            for term in terms:
                if term.kind is Kind.GROUP and term.name not in raw:
                    self._fault(("groups", name), _no_group(term, raw))
        self._groups = {name: self._opened(name, raw) for name in raw}

    def _opened(self, name: str, raw: Mapping[str, tuple[Term, ...]]) -> tuple[Term, ...]:
        """Return a group's terms with those of the groups in it; none if the groups go in a circle."""
        found: dict[Term, None] = {}
        seen = {name}
        waiting = [name]
        while waiting:
            for term in raw.get(waiting.pop(), ()):
                if term.kind is not Kind.GROUP:
                    found[term] = None
                elif term.name == name:
                    self._fault(("groups", name), f"{term} has itself in it, perhaps by other groups")
                    return ()
                elif term.name not in seen:
                    seen.add(term.name)
                    waiting.append(term.name)
        return tuple(found)

    # ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _texts(self, path: Path, entries: object, most: int, *, least: int = 1) -> list[tuple[int, str]]:
        """Return the texts of a list, each with its place in it."""
        if not isinstance(entries, list):
            self._fault(path, f"must be a list of texts, not {_shown(entries)}")
            return []
        if len(entries) < least:
            self._fault(path, "is empty, so it means nothing: name something, or take it out")
        if len(entries) > most:
            self._fault(path, f"has {len(entries)} entries, and at most {most} are read")
            return []
        found: dict[str, int] = {}
        for place, entry in enumerate(entries):
            if not isinstance(entry, str):
                self._fault((*path, place), f"must be a text, not {_shown(entry)}")
            elif entry in found:
                self._fault((*path, place), f"{_shown(entry)} stands there twice")
            else:
                found[entry] = place
        return [(place, text) for text, place in found.items()]

    def _parsed(self, path: Path, parse: Callable[[str], T], text: str) -> T | None:
        try:
            return parse(text)
        except ConfigError as error:
            self._fault(path, str(error))
            return None

    def _listed(self, path: Path, entries: object, kinds: tuple[Kind, ...], *, least: int = 1) -> tuple[Term, ...]:
        """Return the terms of a list, groups unopened."""
        found: dict[Term, None] = {}
        for place, text in self._texts(path, entries, TERM_COUNT_MAX, least=least):
            term = self._parsed((*path, place), parse_term, text)
            if term is None:
                continue
            if term.kind not in kinds:
                self._fault((*path, place), _no_kind(term, kinds))
            elif term in found:
                self._fault((*path, place), f"{_shown(text)} stands there twice")
            else:
                found[term] = None
        return tuple(found)

    def _terms(self, path: Path, entries: object, kinds: tuple[Kind, ...], *, least: int = 1) -> tuple[Term, ...]:
        """Return the terms of a list, groups opened."""
        found: dict[Term, None] = {}
        for term in self._listed(path, entries, kinds, least=least):
            if term.kind is not Kind.GROUP:
                found[term] = None
            elif term.name not in self._groups:
                self._fault(path, _no_group(term, self._groups))
            else:
                for inner in self._groups[term.name]:
                    if inner.kind not in kinds:
                        self._fault(path, f"in {term}: {_no_kind(inner, kinds)}")
                    found[inner] = None
        if len(found) > TERM_COUNT_MAX:
            self._fault(path, f"means {len(found)} things with its groups, and at most {TERM_COUNT_MAX} are read")
        self._no_overlap(path, list(found))
        return tuple(found)

    def _no_overlap(self, path: Path, terms: list[Term]) -> None:
        """Note subnets of which one is in another: one of the two is a mistake, or does nothing."""
        subnets = sorted(
            (term.network for term in terms if term.network is not None),
            key=lambda each: (each.version, int(each.network_address), each.prefixlen),
        )
        outer = None
        for each in subnets:
            if outer is not None and each.version == outer.version and each.subnet_of(outer):  # type: ignore[arg-type]
                self._fault(path, f"{each} overlaps {outer}: keep one of them")
            else:
                outer = each

    # ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _rule(self, path: Path, table: Mapping[str, Any]) -> Rule:
        keys = ("name", "from", "to", "on", "since", "until", "via")
        self._known_keys(path, table, keys)
        for key in keys[:4]:
            if key not in table:
                self._fault((*path, key), "is missing")
        name = self._rule_name((*path, "name"), table.get("name", "-"))
        sources = self._terms((*path, "from"), table["from"], _SOURCES) if "from" in table else ()
        targets = self._terms((*path, "to"), table["to"], _TARGETS) if "to" in table else ()
        via = self._listed((*path, "via"), table["via"], _NODES) if "via" in table else ()
        if via and not any(term.kind in (Kind.SUBNET, Kind.EXIT) for term in targets):
            self._fault((*path, "via"), "says by which board a subnet or the exit is reached, and the rule has neither")
        since, until = (self._moment((*path, key), table.get(key)) for key in ("since", "until"))
        if since is not None and until is not None and since >= until:
            self._fault((*path, "until"), "is not after since, so the rule never holds")
        number = path[1]
        assert isinstance(number, int)
        return Rule(number, name, sources, targets, self._spans((*path, "on"), table.get("on")), since, until, via)

    def _rule_name(self, path: Path, name: object) -> str:
        if isinstance(name, str) and name.isprintable() and 1 <= len(name.strip()) == len(name) <= RULE_NAME_CHARS_MAX:
            return name
        self._fault(path, f"must be a text of 1 to {RULE_NAME_CHARS_MAX} characters in one line, not {_shown(name)}")
        return ""

    def _spans(self, path: Path, entries: object) -> tuple[Span, ...]:
        if entries is None:
            return ()
        found: list[Span] = []
        for place, text in self._texts(path, entries, TERM_COUNT_MAX):
            found += self._parsed((*path, place), parse_flow, text) or ()
        return tuple(merged(found))

    def _moment(self, path: Path, value: object) -> int | None:
        if value is None:
            return None
        if isinstance(value, datetime) and value.tzinfo is not None and not value.microsecond and value.year >= 1970:
            return int(value.timestamp())
        self._fault(path, f"must be a moment as 2027-01-04T06:00:00Z, not {_shown(value)}")
        return None

    # ── checks ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _check(self, path: Path, table: Mapping[str, Any]) -> Check:
        self._known_keys(path, table, ("from", "at", "reaches", "not"))
        if "reaches" not in table and "not" not in table:
            self._fault(path, "asks nothing: write reaches = [...], or not = [...]")
        number = path[1]
        assert isinstance(number, int)
        return Check(
            number,
            self._source((*path, "from"), table.get("from")),
            self._moment((*path, "at"), table.get("at")),
            self._aims((*path, "reaches"), table.get("reaches")),
            self._aims((*path, "not"), table.get("not")),
        )

    def _source(self, path: Path, said: object) -> tuple[Term, ...] | IPv4Address | IPv6Address:
        """Return who a check speaks of: a host behind a gateway, or a node with a name, tags, or both."""
        if isinstance(said, str) and _looks_like_address(said):
            return self._parsed(path, parse_address, said) or ()
        if said is None:
            self._fault(path, "is missing")
            return ()
        terms = self._listed(path, [said] if isinstance(said, str) else said, _NODES)
        if len([term for term in terms if term.kind is Kind.NODE]) > 1:
            self._fault(path, "has two names, and no node has: write a test for each")
        return terms

    def _aims(self, path: Path, entries: object) -> tuple[Aim, ...]:
        if entries is None:
            return ()
        found: list[Aim] = []
        for place, text in self._texts(path, entries, AIM_COUNT_MAX):
            aim = self._parsed((*path, place), partial(_aim, place=place), text)
            found += () if aim is None else (aim,)
        return tuple(found)


def _aim(text: str, place: int) -> Aim:
    """Return what a line such as "printer tcp/631" asks about.  Raises ConfigError."""
    words = text.split(" ")
    if len(words) != 2:
        raise ConfigError(f'{_shown(text)}: write who and what, as "printer tcp/631"')
    spans = tuple(merged(list(parse_flow(words[1]))))
    if _looks_like_address(words[0]):
        return Aim(text, place, parse_address(words[0]), spans)
    term = parse_term(words[0])
    if term.kind not in (*_NODES, Kind.EXIT):
        raise ConfigError(f'{_shown(words[0])}: a test asks about one node, one tag, one address or "exit"')
    return Aim(text, place, term, spans)


def _looks_like_address(text: str) -> bool:
    return "/" not in text and ("." in text or text.count(":") > 1)


def _no_kind(term: Term, kinds: tuple[Kind, ...]) -> str:
    return f'"{term}" cannot stand here: use {", ".join(_WORD_OF[kind] for kind in kinds)}'


def _no_group(term: Term, groups: Mapping[str, object]) -> str:
    close = get_close_matches(term.name, groups, n=1)
    return f'no group "{term.name}"' + (
        f': did you mean "{close[0]}"?' if close else ": [groups] has none of that name"
    )


def _named(path: Path) -> str:
    """Return a path in words: "rule 3: from: "."""
    words: list[str] = []
    for part in path:
        if isinstance(part, int):
            if len(words) == 1 and path[0] in ("allow", "test"):
                words = [f"{'rule' if path[0] == 'allow' else 'test'} {part + 1}"]
        else:
            words.append(part if len(part) <= _SHOWN_CHARS_MAX else f"{part[:_SHOWN_CHARS_MAX]}...")
    return "".join(f"{word}: " for word in words)


def _shown(value: object) -> str:
    try:
        text = f'"{value}"' if isinstance(value, str) else str(value)
    except ValueError:  # a number of more digits than Python writes
        return "a number of thousands of digits"
    text = text.lower() if isinstance(value, bool) else text
    return text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}..."
