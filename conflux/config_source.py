"""On which line of a TOML text a key stands: tomli says what a text means, not where.

A text splits into statements (a header, or a key and its value, perhaps over several lines), and each statement of a
valid text is by itself a valid text.  So tomli itself, given one statement at a time, says which keys it sets; nothing
here knows TOML's grammar beyond "a header opens with a bracket".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import tomli

from conflux.errors import ConfigError

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A valid TOML text and what the file is called."""

    name: str
    text: str

    def error(self, path: Path, text: str) -> ConfigError:
        """Return the error that says text about the key at path."""
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
        """Yield (line of its start, text) of each statement; an empty one sets nothing."""
        begun, pending = 1, ""
        for number, line in enumerate(self.text.split("\n"), 1):
            if not pending:
                begun = number
            pending += line + "\n"
            try:
                tomli.loads(pending)
            except tomli.TOMLDecodeError:
                continue  # a value goes on over the next line
            yield begun, pending
            pending = ""


def _paths(table: dict[str, object]) -> Iterator[Path]:
    """Yield the path of every key in table, deepest first."""
    for key, value in table.items():
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict):
            yield from ((key, *rest) for rest in _paths(inner))
        yield (key,)
