"""A policy as one board needs it: a compact table that says, by two look-ups, which flows may pass.

    class of the source ─┐
                         ├─► permit: spans of flows, sorted, that do not meet
    column of the target ┘

Equal rows are one class, so a realm has few, however many nodes it has.  Column 0 is the board itself; others are parts
of the subnets behind it, and the internet if it offers an exit.  Time is not in the table: it holds until the next
moment that a rule names.  In the table an IPv4 address has ::ffff:0:0/96 before it.
"""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import NamedTuple

from conflux.errors import ConfigError
from conflux.ids import IPAddress
from conflux.policy.cover import Index
from conflux.policy.judge import passing_between
from conflux.policy.rules import End, Exit, Node, Policy
from conflux.policy.terms import GLOBAL, NOT_GLOBAL, IPNetwork, Span, merged

MAGIC = 0x43585031  # "CXP1"
CELL_COUNT_MAX = 2**20  # 4 MiB: 1,000 classes on a board with 1,000 parts of subnets
RANGE_COUNT_MAX = 2**17
SPAN_COUNT_MAX = 2**20

NO_CLASS = 0  # of a source that no rule and no default names: its permits are empty

_MAPPED = 0xFFFF << 32
_HEAD = struct.Struct(">7I")
_PAIR = struct.Struct(">2I")
_RANGE = struct.Struct(">16s16sI")


class Here(NamedTuple):
    """The board that judges.  subnets: those that the realm granted to it."""

    node: Node
    addresses: tuple[IPAddress, ...]
    subnets: tuple[IPNetwork, ...] = ()
    offers_exit: bool = False


class Range(NamedTuple):
    """Addresses from first to last, as numbers of 128 bits, and the class or column that they have."""

    first: int
    last: int
    value: int


class Table(NamedTuple):
    """permits: spans, each once; number 0 is empty.  rows: by class, the number of a permit for each column.

    sources, targets: in order, and no two overlap.  until: Unix seconds when another table is due; None: never.
    """

    permits: tuple[tuple[Span, ...], ...]
    rows: tuple[tuple[int, ...], ...]
    sources: tuple[Range, ...]
    targets: tuple[Range, ...]
    until: int | None

    def encode(self) -> bytes:
        """Return the table as cext/policy/policy.c reads it."""
        spans = [span for permit in self.permits for span in permit]
        columns = len(self.rows[0])
        counts = (columns, len(self.rows), len(self.permits), len(spans), len(self.sources), len(self.targets))
        parts = [_HEAD.pack(MAGIC, *counts)]
        start = 0
        for permit in self.permits:
            parts.append(_PAIR.pack(start, len(permit)))
            start += len(permit)
        parts += [_PAIR.pack(*span) for span in spans]
        parts += [struct.pack(f">{columns}I", *row) for row in self.rows]
        parts += [
            _RANGE.pack(each.first.to_bytes(16), each.last.to_bytes(16), each.value)
            for each in (*self.sources, *self.targets)
        ]
        return b"".join(parts)

    def class_of(self, source: IPAddress) -> int:
        """Return the class of a host behind a gateway."""
        found = _find(self.sources, number_of(source))
        return NO_CLASS if found is None else found

    def allows_packed(self, source: bytes, target: bytes, key: int) -> bool:
        """Say whether a flow may pass between two addresses of 16 bytes each, an IPv4 one behind ::ffff:0:0/96."""
        column = _find(self.targets, int.from_bytes(target))
        if column is None:
            return False
        source_class = _find(self.sources, int.from_bytes(source)) or NO_CLASS
        return any(span.first <= key <= span.last for span in self.permits[self.rows[source_class][column]])

    def allows(self, source_class: int, target: IPAddress, key: int) -> bool:
        """Say whether a flow may pass to an address: the twin of policy_allows()."""
        column = _find(self.targets, number_of(target))
        if column is None:
            return False
        return any(span.first <= key <= span.last for span in self.permits[self.rows[source_class][column]])


def number_of(address: IPAddress) -> int:
    """Return an address as tables have it."""
    return int(address) | (_MAPPED if address.version == 4 else 0)


def table_of(policy: Policy, here: Here, peers: Sequence[Node], *, at_unix: float) -> tuple[Table, tuple[int, ...]]:
    """Return the table of a board at a moment, and the class of each peer.

    Raises ConfigError if it has more than a board shall hold.
    """
    work = _Work(policy, here, at_unix)
    classes = tuple(work.class_of(peer) for peer in peers)
    sources = work.sources()
    table = Table(tuple(work.permits), tuple(work.rows), sources, work.targets, next_change(policy, at_unix))
    if (
        len(table.rows) * len(work.ends) > CELL_COUNT_MAX
        or len(sources) + len(work.targets) > RANGE_COUNT_MAX
        or sum(map(len, table.permits)) > SPAN_COUNT_MAX
    ):
        raise ConfigError("the policy has more subnets and kinds of peers than a board holds: take rules together")
    return table, classes


def next_change(policy: Policy, at_unix: float) -> int | None:
    """Return the next moment, in Unix seconds, from which other rules hold; None: there is none."""
    moments = (moment for rule in policy.rules for moment in (rule.since, rule.until))
    return min((moment for moment in moments if moment is not None and moment > at_unix), default=None)


class _Work:
    """A table in the making."""

    def __init__(self, policy: Policy, here: Here, at_unix: float) -> None:
        self._policy, self._at_unix = policy, at_unix
        self._index = Index(policy)
        self.ends: list[End] = [here.node]  # one for each column
        self.permits: dict[tuple[Span, ...], int] = {(): 0}
        self.targets = self._targets(here)
        self.rows: dict[tuple[int, ...], int] = {(0,) * len(self.ends): NO_CLASS}

    def class_of(self, source: End) -> int:
        """Return the class of a source, which may be a new one."""
        row = tuple(self._permit(source, end) for end in self.ends)
        return self.rows.setdefault(row, len(self.rows))

    def _permit(self, source: End, target: End) -> int:
        rules = self._index.rules_between(source, target)
        passing = passing_between(self._policy, source, target, at_unix=self._at_unix, rules=rules)
        permit = tuple(merged([each.span for each in passing]))
        return self.permits.setdefault(permit, len(self.permits))

    def sources(self) -> tuple[Range, ...]:
        """Return the class of every address that a rule names as a source."""
        parts = _parts(_networks(term.network for rule in self._policy.rules for term in rule.sources))
        ranges = (Range(first, last, self.class_of(_address(first))) for first, last in parts)
        return _joined(each for each in ranges if each.value != NO_CLASS)

    def _targets(self, here: Here) -> tuple[Range, ...]:
        """Return the column of every address that is here: of the board itself first, then behind it, then beyond."""
        named = _networks(term.network for rule in self._policy.rules for term in rule.targets)
        own = [_span(ip_network(address)) for address in here.addresses]
        behind = [_span(network) for network in here.subnets]
        beyond = [_span(network) for network in GLOBAL] if here.offers_exit else []
        never = [_span(network) for network in NOT_GLOBAL]
        columns: dict[tuple[int, ...], int] = {}
        found: list[Range] = []
        for first, last in _parts([*own, *behind, *beyond, *(never if beyond else []), *(_cut(named, behind))]):
            if _within(first, own):
                found.append(Range(first, last, 0))
            elif _within(first, behind):
                column = self._column(columns, self._rules_to(_address(first)), _address(first))
                found.append(Range(first, last, column))
            elif _within(first, beyond) and not _within(first, never):
                found.append(Range(first, last, self._column(columns, (-1,), Exit())))
        return _joined(found)

    def _column(self, columns: dict[tuple[int, ...], int], kind: tuple[int, ...], end: End) -> int:
        if kind not in columns:
            columns[kind] = len(self.ends)
            self.ends.append(end)
        return columns[kind]

    def _rules_to(self, address: IPAddress) -> tuple[int, ...]:
        """Return the numbers of the rules that mean an address as a target."""
        return tuple(sorted(self._index.numbers_to(address)))


def _find(ranges: Sequence[Range], number: int) -> int | None:
    place = bisect_right(ranges, number, key=lambda each: each.first) - 1
    return ranges[place].value if place >= 0 and number <= ranges[place].last else None


def _address(number: int) -> IPAddress:
    return IPv4Address(number & 0xFFFFFFFF) if number >> 32 == 0xFFFF else IPv6Address(number)


def _span(network: IPNetwork) -> tuple[int, int]:
    return number_of(network[0]), number_of(network[-1])


def _networks(networks: Iterable[IPNetwork | None]) -> list[tuple[int, int]]:
    return [_span(each) for each in set(networks) if each is not None]


def _within(number: int, spans: Iterable[tuple[int, int]]) -> bool:
    return any(first <= number <= last for first, last in spans)


def _cut(spans: Iterable[tuple[int, int]], by: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans that overlap one of others."""
    return [(first, last) for first, last in spans if any(first <= high and low <= last for low, high in by)]


def _parts(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return every part that the ends of spans cut out, within a span or between two, in order."""
    cuts = sorted({cut for first, last in spans for cut in (first, last + 1)})
    return [(first, following - 1) for first, following in itertools.pairwise(cuts)]


def _joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Return ranges with neighbours of one value as one."""
    found: list[Range] = []
    for each in ranges:
        if found and found[-1].value == each.value and found[-1].last + 1 == each.first:
            found[-1] = found[-1]._replace(last=each.last)
        else:
            found.append(each)
    return tuple(found)
