"""What was dropped, as text: what calls for a look apart from a network's daily life."""

from __future__ import annotations

from collections.abc import Mapping

from conflux.api.drops import DropKind, DropRow, drop_rows, of_kind
from conflux.cli import show

TEXT_CHARS_MIN = 24  # a narrower column of text would be one word a line


def describe_drops(counts: Mapping[str, int], *, columns: int = 80) -> str:
    """Return the drops by reason: the alarming with what each says, then the normal.  columns: of the terminal."""
    rows = drop_rows(counts)
    if not rows:
        return "dropped: nothing"
    alarming, normal = of_kind(rows, DropKind.ALARMING), of_kind(rows, DropKind.NORMAL)
    blocks = []
    if alarming:
        blocks.append("dropped, and worth a look:\n" + "\n".join(_explained(alarming, columns)))
    if normal:
        counted = [(row.reason, row.times) for row in normal]
        blocks.append("dropped, as in any network:\n" + show.table(("reason", "count"), counted, indent="  "))
    return "\n\n".join(blocks)


def _explained(rows: tuple[DropRow, ...], columns: int) -> list[str]:
    lines = []
    for row in rows:
        lines.append(f"  {row.reason} {row.times}:")
        lines += [f"    {line}" for line in show.wrapped(row.text, max(columns - 4, TEXT_CHARS_MIN))]
    return lines
