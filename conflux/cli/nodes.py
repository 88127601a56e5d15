"""The nodes of `conflux status`, as text."""

from __future__ import annotations

import time

from conflux.cli import show

NOW_S = 45.0  # neighbours exchange a ping every 15 s: who was heard this lately is there

TYPE_CHECKING = False  # it takes longer to import than all that this module does
if TYPE_CHECKING:
    from typing import Any, TypeAlias

Row: TypeAlias = "dict[str, Any]"


def describe_nodes(rows: list[Row], *, columns: int = 80, now_unix: float | None = None) -> str:
    """Return the nodes, each with its addresses below."""
    if not rows:
        return show.paragraph("nodes: none known yet but this one", columns)
    at = time.time() if now_unix is None else now_unix
    header = ("node", "reached", "heard", "sent", "received", "credential")
    cells = [
        (
            row["name"],
            reached(row),
            heard(row, at),
            show.size(row["sent_bytes"]),
            show.size(row["received_bytes"]),
            _credential(row["expires_at"], at),
        )
        for row in rows
    ]
    text = show.table(header, cells)
    if max(map(len, text.split("\n"))) > columns:
        return "\n".join(_card(header, each, row, columns) for each, row in zip(cells, rows, strict=True))
    first, *lines = text.split("\n")
    return "\n".join(
        [first, *(f"{line}\n  {'  '.join(_addresses(row))}".rstrip() for line, row in zip(lines, rows, strict=True))]
    )


def _card(header: tuple[str, ...], cells: tuple[object, ...], row: Row, columns: int) -> str:
    pairs = [pair for pair in zip(header[1:], cells[1:], strict=True) if pair[1] is not None]
    lines = [*show.fields(pairs, columns=columns - 1).split("\n"), *_addresses(row)]
    return "\n".join([str(cells[0]), *(f" {line}" for line in lines)])


def _addresses(row: Row) -> list[str]:
    return [each for each in (row["ipv6"], row["ipv4"]) if each is not None]


def reached(row: Row) -> str:
    """Return by which way a node is reached, in words."""
    if row["reach"] == "relay":
        return f"by {', '.join(row['by'])}"
    if row["reach"] is None:
        return "left the LAN" if row["left_at"] is not None else "not now"
    return {"lan": "LAN", "broker": "broker", "direct": "direct"}.get(row["reach"], str(row["reach"]))


def heard(row: Row, now_unix: float) -> str | None:
    """Return when a node said something last, in words; None if it did not since the daemon started."""
    if row["heard_at"] is None:
        return None
    ago_s = max(0.0, now_unix - row["heard_at"])
    if row["left_at"] is None and ago_s < NOW_S:
        return "now"
    return f"{show.duration(ago_s)} ago"


def _credential(expires_at: float | None, now_unix: float) -> str | None:
    if expires_at is None:
        return None
    date = time.strftime("%Y-%m-%d", time.localtime(expires_at))
    return f"until {date}" if expires_at > now_unix else f"EXPIRED {date}"
