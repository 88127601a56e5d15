"""The picture of a soak: memory, descriptors and threads of each daemon over time, drawn as SVG without any library.

allocated, MB        .  .. . .   .        dots: every sample      line: at rest, after every round
──────────────────────────────────
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Protocol

WIDTH, PANEL_HEIGHT, MARGIN, LEFT, GAP = 900, 170, 24, 56, 34
INK, FAINT, GRID = "#1b2733", "#66727f", "#d5dbe1"
COLOURS = ("#0b7a75", "#e0a23b", "#7a4fa3")

# Figure of a sample, and its meaning.
PANELS = (
    ("allocated_mb", "allocated (heap, stacks, pools), MB"),
    ("pss_mb", "memory with its share of mapped files (PSS), MB"),
    ("descriptors", "open descriptors"),
    ("threads", "threads"),
)


class Sample(Protocol):
    """What the picture needs of a sample, beside the figures of PANELS.  rest: no data-plane socket was open."""

    @property
    def host(self) -> str: ...
    @property
    def at_s(self) -> float: ...
    @property
    def rest(self) -> bool: ...


def chart(samples: Sequence[Sample], findings: dict[str, Any]) -> str:
    """Return the whole picture."""
    hosts = list(dict.fromkeys(sample.host for sample in samples))
    colours = dict(zip(hosts, COLOURS, strict=False))
    until_s = max((sample.at_s for sample in samples), default=1.0)
    said = f"{findings['machine']}; {findings['rounds']} rounds, {findings['gbit_carried']:g} Gbit carried"
    drawn = [
        text(MARGIN, 30, "Conflux soak: what the daemons hold", size=18, weight="bold"),
        text(MARGIN, 48, f"{said}; lines: at rest, no data-plane socket open; dots: every 10 s", fill=FAINT),
    ]
    for number, name in enumerate(hosts):
        x = WIDTH - MARGIN - 70 * (len(hosts) - number)
        drawn.append(f'<circle cx="{x}" cy="26" r="4" fill="{colours[name]}"/>')
        drawn.append(text(x + 8, 30, name))
    top = 72
    for figure, title in PANELS:
        drawn.append(f'<g transform="translate({LEFT},{top})">{panel(samples, figure, title, colours, until_s)}</g>')
        top += PANEL_HEIGHT + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}" '
        f'font-family="Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif">\n'
        f'<rect width="{WIDTH}" height="{top}" fill="white"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def panel(samples: Sequence[Sample], figure: str, title: str, colours: dict[str, str], until_s: float) -> str:
    """Return one figure of every daemon over time; the scale begins at zero, so that small growth looks small."""
    width, height = WIDTH - LEFT - MARGIN, PANEL_HEIGHT - 24
    most = max((getattr(sample, figure) for sample in samples), default=1) * 1.1 or 1

    def place(sample: Sample) -> tuple[float, float]:
        return sample.at_s / until_s * width, 18 + height * (1 - getattr(sample, figure) / most)

    drawn = [text(0, 10, title, size=12, weight="bold")]
    for share in (0.0, 0.5, 1.0):
        y = 18 + height * (1 - share)
        drawn.append(f'<path d="M0 {y:.1f} H{width}" stroke="{GRID}"/>')
        drawn.append(text(-6, y + 4, f"{most * share:.3g}", anchor="end", fill=FAINT))
    for minute in range(0, int(until_s // 60) + 1, 5):
        x = minute * 60 / until_s * width
        anchor = (
            "start" if minute == 0 else "middle" if x < width - MARGIN else "end"
        )  # so that it stays inside the picture
        drawn.append(text(x, height + 32, f"{minute} min", fill=FAINT, size=10, anchor=anchor))
    for name, colour in colours.items():
        of = [sample for sample in samples if sample.host == name]
        for sample in of:
            if not sample.rest:
                x, y = place(sample)
                drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6" fill="{colour}" opacity="0.45"/>')
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(sample) for sample in of if sample.rest))
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
    return "".join(drawn)


def text(
    x: float, y: float, words: str, *, size: int = 11, fill: str = INK, anchor: str = "start", weight: str = "normal"
) -> str:
    """Return one line of text."""
    style = f'font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'
