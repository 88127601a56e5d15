"""Where each key and each entry of a list stands in a TOML text: tomli says what a text means, not where.

The text has passed tomli, so this reads it without a check: what is no string, mark or comment is a plain word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import tomli

Path = tuple[str | int, ...]
"""Keys, and places in lists: ("allow", 2, "from", 0) is the first source of the third rule."""

DEPTH_MAX = 6  # chosen: a rule file has four levels; what lies deeper has the place of what it is in

_TOKEN = re.compile(
    r"""
    (?P<blank>[ \t\r]+|\#[^\n]*)
    | (?P<newline>\n)
    | (?P<text>\"{3}(?:\\.|[^\\])*?\"{3,5} | '{3}.*?'{3,5} | "(?:\\.|[^"\\])*" | '[^']*')
    | (?P<mark>[\[\]{}=,.])
    | (?P<word>[^\s\[\]{}=,.#"']+)
    """,
    re.VERBOSE | re.DOTALL,
)


class Place(NamedTuple):
    """A place in a text; both numbers count from 1."""

    line: int
    column: int


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


class Places:
    """The places of a valid TOML text, looked for when the first is asked for: of a right file, none is."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _places(self) -> Mapping[Path, Place]:
        return places_of(self._text)

    def at(self, path: Path) -> Place | None:
        """Return where a key or entry begins, or else what it is in; None if the text has neither."""
        shorter = (path[:size] for size in range(len(path), 0, -1))
        return next((self._places[each] for each in shorter if each in self._places), None)


def places_of(text: str) -> dict[Path, Place]:
    """Return where each key and entry of a valid TOML text begins, by its path."""
    return _Walk(text).places


class _Walk:
    """One walk through a text."""

    def __init__(self, text: str) -> None:
        self.places: dict[Path, Place] = {}
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        found = [_Token(str(match.lastgroup), match[0], match.start()) for match in _TOKEN.finditer(text)]
        self._tokens = [token for token in found if token.kind != "blank"]
        self._next = 0
        self._line = 0
        self._counts: dict[Path, int] = {}  # of the tables of a list, by its path
        within: Path = ()
        while self._skip_lines():
            if self._is("["):
                within = self._header()
            else:
                self._pair(within, 0)

    def _is(self, mark: str) -> bool:
        return self._next < len(self._tokens) and self._tokens[self._next].text == mark

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def _skip_lines(self) -> bool:
        while self._next < len(self._tokens) and self._tokens[self._next].kind == "newline":
            self._next += 1
        return self._next < len(self._tokens)

    def _mark_place(self, path: Path, at: int) -> None:
        while self._line + 1 < len(self._starts) and self._starts[self._line + 1] <= at:
            self._line += 1
        self.places.setdefault(path, Place(self._line + 1, at - self._starts[self._line] + 1))

    def _header(self) -> Path:
        """Take "[a.b]" or "[[a.b]]", and return the path of the table that it begins."""
        at = self._take().at
        is_list = self._is("[")
        if is_list:
            self._take()
        path: Path = ()
        keys = self._key()
        for number, key in enumerate(keys, 1):
            path = (*path, key)
            if is_list and number == len(keys):
                self._mark_place(path, at)
                self._counts[path] = self._counts.get(path, -1) + 1
            if path in self._counts:
                path = (*path, self._counts[path])
            self._mark_place(path, at)
        while self._is("]"):
            self._take()
        return path

    def _key(self) -> list[str]:
        """Take the words of a key up to the mark after it."""
        words: list[str] = []
        while self._next < len(self._tokens) and (self._tokens[self._next].kind in ("word", "text") or self._is(".")):
            token = self._take()
            if token.kind == "text":
                words.append(str(next(iter(tomli.loads(f"{token.text} = 0")))))
            elif token.text != ".":
                words.append(token.text)
        return words

    def _pair(self, within: Path, depth: int) -> None:
        """Take a key and its value."""
        at = self._tokens[self._next].at
        path = within
        for key in self._key():
            path = (*path, key)
            self._mark_place(path, at)
        if self._next < len(self._tokens):
            self._take()  # "="
        self._value(path, depth)

    def _value(self, path: Path, depth: int) -> None:
        if depth >= DEPTH_MAX and (self._is("[") or self._is("{")):
            self._skip_nested()
        elif self._is("["):
            self._list(path, depth)
        elif self._is("{"):
            self._table(path, depth)
        else:
            self._next += 1  # a text, or the first part of a number or date
            while self._next < len(self._tokens) and (self._tokens[self._next].kind == "word" or self._is(".")):
                self._next += 1

    def _list(self, path: Path, depth: int) -> None:
        self._take()
        count = 0
        while self._skip_lines() and not self._is("]"):
            if self._is(","):
                self._take()
                continue
            self._mark_place((*path, count), self._tokens[self._next].at)
            self._value((*path, count), depth + 1)
            count += 1
        self._next += 1

    def _table(self, path: Path, depth: int) -> None:
        self._take()
        while self._skip_lines() and not self._is("}"):
            if self._is(","):
                self._take()
                continue
            self._pair(path, depth + 1)
        self._next += 1

    def _skip_nested(self) -> None:
        depth = 0
        while self._next < len(self._tokens):
            token = self._take()
            if token.kind == "mark":
                depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token.text, 0)
            if depth == 0:
                return
