"""Python that shows in a text for people: a tuple, a repr, None, a class or a member of an enum."""

from __future__ import annotations

import re
from functools import cache

from kit.tree import TREE

SHAPES = (
    r"[(\[{]+['\"]",  # a tuple, list, set or dict of texts: ('10.7.1.1', 7464)
    r"['\"],\)",  # the end of a tuple of one
    r"\b\d+,\)",
    r"\[\]|\{\}",  # an empty one
    r"\bb['\"]",  # bytes
    r"\b(?:None|True|False)\b",
    r"<[\w.]+ object|<class |<function |<[A-Z]\w*\.[A-Z]|\bat 0x[0-9a-f]{6}",
    r"\[Errno|_ssl\.c|\[SSL:",
    r"\b[A-Z]\w*(?:Error|Exception)\b",
    r"\b[A-Z]\w+\.[A-Z][A-Z_]{2,}\b",  # Drop.FLOOD
    r"\b[A-Za-z_]+\([a-z_]+=",  # a named tuple or a dataclass
    r"Address\(|Network\(|PosixPath",
)
CLASS = re.compile(r"^ *class (\w+)", re.MULTILINE)
NAME = re.compile(r"\b(?:[A-Z][a-z]+){2,}\b")
SHAPE = re.compile("|".join(SHAPES))
# Names of classes that are a word of the trade as well.
WORDS = frozenset({"IPv4", "IPv6"})


@cache
def _names() -> frozenset[str]:
    """Return the names of the package's classes of more than one word: no text for people has one by chance.

    By their lines: parsing the package takes a second, in every process that sees such a word.
    """
    files = (TREE / "conflux").rglob("*.py")
    classes = (name for file in files for name in CLASS.findall(file.read_text()))
    return frozenset(name for name in classes if NAME.fullmatch(name)) - WORDS


def python_in(text: str) -> str | None:
    """Return the first piece of Python in a text, or None."""
    if found := SHAPE.search(text):
        return found.group()
    return next((name for name in NAME.findall(text) if name in _names()), None)
