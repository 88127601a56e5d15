"""The line of a key in a TOML text: tomli says what a text means, not where.

A text consists of statements: a header, or a key and its value, perhaps over several lines.  Each statement of a valid
text is a valid text by itself.  So tomli, given one statement at a time, says which keys the statement sets.  All that
this module knows of TOML's grammar is that a header begins with a bracket.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import tomli

from conflux.errors import ConfigError

Path = tuple[str, ...]


class Source(NamedTuple):
    """A valid TOML text, and the name of its file."""

    name: str
    text: str

    def error(self, path: Path, text: str) -> ConfigError:
        """Return an error about the key at path."""
        return ConfigError(f"{self.name}:{self.line(path)}: {text}")

    def line(self, path: Path) -> int:
        """Return the line, from 1, of the statement that first sets the key at path; 1 if none does."""
        header: Path = ()
        for line, statement in self._statements():
            table = tomli.loads(statement)
            if statement.lstrip(" \t").startswith("["):
                header = next(_paths(table), ())  # a header names one path
                if header[: len(path)] == path:
                    return line
            elif path in (header + inner for inner in _paths(table)):
                return line
        return 1

    def _statements(self) -> Iterator[tuple[int, str]]:
        """Yield (line where it begins, text) of each statement; an empty line is a statement that sets nothing."""
        begun, pending = 1, ""
        for number, line in enumerate(self.text.split("\n"), 1):
            if not pending:
                begun = number
            pending += line + "\n"
            try:
                tomli.loads(pending)
            except tomli.TOMLDecodeError:
                continue  # the value continues on the next line
            yield begun, pending
            pending = ""


def _paths(table: dict[str, object]) -> Iterator[Path]:
    """Yield the path of every key in table, deepest first."""
    for key, value in table.items():
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict):
            yield from ((key, *rest) for rest in _paths(inner))
        yield (key,)
