"""Layout of text for people: aligned columns, few digits, at most 80 characters where the data allows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

GAP = "  "
RIGHT = frozenset("0123456789")  # a column in which every cell begins with a digit is aligned to the right


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, indent: str = "") -> str:
    """Return rows under a header, with aligned columns; numbers are aligned to the right."""
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
    return "\n".join(lines)


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """Return "name  value" lines with aligned values; further lines of a value stand under its first."""
    known = [(name, _cell(value)) for name, value in pairs]
    width = max(len(name) for name, _ in known)
    lines = []
    for name, value in known:
        first, *more = value.split("\n") or [""]
        lines.append(f"{name.ljust(width)}{GAP}{first}".rstrip())
        lines += [" " * width + GAP + line for line in more]
    return "\n".join(lines)


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


def plural(count: int, word: str) -> str:
    """Return "1 link" or "2 links"."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
