"""Where things are in the tree."""

from __future__ import annotations

from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
CEXT = TREE / "cext"
DRIVERS = TREE / "tests" / "cext"  # programs in C that drive one part of cext/
DOCS = TREE / "docs"
