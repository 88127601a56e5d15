"""The picture of a run: a panel per figure, a bar per program, drawn as SVG without any library.

TCP, one flow, clean                Mbit/s
conflux     ##############|--|  1,234          bar: median; line: least and most of the rounds
nebula      #######           612              "bare", the wire without an overlay, is a line of its own
"""

from __future__ import annotations

import statistics
from html import escape

from overlays.measure import FIGURES
from overlays.report import OURS, RELAY_COLUMN, Findings, column

COLUMNS = 3
PANEL_WIDTH, MARGIN, GAP = 400, 24, 28
LABEL_WIDTH, VALUE_WIDTH = 138, 58
ROW_HEIGHT, BAR_HEIGHT = 21, 13
TITLE_HEIGHT = 40

INK, FAINT, GRID = "#1b2733", "#66727f", "#d5dbe1"
COLOURS = {OURS: "#0b7a75", RELAY_COLUMN: "#6bb5ae", "bare": "#c9d1d9"}
OTHERS = "#8c9aa8"
SECOND_FLOW = "#e0a23b"

# Condition and figure of every panel.
PANELS = (
    ("", "tcp1_mbit"),
    ("", "tcp1_cpu_s_per_gbit"),
    ("", "udp_small_pps"),
    ("lossy", "tcp1_mbit"),
    ("lossy_rate", "tcp1_mbit"),
    ("rate", "ping_loaded_ms"),
    ("lossy_rate", "ping_loaded_ms"),
    ("", "cold_ms"),
    ("", "pss_mb"),
)


def chart(findings: Findings) -> str:
    """Return the whole picture."""
    panels = [panel for condition, figure in PANELS if (panel := bars(findings, condition, figure))]
    if findings.shares:
        panels.append(shares(findings))
    rows = [panels[at : at + COLUMNS] for at in range(0, len(panels), COLUMNS)]
    told = findings.about["machine"]
    settings = findings.about["settings"]
    versions = [f"{name} {version}" for name, version in findings.heads().items() if version]
    top = 80 if versions else 62
    drawn = [
        text(MARGIN, 30, "Conflux beside other overlays", size=18, weight="bold"),
        text(MARGIN, 49, f"{told['processor']}, {told['cores']} cores, Linux {told['kernel']}; "
             f"all hosts on this machine; medians of {settings['rounds']}, lines from least to most", fill=FAINT),
    ]  # fmt: skip
    if versions:
        drawn.append(text(MARGIN, 66, "; ".join(versions), fill=FAINT))
    for row in rows:
        for number, (body, _) in enumerate(row):
            drawn.append(f'<g transform="translate({MARGIN + number * (PANEL_WIDTH + GAP)},{top})">{body}</g>')
        top += max(height for _, height in row) + GAP
    width = 2 * MARGIN + COLUMNS * PANEL_WIDTH + (COLUMNS - 1) * GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" viewBox="0 0 {width} {top}" '
        f'font-family="Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif">\n'
        f'<rect width="{width}" height="{top}" fill="white"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def bars(findings: Findings, condition: str, figure_name: str) -> tuple[str, int] | None:
    """Return one panel and its height; None if nothing was measured for it."""
    figure = FIGURES[figure_name]
    rows: dict[str, list[float]] = {}
    for path in ("direct", "relay"):
        key = "_".join(filter(None, (path, condition, figure_name)))
        for program, values in findings.values().get(key, {}).items():
            rows[column(program, path)] = values
    if not rows:
        return None
    # The bare wire is so much faster that beside it the other bars would be invisible.
    bare = rows.pop("bare", None)
    ordered = sorted(rows.items(), key=lambda row: statistics.median(row[1]), reverse=figure.more_is_better)
    most = max((max(values) for values in rows.values()), default=0.0) or 1.0
    scale = (PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH) / most
    place = next(str(known) for known in findings.conditions if known.name == condition)
    better = "more is better" if figure.more_is_better else "less is better"
    drawn = heading(figure.title or figure.text, f"{place}; {figure.unit}, {better}")
    top = TITLE_HEIGHT
    for name, values in ordered:
        middle = statistics.median(values)
        ours = name in (OURS, RELAY_COLUMN)
        drawn.append(text(LABEL_WIDTH - 8, top + 11, name, anchor="end", weight="bold" if ours else "normal"))
        drawn.append(bar(LABEL_WIDTH, top, middle * scale, COLOURS.get(name, OTHERS)))
        if len(values) > 1:
            low, high = (LABEL_WIDTH + bound * scale for bound in (min(values), max(values)))
            drawn.append(f'<path d="M{low:.1f} {top + 6.5} H{high:.1f}" stroke="{INK}" stroke-width="1.2"/>')
        end = LABEL_WIDTH + max(values) * scale
        drawn.append(text(end + 6, top + 11, shown(middle)))
        top += ROW_HEIGHT
    if bare:
        drawn.append(text(LABEL_WIDTH - 8, top + 11, "bare wire", anchor="end", fill=FAINT))
        drawn.append(text(LABEL_WIDTH, top + 11, shown(statistics.median(bare)), fill=FAINT))
        top += ROW_HEIGHT
    return "".join(drawn), top


def shares(findings: Findings) -> tuple[str, int]:
    """Return the panel of flows that share a wire, and its height."""
    drawn = heading("Two flows on one 50 Mbit/s wire", "Mbit/s each, and Jain's index")
    top = TITLE_HEIGHT
    width = PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH
    for condition in dict.fromkeys(condition for condition, _ in findings.shares):
        place = next(str(known) for known in findings.conditions if known.name == condition)
        drawn.append(text(LABEL_WIDTH, top + 11, place, fill=FAINT))
        top += ROW_HEIGHT - 3
        for (at, flows), of in findings.shares.items():
            if at != condition:
                continue
            first = statistics.median(s.first for s in of)
            second = statistics.median(s.second for s in of)
            split = width * first / ((first + second) or 1.0)
            drawn.append(text(LABEL_WIDTH - 8, top + 11, flows, anchor="end"))
            drawn.append(bar(LABEL_WIDTH, top, split, COLOURS[OURS if flows.startswith(OURS) else "bare"]))
            inside = flows.endswith(OURS)
            drawn.append(bar(LABEL_WIDTH + split, top, width - split, COLOURS[RELAY_COLUMN] if inside else SECOND_FLOW))
            if split > 30:
                drawn.append(text(LABEL_WIDTH + 4, top + 10, shown(first), fill="white" if OURS in flows else INK))
            if width - split > 30:
                drawn.append(text(LABEL_WIDTH + width - 4, top + 10, shown(second), anchor="end"))
            drawn.append(text(LABEL_WIDTH + width + 6, top + 11, f"{statistics.median(s.jain for s in of):.2f}"))
            top += ROW_HEIGHT
    return "".join(drawn), top


def heading(title: str, unit: str) -> list[str]:
    """Return the title, the unit and the line under them."""
    return [
        text(0, 13, title, size=13, weight="bold"),
        text(0, 28, unit, fill=FAINT),
        f'<path d="M{LABEL_WIDTH} {TITLE_HEIGHT - 5} H{PANEL_WIDTH}" stroke="{GRID}"/>',
    ]


def bar(x: float, y: float, width: float, colour: str) -> str:
    """Return one bar."""
    return f'<rect x="{x:.1f}" y="{y}" width="{max(width, 1):.1f}" height="{BAR_HEIGHT}" fill="{colour}"/>'


def text(
    x: float, y: float, words: str, *, size: int = 11, fill: str = INK, anchor: str = "start", weight: str = "normal"
) -> str:
    """Return one line of text."""
    style = f'font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def shown(value: float) -> str:
    """Return a value with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
