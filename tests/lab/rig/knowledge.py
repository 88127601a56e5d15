"""Searches a relay's whole memory, and everything it reports of itself, for what it knows of the routes through it.

A relay may know the hop before and the hop after.  In a row of two, rod must not learn of bravo, ruth must not learn of
alpha, and neither may learn a stream's name.  That bravo exists is known from the control channel, before any stream.
So the relay is searched twice, after both ends have spoken there and while a stream flows, and the difference counts.
"""

from __future__ import annotations

import pickle
import re
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path

from rig.enter import TREE
from rig.topology import Daemon, Host, Watch, wait_for

from conflux.api.rows import NodeRow
from conflux.ids import parse_node_id

DUMP_WITHIN_S = 60
PATH_DEPTH_MAX = 12  # steps shown from a fact to its holder
STRUCTURE_COUNT_MAX = 64  # entries; a larger table lists all nodes and pairs none


def dumpable(host_state: Path) -> tuple[str, ...]:
    """Return the wrapper under which a daemon can be made to dump itself; see dumpable.py."""
    return (str(TREE / ".venv/bin/python"), str(TREE / "tests/lab/rig/dumpable.py"), str(host_state / "dump"))


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact that a relay may or may not know, in all its forms."""

    what: str
    pattern: re.Pattern[bytes]
    numbers: frozenset[int] = frozenset()

    def count_in(self, data: bytes) -> int:
        """Return how often the fact is in some data."""
        return len(self.pattern.findall(data))


def stream_fact(what: str, stream: str | None) -> Fact:
    """Return the fact of a stream's name.  stream: in hex, as in `conflux streams --json`; there has to be one."""
    assert stream is not None
    return Fact(what, _any(bytes.fromhex(stream), stream.encode()), frozenset({int(stream, 16)}))


def node_facts(node: NodeRow) -> list[Fact]:
    """Return the facts about a node.  node: its own, as in `conflux status --json`."""
    name, raw = node.name, parse_node_id(node.id)
    addresses = [ip_address(text) for text in node.addresses]
    forms = [form for address in addresses for form in (address.packed, str(address).encode())]
    return [
        Fact(f"{name}'s node id", _any(raw, raw.hex().encode(), node.id.encode()), frozenset({int.from_bytes(raw)})),
        Fact(f"{name}'s addresses", _any(*forms), frozenset(int(address) for address in addresses)),
        Fact(f"{name}'s name", re.compile(rb"(?<![\w-])%b(?![\w-])" % re.escape(name.encode()))),
    ]


def _any(*forms: bytes) -> re.Pattern[bytes]:
    return re.compile(b"|".join(re.escape(form) for form in forms))


class Dump:
    """A dump that dumpable.py wrote."""

    def __init__(self, path: Path) -> None:
        self.types: list[str]
        self.objects: list[tuple[int, object, tuple[int, ...]]]
        self.types, self.objects = pickle.loads(path.read_bytes())  # we wrote it

    def holding(self, fact: Fact) -> list[int]:
        """Return the objects whose data has the fact."""
        found = []
        for index, (_, value, _) in enumerate(self.objects):
            if isinstance(value, int):
                hit = value in fact.numbers
            else:
                data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
                hit = isinstance(data, bytes) and fact.pattern.search(data) is not None
            if hit:
                found.append(index)
        return found

    def structures(self, one: list[Fact], other: list[Fact]) -> list[int]:
        """Return the objects that hold facts of both ends, directly or one step on: records, tuples, small tables."""
        sides = [{index for fact in facts for index in self.holding(fact)} for facts in (one, other)]
        near = [sides[0] | self._around(sides[0]), sides[1] | self._around(sides[1])]
        both = (near[0] | self._around(near[0])) & (near[1] | self._around(near[1]))
        return sorted(index for index in both if self.objects[index][1] is None)

    def _around(self, inside: set[int]) -> set[int]:
        """Return the small objects that refer to one of these."""
        return {
            parent
            for index in inside
            for parent in self._referrers.get(index, ())
            if len(self.objects[parent][2]) <= STRUCTURE_COUNT_MAX and not self._is_program(parent)
        }

    def _is_program(self, index: int) -> bool:
        return self.types[self.objects[index][0]] in ("builtins.module", "builtins.type", "builtins.function")

    @cached_property
    def _referrers(self) -> dict[int, list[int]]:
        referrers: dict[int, list[int]] = {}
        for parent, (_, _, refers) in enumerate(self.objects):
            for index in refers:
                referrers.setdefault(index, []).append(parent)
        return referrers

    def way_to(self, index: int) -> str:
        """Return the shortest chain of types from an object of conflux to this one, for a person."""
        ways, seen = [[index]], {index}
        while ways:
            way = ways.pop(0)
            name = self.types[self.objects[way[0]][0]]
            if (name.startswith("conflux.") and len(way) > 1) or len(way) > PATH_DEPTH_MAX:
                return " > ".join(self.types[self.objects[each][0]].removeprefix("builtins.") for each in way)
            for parent in self._referrers.get(way[0], ()):
                if parent not in seen:
                    seen.add(parent)
                    ways.append([parent, *way])
        return self.types[self.objects[index][0]]


@dataclass(slots=True)
class Sight:
    """One look at a relay."""

    dump: Dump
    said: bytes  # everything it reported: commands, events, log


class Relay:
    """A relay that is searched.  Its daemon was started under dumpable()."""

    def __init__(self, host: Host, daemon: Daemon, watch: Watch) -> None:
        self.host = host
        self.daemon = daemon
        self._watch = watch
        self._events = ""
        self._count = 0

    def look(self) -> Sight:
        """Dump its memory, then run every command that reports something."""
        self._count += 1
        path = self.host.state / f"dump.{self._count}"
        self.daemon.signal(signal.SIGUSR2)
        wait_for(path.exists, f"{self.host.name} being dumped", within_s=DUMP_WITHIN_S, logs=(self.daemon,))
        self._events += "".join(map(repr, self._watch.new()))
        names = ("status", "paths", "links", "streams")
        commands = [*((name, "--json") for name in names), *((name,) for name in names)]
        said = [self.host.conflux(*command).stdout for command in commands]
        return Sight(Dump(path), "\n".join([*said, self._events, self.daemon.output()]).encode())

    def remembers(self, facts: list[Fact]) -> Iterator[str]:
        """Return the facts that are anywhere in the memory of the process, even in freed parts."""
        maps = Path(f"/proc/{self.daemon.pid}/maps").read_text().splitlines()
        with Path(f"/proc/{self.daemon.pid}/mem").open("rb", buffering=0) as memory:
            for line in maps:
                span, rights, *_ = line.split()
                if not rights.startswith("rw"):
                    continue
                start, end = (int(each, 16) for each in span.split("-"))
                memory.seek(start)
                data = memory.read(end - start)
                yield from (f"{self.host.name}'s memory: {fact.what}" for fact in facts if fact.pattern.search(data))


def gained(
    relay: str, before: Sight, after: Sight, near: list[Fact], far: list[Fact], streams: list[Fact]
) -> list[str]:
    """Return what a relay knows after and did not know before: one line per fact, with its place."""
    findings = []
    for fact in [*far, *streams]:
        old, new = before.dump.holding(fact), after.dump.holding(fact)
        if len(new) > len(old):
            ways = Counter(after.dump.way_to(index) for index in new)
            ways.subtract(Counter(before.dump.way_to(index) for index in old))
            where = "; ".join(f"{count} x {way}" for way, count in ways.items() if count > 0)
            findings.append(f"{relay} holds {fact.what} {len(new)} times, {len(old)} before: {where}")
        if (told := fact.count_in(after.said)) > (was := fact.count_in(before.said)):
            findings.append(f"{relay} tells {fact.what} {told} times, {was} before")
    old, new = before.dump.structures(near, far), after.dump.structures(near, far)
    if len(new) > len(old):
        ways = Counter(after.dump.way_to(index) for index in new)
        ways.subtract(Counter(before.dump.way_to(index) for index in old))
        where = "; ".join(f"{count} x {way}" for way, count in ways.items() if count > 0)
        findings.append(f"{relay} pairs both ends in {len(new)} structures, {len(old)} before: {where}")
    return findings
