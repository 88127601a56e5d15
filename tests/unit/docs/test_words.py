"""status-and-drops.md has every word that the program shows, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from kit.tree import DOCS, TREE, nodes

PAGE = DOCS / "reference" / "status-and-drops.md"

# Enums of words that no person is shown, or that another page has.
ELSEWHERE = frozenset(
    {
        "board/data.py:Rescue",
        "board/data.py:Step",
        "board/light.py:Light",
        "board/wifi.py:Wifi",
        "carrier/ice/agent.py:State",
        "daemon/background.py:How",
        "doctor/ruleset.py:Fate",
        "doctor/ruleset.py:_End",
        "doctor/subject.py:Answer",
        "policy/terms.py:Kind",
        "sim/carrier.py:Secured",
        "stream/resuming.py:Resumption",
        "web/request.py:Turned",
    }
)
# Reasons that a person reads as a sentence, with the command that failed; protocol.md has those of a refused join.
SAID = frozenset({"wrong-answer"})

WORD = re.compile(r"[a-z][a-z0-9]*(?:[- ][a-z0-9]+)*")
COUNTED = re.compile(r"(?:drop|drops|drop_counts)(?:\(|\[)\"([a-z][a-z0-9-]*)\"[\])]")
RAISED = re.compile(r"RemoteProtocolError\(\s*\"([a-z][a-z0-9-]*)\"")


@cache
def sources() -> tuple[Path, ...]:
    """Return the modules of the package."""
    return tuple(sorted((TREE / "conflux").rglob("*.py")))


def enums() -> Iterator[tuple[str, str]]:
    """Yield every value of every StrEnum, with "folder/module.py:Class"."""
    for file in sources():
        for node in nodes(file):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("StrEnum") for base in node.bases):
                for member in node.body:
                    if isinstance(member, ast.Assign) and isinstance(member.value, ast.Constant):
                        name = f"{file.relative_to(TREE / 'conflux')}:{node.name}"
                        yield name, str(member.value.value)


def literals() -> set[str]:
    """Return the words that the code counts drops under, or raises for bytes of a peer, without an enum."""
    return {word for file in sources() for form in (COUNTED, RAISED) for word in form.findall(file.read_text())}


@cache
def documented() -> frozenset[str]:
    """Return the words in the first column of the page's tables."""
    cells = re.findall(r"^\| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    return frozenset(word for cell in cells for word in re.findall(r"`([^`]+)`", cell))


def refusals() -> set[str]:
    """Return the reasons of a refused join, which protocol.md lists."""
    section = (DOCS / "reference" / "protocol.md").read_text().partition("## Joining")[2].partition("\n## ")[0]
    return set(re.findall(r"`([a-z-]+)`", section))


def test_every_word_of_an_enum_is_on_the_page():
    there = documented() | refusals()
    missing = [f"{word!r} of {name}" for name, word in enums() if name not in ELSEWHERE and word not in there]
    assert missing == []


def test_every_word_that_is_counted_or_raised_is_on_the_page():
    assert sorted(literals() - documented() - refusals() - SAID) == []


def test_the_page_has_no_word_that_the_code_has_not():
    files = (file for folder in ("conflux", "cext") for file in (TREE / folder).rglob("*"))
    code = "\n".join(file.read_text() for file in files if file.suffix in (".py", ".c", ".h"))
    words = [word for word in documented() if WORD.fullmatch(word)]
    assert [word for word in sorted(words) if f'"{word}"' not in code] == []
    assert len(words) > 150


def test_a_word_has_one_row_in_a_table():
    for table in re.findall(r"(?:^\|.*\n)+", PAGE.read_text(), re.MULTILINE):
        words = [word for row in table.splitlines() for word in re.findall(r"`([^`]+)`", row.split("|")[1])]
        assert len(words) == len(set(words)), sorted(words)
