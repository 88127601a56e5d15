"""The report of a bench comes back as it was kept, is refused if damaged, and compares figures of either direction."""

import json
import re
from dataclasses import replace

import pytest
from kit.tree import TREE

from conflux.bench import report as reports
from conflux.bench.figure import LESS, MORE, Figure
from conflux.bench.report import REGIMES, Missing, Report, compare, decode_untrusted, digits, encode, facts, warnings
from conflux.cli.bench import describe_comparison
from conflux.errors import UserError

RATE = Figure("tunnel", "tunnel_tcp", "TCP, one flow", "Gbit/s", MORE, (1.5, 2.0, 1.0))
COST = Figure("tunnel", "tunnel_tcp_cpu", "TCP, both engines", "CPU-s/Gbit", LESS, (0.5, 0.4, 0.6))
REPORT = Report(
    quick=False,
    seconds=71.234,
    machine={
        "board": "Raspberry Pi 5",
        "cpu": "Cortex-A76",
        "cpu_count": 4,
        "cpu_features": {"aes": True, "sha2": False},
        "memory_mb": 8444,
        "page_bytes": 16384,
        "governor": "ondemand",
        "cpu_mhz_min": 1500,
        "cpu_mhz_max": 2400,
        "versions": {"conflux": "0.1.0", "python": "CPython 3.13.5"},
    },
    before={"at": "2026-11-22T10:00:00+00:00", "temperature_c": 48.3, "load_average": 0.1, "throttling": []},
    after={"at": "2026-11-22T10:01:11+00:00", "temperature_c": 66.0, "load_average": 2.1, "throttling": ["throttled"]},
    settings={"aead": "AES-256-GCM"},
    figures=(RATE, COST),
    missing=(Missing("link", "skipped", "no loopback"),),
)


def text(report: Report = REPORT) -> bytes:
    """Return a report as the bytes of its file."""
    return json.dumps(encode(report)).encode()


def test_a_report_comes_back_as_it_was():
    again = decode_untrusted(text(), "a.json")
    assert again == replace(REPORT, seconds=71.2)


def test_a_report_holds_median_and_spread():
    figure = encode(REPORT)["figures"]["tunnel_tcp"]
    assert (figure["median"], figure["least"], figure["most"]) == (1.5, 1.0, 2.0)


def damaged(**changes: object) -> bytes:
    return json.dumps({**encode(REPORT), **changes}).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[]", "not a report"),
        (b'{"schema": "something"}', "not a report"),
        (damaged(version=2), "version 2; this program reads version 1"),
        (b'{"schema": "conflux-bench", "version": 1}', "damaged"),
        (damaged(figures=[]), "damaged"),
        (damaged(figures={"x": {}}), "damaged"),
        (damaged(figures={"x": {**encode(REPORT)["figures"]["tunnel_tcp"], "rounds": []}}), "damaged"),
        (damaged(figures={"x": {**encode(REPORT)["figures"]["tunnel_tcp"], "rounds": ["1"]}}), "damaged"),
        (damaged(figures={"x": {**encode(REPORT)["figures"]["tunnel_tcp"], "rounds": [-1]}}), "damaged"),
        (damaged(figures={"x": {**encode(REPORT)["figures"]["tunnel_tcp"], "better": "blue"}}), "damaged"),
        (text().replace(b"[1.5,", b"[NaN,"), "damaged"),
        (damaged(seconds=True), "damaged"),
        (damaged(missing=[{"part": "x"}]), "damaged"),
        (damaged(missing=7), "damaged"),
        (damaged(machine={"memory_mb": "much"}), "damaged"),
        (damaged(machine={"versions": 3}), "damaged"),
        (damaged(before={"temperature_c": "hot"}, after={"temperature_c": "hot"}), "damaged"),
        (damaged(after={"throttling": 5}), "damaged"),
    ],
)
def test_a_damaged_report_is_refused_with_its_fault(data, words):
    with pytest.raises(UserError, match=words) as refused:
        decode_untrusted(data, "a.json")
    assert str(refused.value).startswith("a.json: ")


def test_a_better_figure_is_above_one_in_either_direction():
    faster = replace(REPORT, figures=(replace(RATE, rounds=(3.0,)), replace(COST, rounds=(0.25,))))
    assert [(row.figure.name, row.times) for row in compare(REPORT, faster)] == [
        ("tunnel_tcp", 2.0),
        ("tunnel_tcp_cpu", 2.0),
    ]
    assert [row.times for row in compare(faster, REPORT)] == [0.5, 0.5]


def test_rounds_that_overlap_are_no_difference():
    near = replace(REPORT, figures=(replace(RATE, rounds=(1.9, 2.5)), replace(COST, rounds=(0.7,))))
    assert [row.within_spread for row in compare(REPORT, near)] == [True, False]


def in_regime(rates: tuple[float, ...], bundles: tuple[float, ...]) -> Report:
    """Return a report of one machine: thousands of small packets a second, and how many were in a frame."""
    rate = Figure("link", "link_full_small", "packets of 100 bytes, bundled", "k packets/s", MORE, rates)
    bundle = Figure("link", "link_small_bundle", "small packets: in a frame", "packets/frame", MORE, bundles)
    return replace(REPORT, figures=(rate, bundle))


def test_two_regimes_of_one_machine_are_called_so_and_no_difference_of_it():
    full, wakes = in_regime((1700.0, 1650.0, 1720.0), (498.0, 470.0, 505.0)), in_regime((352.0, 340.0), (31.0, 27.0))
    (row, bundle) = compare(full, wakes)
    assert (row.within_spread, row.regimes_differ, bundle.regimes_differ) == (False, True, False)
    assert next(compare(full, full)).regimes_differ is False
    text = "\n".join(describe_comparison(full, wakes, [row, bundle]))
    assert re.search(r"bundled +1,700 +346 +k packets/s +0\.204 x  !", text), text
    assert "two regimes, no faster machine" in text


def test_a_machine_that_was_in_both_regimes_shows_no_difference_from_either():
    both = in_regime((1700.0, 352.0, 1690.0), (498.0, 31.0, 480.0))
    for one in (in_regime((1700.0, 1650.0), (498.0, 470.0)), in_regime((352.0, 361.0), (31.0, 27.0))):
        row = next(compare(one, both))
        assert row.within_spread


def test_every_figure_that_a_regime_decides_has_its_own():
    names = set(re.findall(r'"((?:link|tunnel)_[a-z_]+)"', (TREE / "conflux/bench/link.py").read_text()))
    names |= set(re.findall(r'"(tunnel_[a-z_]+)"', (TREE / "conflux/bench/tunnel.py").read_text()))
    assert {*REGIMES, *REGIMES.values()} <= names


def test_a_figure_of_one_report_alone_has_no_ratio():
    fewer = replace(REPORT, figures=(COST,))
    rows = {row.figure.name: row for row in compare(REPORT, fewer)}
    assert (rows["tunnel_tcp"].first, rows["tunnel_tcp"].second, rows["tunnel_tcp"].times) == (1.5, None, None)


def test_figures_of_other_units_are_not_divided():
    other = replace(REPORT, figures=(replace(RATE, unit="Mbit/s"),))
    assert [row.times for row in compare(REPORT, other)] == [None, None]


def test_nothing_is_divided_by_zero():
    nothing = replace(REPORT, figures=(replace(RATE, rounds=(0.0,)),))
    assert next(iter(compare(nothing, REPORT))).times is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (0.0521, "0.0521"),
        (0.5, "0.500"),
        (1.836, "1.84"),
        (12.44, "12.4"),
        (999.4, "999"),
        (1523, "1,520"),
        (2085123, "2,090,000"),
    ],
)
def test_figures_are_shown_in_three_digits(value, words):
    assert digits(value) == words


def test_facts_leave_out_what_is_unknown():
    known = dict(facts(REPORT))
    assert known["processor"] == "4 x Cortex-A76"
    assert known["instructions"] == "aes; not: sha2"
    assert known["frequency"] == "1500 to 2400 MHz possible, governor ondemand"
    assert known["temperature"] == "48.3°C before, 66°C after"
    assert known["throttling"] == "throttled (new during this bench)"
    assert "clock source" not in known


def test_conditions_that_spoil_figures_give_warnings():
    busy = replace(REPORT, before={**REPORT.before, "load_average": 3.0}, machine={"cpu_count": 4})
    assert [line.split(" (")[0] for line in warnings(busy)] == [
        "the machine was busy when the bench began",
        "the processor was held back: throttled",
    ]
    assert warnings(replace(REPORT, after=REPORT.before)) == []


def test_only_a_broken_part_is_a_failure():
    assert not REPORT.failed
    assert replace(REPORT, missing=(Missing("link", reports.FAILED, "it ended"),)).failed
