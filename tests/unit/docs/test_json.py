"""docs/reference/json.md and what commands print with --json: the same keys, of the same kinds, in one scheme."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from kit.records import ANSWERS
from kit.tree import TREE

from conflux.api import scheme
from conflux.api.failure import Failure
from conflux.api.operations import Operations
from conflux.cli.grammar import Parser
from conflux.cli.parser import parser

PAGE = TREE / "docs" / "reference" / "json.md"

OTHER_FORMATS = {"bench"}  # it prints its report, a file with a version of its own

# Operations of the daemon whose answer a command prints as it is.
PASSED_ON = {
    "reload": "_reload",
    "status": "_status",
    "ip": "_address",
    "hosts": "_nodes",
    "streams": "_streams",
    "paths": "_paths",
    "links": "_links",
    "usage": "_usage",
    "route": "_route",
    "why": "_why",
}

UNITS = ("_ms", "_s", "_at", "_bytes", "_mbit")
UNITS_OF_OTHERS = re.compile(r".*_(mb|kb|gb|kib|mib|us|ns|sec|seconds|minutes|hours|days|kbit|gbit|bps|percent|unix)$")
NUMBERS = {
    "column",
    "epoch",
    "line",
    "link",
    "number",
    "pid",
    "sequence",
    "serial",
}  # that count nothing: they say which one
KINDS = {str: "text", int: "number", float: "number", bool: "true or false"}


def keys(record: type) -> dict[str, str]:
    """Return the keys of a record, each with what stands there, in words."""
    hints = get_type_hints(record)
    return {key: word(hint) for key, hint in hints.items()}


def word(hint: Any) -> str:
    """Return what stands in a place of that type."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    words = [_word(kind) for kind in kinds if kind is not NoneType]
    return " or ".join(dict.fromkeys([*words, *(["null"] if NoneType in kinds else [])]))


def _word(kind: Any) -> str:
    if get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, StrEnum)):
        return "text"
    if get_origin(kind) is tuple:
        (inner,) = set(get_args(kind)) - {...}
        return f"list of {'texts' if inner is str else word(inner)}"
    if get_origin(kind) is Mapping:
        inner = get_args(kind)[-1]
        return f"{'numbers' if inner is int else 'texts' if inner is str else word(inner)} by word"
    return "anything" if kind is Any else KINDS.get(kind) or link(kind)


def link(record: type) -> str:
    """Return a record as the page names it."""
    return f"[{record.__name__}](#{record.__name__.lower()})"


def parts(hint: Any) -> Iterator[type]:
    """Yield the records in a type."""
    if isinstance(hint, type) and hasattr(hint, "__annotations__") and not issubclass(hint, StrEnum):
        yield hint
    for inner in get_args(hint):
        yield from parts(inner)


def records() -> list[type]:
    """Return every record that any command prints, in the order of the page."""
    found: dict[type, None] = {Failure: None}
    waiting = [root for roots in ANSWERS.values() for root in roots]
    while waiting:
        record = waiting.pop(0)
        if record not in found:
            found[record] = None
            inner = [part for hint in get_type_hints(record).values() for part in parts(hint)]
            waiting[:0] = inner
    return list(found)


def documented() -> dict[str, dict[str, str]]:
    """Return the tables of the page: the keys of each record, with what stands there."""
    tables: dict[str, dict[str, str]] = {}
    for section in re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        tables[title] = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", body, flags=re.MULTILINE))
    return tables


def commands() -> Iterator[str]:
    """Yield every command that has the option --json."""

    def walk(command: argparse.ArgumentParser, words: str) -> Iterator[str]:
        if any("--json" in action.option_strings for action in command._actions):
            yield words
        below = dict(command.apart) if isinstance(command, Parser) else {}
        for action in command._actions:
            if isinstance(action, argparse._SubParsersAction):
                below |= action.choices
        for name, inner in below.items():
            yield from walk(inner, f"{words} {name}".strip())

    yield from walk(parser(), "")


def test_every_command_that_prints_json_has_its_answer_here():
    assert set(commands()) == set(ANSWERS) | OTHER_FORMATS


def test_the_page_says_what_each_command_answers():
    table = dict(re.findall(r"^\| `conflux ([a-z -]+) --json` \| (.+) \|$", PAGE.read_text(), flags=re.MULTILINE))
    assert table == {words: " or ".join(map(link, roots)) for words, roots in ANSWERS.items()}


def test_the_page_has_every_record_and_no_other():
    assert list(documented()) == [record.__name__ for record in records()]


@pytest.mark.parametrize("record", records(), ids=lambda record: record.__name__)
def test_the_page_has_every_key_and_no_other(record):
    assert documented().get(record.__name__) == keys(record)


@pytest.mark.parametrize("record", records(), ids=lambda record: record.__name__)
def test_the_unit_of_a_number_is_of_the_scheme(record):
    for key, kind in keys(record).items():
        assert not UNITS_OF_OTHERS.match(key), f"{key}: not a unit of the scheme"
        if "number" not in kind or "numbers" in kind:
            assert not key.endswith(UNITS), f"{key}: the ending of a number, and it is none"
        elif not key.endswith(UNITS) and key not in ("at", "scheme"):
            assert key.split("_")[-1] in NUMBERS or key.removesuffix("_max").endswith("s"), f"{key}: no unit, no count"


@pytest.mark.parametrize("words", PASSED_ON)
def test_the_daemon_answers_with_that_record(words):
    assert (get_type_hints(getattr(Operations, PASSED_ON[words]))["return"],) == ANSWERS[words]


def test_every_answer_says_the_version_of_the_scheme():
    assert scheme.answer(Failure("why")) == {"scheme": 1, "error": "why"}
    assert f'"scheme": {scheme.VERSION}' in PAGE.read_text()
    assert not any("scheme" in keys(record) for record in records())
