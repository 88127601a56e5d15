"""Layout of text for people: aligned columns, few digits, and no word cut in two by the edge of the terminal.

A table that is wider than the terminal becomes cards: a line for each row, and its cells below, each with its header.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence

GAP = "  "
RIGHT = frozenset("0123456789")  # a column in which every cell begins with a digit is aligned to the right
COLUMNS_DEFAULT = 80  # where nobody says how wide the terminal is
COLUMNS_MIN = 20
FIELD_CHARS_MIN = 16  # a narrower column of values has its values below the names

Paint = Callable[[str], str]


def columns() -> int:
    """Return how many characters a line of standard output has; COLUMNS counts first, as everywhere."""
    said = os.environ.get("COLUMNS", "")
    if said.isascii() and said.isdigit() and int(said) > 0:
        return max(COLUMNS_MIN, int(said))
    try:
        return max(COLUMNS_MIN, os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError):  # no terminal; ValueError: a stream without a descriptor
        return COLUMNS_DEFAULT


def painter(when: str) -> Paint:
    """Return what makes text red: always, never, or (auto) on a terminal whose user did not set NO_COLOR."""
    capable = os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR") and sys.stdout.isatty()
    return red if when == "always" or (when == "auto" and capable) else str


def red(text: str) -> str:
    """Return text in red, line by line, so that no indentation is coloured."""
    lines = text.split("\n")
    return "\n".join(f"\x1b[31m{line}\x1b[0m" if line else line for line in lines)


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    indent: str = "",
    columns: int | None = None,
    title: int = 1,
) -> str:
    """Return rows under a header, with aligned columns; numbers are aligned to the right.

    columns: of the terminal.  If the table is wider, it becomes cards, whose first line has the first header and the
    first cells: as many as title says.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *cells]) for column in range(len(header))]
    right = [
        bool(cells) and all(row[column] == "-" or row[column][:1] in RIGHT for row in cells)
        for column in range(len(header))
    ]
    lines = []
    for row in [list(header), *cells]:
        padded = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        lines.append((indent + GAP.join(padded)).rstrip())
    if columns is not None and max(map(len, lines)) > columns:
        return "\n".join(_card(header, row, title, indent, columns) for row in cells)
    return "\n".join(lines)


def _card(header: Sequence[str], cells: Sequence[str], title: int, indent: str, columns: int) -> str:
    first = " ".join((header[0], *cells[:title])).strip()
    rest = [(name, cell) for name, cell in zip(header[title:], cells[title:], strict=True) if cell not in ("-", "")]
    below = fields(rest, columns=columns - len(indent) - 1) if rest else ""
    lines = [indent + line for line in wrapped(first, columns - len(indent))]
    return "\n".join([*lines, *(f"{indent} {line}" for line in below.split("\n") if line)])


def fields(pairs: Iterable[tuple[str, object]], *, columns: int | None = None) -> str:
    """Return "name  value" lines with aligned values; further lines of a value stand under its first.

    columns: of the terminal.  Longer values are wrapped between words; one that fits no line beside its name stands
    below it.
    """
    known = [(name, _cell(value)) for name, value in pairs]
    width = max((len(name) for name, _ in known), default=0)
    room = None if columns is None else columns - width - len(GAP)
    lines = []
    for name, value in known:
        parts = value.split("\n") or [""]
        if room is not None and columns is not None:
            if room < FIELD_CHARS_MIN or any(len(word) > room for word in value.split()):
                lines.append(name)
                lines += [" " + line for part in parts for line in wrapped(part, columns - 1)]
                continue
            parts = [line for part in parts for line in wrapped(part, room)]
        first, *more = parts
        lines.append(f"{name.ljust(width)}{GAP}{first}".rstrip())
        lines += [" " * width + GAP + line for line in more]
    return "\n".join(lines)


def paragraph(text: str, columns: int) -> str:
    """Return a text wrapped between words."""
    return "\n".join(wrapped(text, columns))


def wrapped(text: str, columns: int) -> list[str]:
    """Return the lines of a text that is wrapped between words; a longer word has a line of its own."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > columns:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)


def milliseconds(value: float | None) -> str | None:
    """Return "1.24 ms", "87 ms" or "1.4 s"; None for None."""
    if value is None:
        return None
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


def duration(seconds: float | None) -> str | None:
    """Return "4 s", "12 min", "3 h 20 min" or "6 d 4 h"; None for None."""
    if seconds is None:
        return None
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(count: float | None) -> str | None:
    """Return "740 B", "12 kB" or "3.4 MB", in decimal units as data rates are; None for None."""
    if count is None:
        return None
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}" if count < 10 else f"{count:.0f} {unit}"
    return f"{count / 1000:.1f} TB"


def rate(mbit: float | None) -> str | None:
    """Return "640 kbit/s", "87 Mbit/s" or "4.2 Gbit/s"; None for None."""
    if mbit is None:
        return None
    if mbit < 1:
        return f"{mbit * 1e3:.0f} kbit/s"
    if mbit >= 1000:
        return f"{mbit / 1000:.1f} Gbit/s" if mbit < 9950 else f"{mbit / 1000:.0f} Gbit/s"
    return f"{mbit:.1f} Mbit/s" if mbit < 9.95 else f"{mbit:.0f} Mbit/s"


def plural(count: int, word: str) -> str:
    """Return "1 link" or "2 links"."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
