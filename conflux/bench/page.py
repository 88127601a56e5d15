"""The report as an HTML page: one file that loads nothing else, light or dark as the reader's system is."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Final

from conflux.bench.figure import LESS, MORE, PARTS, Figure
from conflux.bench.report import Report, digits, facts, warnings

# The figures a reader wants first: name, and title.
_HEADLINES: Final = (
    ("tunnel_tcp", "TCP through the tunnel"),
    ("tunnel_tcp_cpu", "processor time, both ends"),
    ("tunnel_ping_idle", "ping through the tunnel"),
    ("tunnel_udp", "small UDP packets"),
    ("link_bulk", "two engines, no device"),
    ("memory_daemon_pss", "memory a daemon starts with"),
)
_HEADLINE_COUNT: Final = 4

_DIRECTION: Final = {MORE: "more is better", LESS: "less is better"}
_ORDER: Final = ("tunnel", "link", "ciphers", "codec", "handshake", "start", "memory")

_NOTES: Final = {
    "tunnel": "Sockets, a TUN device, an engine, UDP over loopback, an engine, a TUN device, sockets. Both ends and "
    "the programs share this machine's processors, so two such boards carry more.",
    "link": "Packets go into one engine's queue and are counted, opened, in the other: no devices, no system calls "
    "but those for UDP. Both engines share this machine's processors.",
    "ciphers": "Frames with one entry, by the compiled codec and this system's libcrypto. A stream's receiver chooses "
    "the faster one.",
    "codec": "With the cipher chosen here.",
    "handshake": "Once per stream. The last line is all that both ends compute together for one.",
    "start": "With files in the page cache; a board just booted reads them from its disk first.",
    "memory": "Proportional share counts what several processes share once.",
}

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --line: #e3e6ea; --paper: #ffffff;
  --card: #f6f7f9; --more: #2f6fd0; --less: #b8690c; --spread: #1b1f24; --warn: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa5b1; --line: #2c333b; --paper: #14181d;
  --card: #1c2229; --more: #6ea3f2; --less: #e09a45; --spread: #e6e9ee; --warn: #3a3013; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 32px 20px 48px; }
header p, .note, .unit, footer { color: var(--soft); }
h1 { font-size: 26px; line-height: 1.2; margin: 4px 0; } h2 { font-size: 18px; margin: 36px 0 2px; }
p { margin: 0 0 8px; } .note { font-size: 13.5px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px; margin: 20px 0; }
.tile { background: var(--card); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 24px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile small { font-size: 13px; color: var(--soft); } .tile b small { font-weight: normal; }
.warn { background: var(--warn); border-radius: 8px; padding: 10px 14px; margin: 12px 0; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; font-size: 13px; color: var(--soft);
  padding: 8px 0 2px; }
td, th { border-top: 1px solid var(--line); padding: 4px 8px 4px 0; text-align: left; vertical-align: middle;
  font-weight: normal; }
.figures th { width: 40%; } .figures td:nth-child(2) { width: 32%; } .figures td:nth-child(3) { width: 11%; }
.figures td:nth-child(n+3) { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap;
  padding-right: 0; }
.figures td:nth-child(2) { color: var(--soft); font-size: 13px; }
.figures td:last-child { color: var(--soft); font-size: 13px; padding-left: 10px; }
.facts th { width: 22%; color: var(--soft); vertical-align: top; }
svg { display: block; width: 100%; height: 14px; } .more { fill: var(--more); } .less { fill: var(--less); }
.spread { fill: var(--spread); opacity: 0.75; } .ground { fill: var(--line); opacity: 0.5; }
@media (max-width: 600px) { .figures td:nth-child(2) { color: var(--soft); font-size: 13px; }
.figures td:last-child { display: none; } }
footer { margin-top: 36px; font-size: 13px; }
"""


def page(report: Report) -> str:
    """Return the report as HTML."""
    board = str(report.machine.get("board") or "an unknown board")
    versions = report.machine.get("versions") or {}
    made_at = str(report.after.get("at") or "")[:10]
    line = f"Conflux {versions.get('conflux')} · Linux {report.machine.get('kernel')} · {made_at}"
    parts = [
        f"<header><p>conflux bench</p><h1>{escape(board)}</h1><p>{escape(line)}</p></header>",
        _tiles(report),
        *(f'<p class="warn">{escape(text)}</p>' for text in _remarks(report)),
        *(_section(part, report.of(part)) for part in _ORDER if report.of(part)),
        _facts(report),
        "<footer>Medians of several rounds; the thin line in a bar is the spread, from least to most. "
        "Compare boards with <code>conflux bench --compare A.json B.json</code>.</footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>conflux bench: {escape(board)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _tiles(report: Report) -> str:
    found = [(words, figure) for name, words in _HEADLINES if (figure := report.find(name))]
    tiles = (
        f'<div class="tile"><b>{digits(figure.median)} <small>{escape(figure.unit)}</small></b>'
        f"<small>{escape(words)}</small></div>"
        for words, figure in found[:_HEADLINE_COUNT]
    )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _remarks(report: Report) -> list[str]:
    quick = ["A quick run: fewer and shorter rounds, so more spread than in a full one."] if report.quick else []
    words = [text[0].upper() + text[1:] + "." for text in warnings(report)]
    gone = [f"{PARTS.get(part.part, part.part)}: {part.how}: {part.why}." for part in report.missing]
    return quick + words + gone


def _section(part: str, figures: list[Figure]) -> str:
    """Return a part's figures: numbers, and bars for those that share a unit and so a scale."""
    units = Counter(figure.unit for figure in figures)
    alone = [figure for figure in figures if units[figure.unit] == 1]
    tables = _numbers(alone) if alone else ""
    for unit, count in units.items():
        if count > 1:
            tables += _bars([figure for figure in figures if figure.unit == unit])
    return f'<section><h2>{escape(PARTS[part])}</h2><p class="note">{escape(_NOTES[part])}</p>{tables}</section>'


def _numbers(figures: list[Figure]) -> str:
    rows = "".join(
        f"<tr><th>{escape(figure.title)}</th><td>{escape(figure.unit)}, {_DIRECTION[figure.better]}</td>"
        f"<td>{digits(figure.median)}</td><td>{_spread(figure)}</td></tr>"
        for figure in figures
    )
    return f'<table class="figures">{rows}</table>'


def _bars(figures: list[Figure]) -> str:
    scale = max(figure.most for figure in figures) or 1.0
    rows = "".join(
        f"<tr><th>{escape(figure.title)}</th><td>{_bar(figure, scale)}</td>"
        f"<td>{digits(figure.median)}</td><td>{_spread(figure)}</td></tr>"
        for figure in figures
    )
    caption = f"{escape(figures[0].unit)}, {_DIRECTION[figures[0].better]}"
    return f'<table class="figures"><caption>{caption}</caption>{rows}</table>'


def _spread(figure: Figure) -> str:
    return f"{digits(figure.least)} to {digits(figure.most)}" if len(figure.rounds) > 1 else ""


def _bar(figure: Figure, scale: float) -> str:
    """Return a bar as long as the median, with the spread as a thin line in it; 100 is the scale's end."""
    length, least, most = (100 * value / scale for value in (figure.median, figure.least, figure.most))
    spread = f'<rect class="spread" x="{least:.2f}" y="6" width="{max(0.3, most - least):.2f}" height="2"/>'
    return (
        f'<svg viewBox="0 0 100 14" preserveAspectRatio="none" role="img" aria-label="{digits(figure.median)} '
        f'{escape(figure.unit)}"><rect class="ground" x="0" y="2" width="100" height="10"/>'
        f'<rect class="{figure.better}" x="0" y="2" width="{length:.2f}" height="10"/>'
        f"{spread if len(figure.rounds) > 1 else ''}</svg>"
    )


def _facts(report: Report) -> str:
    known = [*facts(report), *((name.replace("_", " "), _words(value)) for name, value in report.settings.items())]
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(words)}</td></tr>" for name, words in known if words)
    return f'<section><h2>The machine</h2><table class="facts">{rows}</table></section>'


def _words(value: object) -> str:
    match value:
        case dict():
            return ", ".join(f"{name} {_words(each)}" for name, each in value.items()) or "none"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
    return str(value)
