"""`conflux policy check`: what is wrong in a rule file, found without a realm, a daemon or rights."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from conflux.cli import context, entry, show
from conflux.cli.grammar import EXIT_USAGE
from conflux.cli.observe import print_json
from conflux.errors import ConfigError
from conflux.ids import NAME
from conflux.policy import checks, reading
from conflux.policy.rules import Node

MEMBERS_BYTES_MAX = 16 * 2**20  # a member takes about 500 bytes
Members = list[Node] | None
NOT_COMPARED = "names and tags were held against nothing: see --members"


class PolicyFault(NamedTuple):
    """Something that is to be said of a rule file.  line, column: from 1; None: of the file as a whole."""

    line: int | None
    column: int | None
    text: str


class PolicyChecked(NamedTuple):
    """The answer to `conflux policy check`.

    valid: nothing is wrong and every test holds.  rules, checks: how many rules and lines of tests there are.
    faults, failed: what is wrong; the tests that fail.  warnings: rules that do nothing.
    unmissed: names of the rules that no test would miss.  compared: names and tags were held against something.
    """

    file: str
    valid: bool
    rules: int
    checks: int
    faults: tuple[PolicyFault, ...]
    failed: tuple[PolicyFault, ...]
    warnings: tuple[PolicyFault, ...]
    unmissed: tuple[str, ...]
    compared: bool


def check(options: argparse.Namespace) -> int:
    """Print everything that is wrong in a rule file; exit code 1 if something is or a test fails."""
    try:
        data = context.read_file(options.file, reading.FILE_BYTES_MAX)
        members = members_of(options.members)
    except ConfigError as error:
        entry.complain(str(error))
        return EXIT_USAGE
    done = checked(str(options.file), data, members)
    if options.json:
        print_json(done)
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines(done)))
    return 0 if done.valid else 1


def members_of(files: Sequence[Path]) -> Members:
    """Return the members in files that issuers printed; None without a file.  Raises ConfigError."""
    return [node for file in files for node in _members(file)] if files else None


def checked(name: str, data: bytes, members: Members) -> PolicyChecked:
    """Return what is to be said of a rule file."""
    read = reading.read_untrusted(data)
    found = checks.examine(read, members, now_unix=time.time())
    return PolicyChecked(
        name,
        not (found.faults or found.failed),
        len(read.policy.rules) if read.policy else 0,
        found.aims,
        _rows(found.faults),
        _rows(found.failed),
        _rows(found.warnings),
        found.unmissed,
        found.compared,
    )


def _rows(faults: tuple[reading.Fault, ...]) -> tuple[PolicyFault, ...]:
    return tuple(PolicyFault(*fault) for fault in faults)


def lines(checked: PolicyChecked) -> Iterator[str]:
    """Yield what is said to a person: everything wrong, then what is odd, then how it ends."""
    for word, said in (("", checked.faults), ("test fails: ", checked.failed), ("warning: ", checked.warnings)):
        yield from (f"{_place(checked.file, each)}: {word}{each.text}" for each in said)
    if checked.valid:
        if checked.unmissed:
            names = ", ".join(f'"{name}"' for name in checked.unmissed)
            yield f"{checked.file}: note: no test would miss {names}"
        if not checked.compared:
            yield f"{checked.file}: note: {NOT_COMPARED}"
        count = f"{show.plural(checked.rules, 'rule')}, {show.plural(checked.checks, 'line')} of tests"
        yield f"{checked.file}: valid: {count}"


def _place(file: str, fault: PolicyFault) -> str:
    parts = [file, *(str(each) for each in (fault.line, fault.column) if each is not None)]
    return ":".join(parts)


def _members(file: Path) -> Iterator[Node]:
    """Yield the members that an issuer printed as JSON.  Raises ConfigError."""
    data = context.read_file(file, MEMBERS_BYTES_MAX)
    try:
        for row in json.loads(data)["members"]:
            node = _member(row)
            if row["state"] in ("member", "expired"):
                yield node
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(f"{file}: not what `conflux realm members --json` prints") from None


def _member(row: Any) -> Node:
    """Return one row's node.  Raises ValueError, KeyError or TypeError for a row that is none."""
    words = [row["name"], *row["tags"]]
    if not all(isinstance(word, str) and NAME.fullmatch(word) for word in words):
        raise ValueError("no names")
    return Node(row["name"], frozenset(row["tags"]))
