"""The ledger as a page: tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rig.ledger.rows import Sum, sums
from rig.ledger.spells import Spell

LAYERS: Final = {"control": "control channel", "TCP": "TCP", "link": "link", "mDNS": "mDNS", "network": "network"}


def cost_page(spells: Sequence[Spell], figures: Mapping[str, float], machine: str) -> str:
    """Return the tables of figures and messages."""
    lines = ["| Figure | Measured |", "|---|---|"]
    lines += [f"| `{name}` | {value:.3g} |" for name, value in sorted(figures.items())]
    by_title = {spell.title: spell for spell in spells}  # the last of a title
    groups: list[tuple[str, ...]] = [
        ("first contact", "met before"),
        ("link kept, nothing sent", "link kept, one ping"),
    ]
    shown = {title for group in groups for title in group}
    groups += [(title,) for title in by_title if title not in shown]
    for group in groups:
        chosen = [by_title[title] for title in group if title in by_title]
        if chosen:
            lines += ["", *ledger_table(chosen)]
    return "\n".join([*lines, "", f"Measured on {machine}.", ""])


def ledger_table(spells: Sequence[Spell]) -> list[str]:
    """Return one table: a row a message, a column a spell, in bytes; both directions, packets in brackets."""
    found = [sums(spell.rows) for spell in spells]
    names = {name: entry.group for entries in found for name, entry in entries.items()}
    order = list(LAYERS)
    lines = [
        f"| Message | Layer | {' | '.join(spell.title for spell in spells)} |",
        "|---|---|" + "---:|" * len(spells),
    ]
    for name, group in sorted(names.items(), key=lambda item: order.index(item[1])):
        cells = " | ".join(_cell(entries.get(name)) for entries in found)
        lines.append(f"| {name} | {LAYERS[group]} | {cells} |")
    totals = " | ".join(f"**{spell.ledger_bytes:,.0f}**" for spell in spells)
    counted = " | ".join(f"{spell.counted_bytes:,}" for spell in spells)
    return [*lines, f"| **sum** | | {totals} |", f"| counted by the kernel | | {counted} |"]


def _cell(entry: Sum | None) -> str:
    return "" if entry is None else f"{entry.wire_bytes:,.0f} ({entry.packets})"
