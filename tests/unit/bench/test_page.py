"""The page of a bench is one file, whole and harmless, and shows every figure."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

from conflux.bench.figure import LESS, MORE, PARTS, Figure
from conflux.bench.page import page
from conflux.bench.report import Missing, Report, decode_untrusted, encode

VOID = {"meta"}

REPORT = Report(
    quick=True,
    seconds=13,
    machine={"board": "A <b>board</b> & more", "kernel": "6.12", "versions": {"conflux": "0.1.0"}},
    before={},
    after={"at": "2026-11-22T10:01:11+00:00"},
    settings={"tunnel_drops": {"near: codel": 7, "x": "<i>"}, "tun_udp_super_packets": True},
    figures=tuple(
        Figure(part, f"{part}_{name}", f"{name} of {part}", unit, better, rounds)
        for part in PARTS
        for name, unit, better, rounds in (
            ("a", "ms", LESS, (1.0, 4.0, 2.0)),
            ("b", "ms", LESS, (0.0,)),
            ("c", "Gbit/s", MORE, (3.0,)),
        )
    ),
    missing=(Missing("tunnel", "skipped", "no <device>"),),
)


class Tags(HTMLParser):
    """Checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "rect"  # SVG only: in HTML a slash closes no tag

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed():
    tags = Tags()
    tags.feed(page(REPORT))
    assert tags.open == []


def test_the_page_loads_nothing_and_runs_nothing():
    html = page(REPORT)
    assert not re.search(r"https?:|src=|@import|url\(|<script|<link", html)


def test_the_name_of_a_machine_is_escaped():
    html = page(REPORT)
    assert "A &lt;b&gt;board&lt;/b&gt; &amp; more" in html
    assert "<b>board" not in html
    assert "no &lt;device&gt;" in html
    assert "x &lt;i&gt;" in html


def test_every_figure_stands_on_the_page():
    html = page(REPORT)
    for figure in REPORT.figures:
        assert figure.title in html
    assert "A quick run" in html


def test_bars_stay_within_their_ground():
    for length in re.findall(r'<rect class="(?:more|less|spread)" x="[\d.]+" y="\d" width="([\d.]+)"', page(REPORT)):
        assert 0 <= float(length) <= 100


def test_a_page_is_made_of_a_report_without_facts():
    bare = replace(REPORT, machine={}, after={}, settings={}, figures=(), missing=())
    assert "an unknown board" in page(bare)


def test_a_report_that_was_read_back_makes_the_same_page():
    again = decode_untrusted(json.dumps(encode(REPORT)).encode(), "a.json")
    assert page(again) == page(REPORT)
