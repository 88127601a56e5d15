"""Where things are in the tree."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
CEXT = TREE / "cext"
DRIVERS = TREE / "tests" / "cext"  # programs in C that drive one part of cext/
DOCS = TREE / "docs"


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    """Return all nodes of a module's syntax tree, parsed once for all tests of a run."""
    return tuple(ast.walk(ast.parse(file.read_text())))
