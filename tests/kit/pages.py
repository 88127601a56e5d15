"""The pages of the documentation, as tests read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kit.tree import DOCS, TREE

_FENCE = re.compile(r"^ *```")


def pages() -> list[Path]:
    """Return every page in Markdown, those of the tree's root and of its folders, in order."""
    places = (TREE, TREE / "bench", TREE / "tests", TREE / "firmware", TREE / "images", TREE / "packaging")
    return sorted({page for place in places for page in place.glob("*.md")} | set(DOCS.rglob("*.md")))


def name(page: Path) -> str:
    """Return the name of a page, from the root of the tree."""
    return str(page.relative_to(TREE))


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are no code block, each with its number."""
    is_code = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if _FENCE.match(line):
            is_code = not is_code
        elif not is_code:
            yield number, line


def code_blocks(page: Path) -> Iterator[str]:
    """Yield the lines of the code blocks."""
    outside = {number for number, _ in prose(page)}
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if number not in outside and not _FENCE.match(line):
            yield line


def code_spans(page: Path) -> Iterator[str]:
    """Yield what stands between backticks."""
    for _, line in prose(page):
        yield from re.findall(r"`([^`]+)`", line)


def without_code(line: str) -> str:
    """Return a line with its code spans and the targets of its links taken out."""
    return re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "``", line))
