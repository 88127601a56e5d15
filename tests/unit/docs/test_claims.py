"""What the pages stand on is there: the tests and the files that they cite, and the constants with their values."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from kit.pages import code_spans, name, pages, prose
from kit.tree import DOCS, TREE, nodes

FOLDERS = ("bench", "cext", "conflux", "docs", "firmware", "images", "packaging", "tests", ".ci")
FILE = re.compile(r"[\w./*-]*\.(?:py|pyi|pyx|pxd|pxi|c|h|md|svg|toml|service|patch)")
MADE = re.compile(r"build/|conflux\.toml$|/etc/")  # by a command, or on the reader's machine

CODE = (".py", ".pyi", ".pyx", ".c", ".h", ".toml", ".service")

BOUND = re.compile(r"^\| `(?P<constant>\w+)`(?: of `(?P<file>[\w./]+)`)? \| (?P<value>[^|]+) \|")
UNITS = {"": 1, "KiB": 1024, "MiB": 1024**2, "s": 1, "ms": 0.001}


@cache
def files() -> tuple[Path, ...]:
    """Return the files of the tree that a page may cite."""
    below = (file for folder in FOLDERS for file in (TREE / folder).rglob("*") if file.is_file())
    return tuple(file.relative_to(TREE) for file in (*below, *(file for file in TREE.iterdir() if file.is_file())))


def is_there(cited: str) -> bool:
    """Say whether a file is there under the end of its path that a page gives."""
    return any(file.match(cited) for file in files())


@pytest.mark.parametrize("page", pages(), ids=name)
def test_files_that_a_page_cites_are_there(page):
    cited = {span for span in code_spans(page) if FILE.fullmatch(span) and not MADE.search(span)}
    assert [file for file in sorted(cited) if not is_there(file)] == []


@pytest.mark.parametrize("page", pages(), ids=name)
def test_folders_that_a_page_cites_are_there(page):
    cited = {span for span in code_spans(page) if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w/]*", span)}
    assert [folder for folder in sorted(cited) if not (TREE / folder).exists()] == []


def test_pages_that_the_code_cites_are_there():
    folders = ("conflux", "cext", "bench", "packaging", "tests/vectors", "tests/kit", "docs/examples")
    code = [file for folder in folders for file in (TREE / folder).rglob("*.*") if file.suffix in CODE]
    cited = {(page, name(file)) for file in code for page in re.findall(r"docs/[\w/-]+\.[a-z]+", file.read_text())}
    assert [f"{page} in {file}" for page, file in sorted(cited) if not (TREE / page).exists()] == []


def test_tests_that_the_pages_cite_are_there():
    cited = {
        (span, name(page)) for page in pages() for span in code_spans(page) if re.fullmatch(r"test_[a-z0-9_]+", span)
    }
    there = {
        found
        for file in (TREE / "tests").rglob("test_*.py")
        for found in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    examples = {"test_old_epoch_is_refused_after_grace"}  # of a name
    assert len(cited) > 90
    assert [f"{test} of {page}" for test, page in sorted(cited) if test not in there | examples] == []


# ── constants ────────────────────────────────────────────────────────────────────────────────────────────────────────

Definitions = dict[str, list[tuple[Path, str]]]


def python_definitions(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the names that a module or its classes define by an expression, and the expression."""
    for node in nodes(file):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, ast.unparse(node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
            yield node.target.id, ast.unparse(node.value)


def c_definitions(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the constants of a file in C or Cython, and their expressions."""
    text = re.sub(r"/\*.*?\*/|#(?!define)[^\n]*", "", file.read_text(), flags=re.DOTALL)
    yield from re.findall(r"^#define (\w+) ([^\n]+)$", text, re.MULTILINE)
    yield from re.findall(r"\b([A-Z]\w+) = ([^,;}\n]+)", text)


@cache
def definitions() -> Definitions:
    """Return every definition of every constant of the program, by name."""
    found: Definitions = {}
    for file in files():
        if file.parts[0] in ("conflux", "cext") and file.suffix in (".py", ".c", ".h", ".pxi"):
            read = python_definitions if file.suffix == ".py" else c_definitions
            for constant, expression in read(TREE / file):
                found.setdefault(constant, []).append((file, expression))
    return found


def value_of(expression: str) -> float | None:
    """Return the value of a constant expression of Python or C; None if it is another one."""
    expression = re.sub(r"\bUINT64_C\((\w+)\)", r"\1", expression)
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except SyntaxError:
        return None
    return _value(tree)


def _value(node: ast.expr) -> float | None:
    match node:
        case ast.Constant(int() | float() as value):
            return value
        case ast.Name(constant):
            values = {value_of(expression) for _, expression in definitions().get(constant, [])}
            return values.pop() if len(values) == 1 else None
        case ast.BinOp(left, operator, right):
            one, other = _value(left), _value(right)
            if one is None or other is None:
                return None
            match operator:
                case ast.Mult():
                    return one * other
                case ast.FloorDiv() | ast.Div():
                    return one / other
                case ast.Add():
                    return one + other
                case ast.Sub():
                    return one - other
                case ast.LShift():
                    return int(one) << int(other)
    return None


def shown(text: str, constant: str) -> float:
    """Return the value that a page gives: "64 KiB", "65,536", "10 ms"."""
    number, _, unit = text.replace(",", "").strip().partition(" ")
    scale = 1e9 if "_NS" in constant else 1
    return float(number) * UNITS[unit] * scale


def bounds() -> list[re.Match[str]]:
    """Return the rows of the pages that begin with a constant and its value."""
    lines = (DOCS / "explanation" / "datapath.md").read_text().splitlines()
    return [row for line in lines if (row := BOUND.match(line))]


@pytest.mark.parametrize("row", bounds(), ids=lambda row: row["constant"])
def test_a_bound_of_the_datapath_has_the_value_of_the_code(row):
    values = [
        value_of(expression)
        for file, expression in definitions().get(row["constant"], [])
        if row["file"] is None or file.match(row["file"])
    ]
    found = {round(value, 6) for value in values if value is not None}
    assert found == {round(shown(row["value"], row["constant"]), 6)}


def test_all_bounds_are_read():
    assert len(bounds()) > 40


def test_a_table_of_bounds_is_all_bounds():
    lines = [line for _, line in prose(DOCS / "explanation" / "datapath.md")]
    begin = lines.index("| Constant | Value | Of | Why |") + 2
    rows = lines[begin : lines.index("", begin)]
    assert [row for row in rows if not BOUND.match(row)] == []
