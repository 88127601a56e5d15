"""The picture of a scale run: one panel per figure, by the number of nodes, drawn as SVG without any library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rig.scale import Row
from rig.soak_chart import COLOURS, FAINT, GRID, text

PANEL_WIDTH, PANEL_HEIGHT, MARGIN, LEFT, GAP, COLUMNS = 300, 150, 24, 44, 30, 3


class Panel(NamedTuple):
    """One figure of a row."""

    title: str
    value: Callable[[Row], float]


PANELS = (
    Panel("at rest, kB a minute for each node", lambda row: row.idle_kb_per_min),
    Panel("messages a stream", lambda row: row.messages_per_stream),
    Panel("kB a stream, both ends' connections", lambda row: row.kb_per_stream),
    Panel("99 % of streams agreed on within, ms", lambda row: row.stream_ms_p99),
    Panel("servers' processor, ms a stream", lambda row: row.server_cpu_ms_per_stream),
    Panel("largest server, MB", lambda row: max(row.server_mb)),
    Panel("until all had joined, s", lambda row: row.joined_s),
    Panel("to join, kB for each node", lambda row: row.join_kb_per_node),
    Panel("servers' processor, ms a join", lambda row: row.server_cpu_ms_per_join),
)


def chart(rows: Sequence[Row], machine: str) -> str:
    """Return the whole picture."""
    width = 2 * MARGIN + COLUMNS * (LEFT + PANEL_WIDTH) + (COLUMNS - 1) * GAP
    height = 70 + -(-len(PANELS) // COLUMNS) * (PANEL_HEIGHT + 2 * GAP)
    drawn = [
        text(MARGIN, 30, "Conflux at scale: a broker of three servers", size=18, weight="bold"),
        text(MARGIN, 48, f"{machine}; by the number of nodes, all of them on this machine", fill=FAINT),
    ]
    for number, panel in enumerate(PANELS):
        x = MARGIN + LEFT + number % COLUMNS * (LEFT + PANEL_WIDTH + GAP)
        y = 76 + number // COLUMNS * (PANEL_HEIGHT + 2 * GAP)
        drawn.append(f'<g transform="translate({x},{y})">{_panel(rows, panel)}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def _panel(rows: Sequence[Row], panel: Panel) -> str:
    """Return one figure; its scale begins at zero, that of the nodes is logarithmic."""
    width, height = PANEL_WIDTH - LEFT, PANEL_HEIGHT - 24
    most = max(panel.value(row) for row in rows) * 1.1 or 1.0
    decades = math.log10(max(row.nodes for row in rows) / 10) or 1.0
    drawn = [text(0, 10, panel.title, size=12, weight="bold")]
    for share in (0.0, 0.5, 1.0):
        y = 18 + height * (1 - share)
        drawn.append(f'<path d="M0 {y:.1f} H{width}" stroke="{GRID}"/>')
        drawn.append(text(-6, y + 4, f"{most * share:.3g}", anchor="end", fill=FAINT))
    points = []
    for row in rows:
        x = math.log10(row.nodes / 10) / decades * width
        y = 18 + height * (1 - panel.value(row) / most)
        points.append(f"{x:.1f},{y:.1f}")
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[0]}"/>')
        drawn.append(text(x, height + 32, str(row.nodes), fill=FAINT, size=10, anchor="middle"))
    drawn.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{COLOURS[0]}" stroke-width="1.4"/>')
    return "".join(drawn)
