"""The report of `make bench-peers`: medians, ratios, table and chart."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from overlays.chart import chart
from overlays.fairness import Shares
from overlays.report import Findings, Run, column, short
from overlays.wire import Condition

CLEAN, LOSSY = Condition(""), Condition("lossy", rtt_ms=50, loss_percent=1)


def found(*runs: tuple[str, str, str, str, float]) -> Findings:
    about = {"machine": {"processor": "one", "cores": 2, "kernel": "6"}, "settings": {"rounds": 3}}
    findings = Findings((CLEAN, LOSSY), about)
    findings.runs += [Run(1, *run) for run in runs]
    return findings


FINDINGS = found(
    ("conflux", "direct", "", "tcp1_mbit", 900.0),
    ("conflux", "direct", "", "tcp1_mbit", 1000.0),
    ("conflux", "direct", "", "tcp1_mbit", 5000.0),
    ("conflux", "relay", "", "tcp1_mbit", 450.0),
    ("nebula", "direct", "", "tcp1_mbit", 400.0),
    ("bare", "direct", "", "tcp1_mbit", 20000.0),
    ("nebula", "direct", "lossy", "tcp1_mbit", 2.5),
)


def test_medians_stand_under_path_condition_and_figure() -> None:
    report = FINDINGS.as_json()
    assert report["direct_tcp1_mbit"] == {"conflux": 1000.0, "nebula": 400.0, "bare": 20000.0}
    assert report["relay_tcp1_mbit"] == {"conflux": 450.0}
    assert report["direct_lossy_tcp1_mbit"] == {"nebula": 2.5}
    assert report["spread"]["direct_tcp1_mbit"]["conflux"] == [900.0, 5000.0]
    assert len(report["runs"]) == 7


def test_ratios_divide_conflux_by_each_other_overlay() -> None:
    ratios = FINDINGS.as_json()["conflux_to_others"]
    assert ratios["direct_tcp1_mbit"] == {"nebula": 2.5, "bare": 0.05}
    assert set(ratios) == {"direct_tcp1_mbit"}
    assert FINDINGS.as_json()["relay_to_direct"] == {"tcp1_mbit": 0.45}


def test_the_table_marks_the_best_overlay_and_shows_what_is_missing() -> None:
    lines = FINDINGS.table().splitlines()
    names = lines[0].split()
    assert names[-5:] == ["conflux", "conflux", "relayed", "nebula", "bare"]
    assert lines[1].split()[-4:] == ["*1,000", "450", "400", "20,000"]
    assert lines[4].split()[-4:] == ["-", "-", "2.50", "-"]


@pytest.mark.parametrize(
    ("version", "head"),
    [
        ("wireguard-go 2026-05-22", "2026-05-22"),
        ("nebula 1.6.1+dfsg-2+b5", "1.6.1"),
        ("nebula 1.12.0 (without its own netlink)", "1.12.0"),
        ("conflux 0.1.0 84d5ffc-dirty", "0.1.0"),
        ("the kernel", ""),
    ],
)
def test_a_head_has_the_number_or_the_day_of_a_version(version: str, head: str) -> None:
    assert short(version) == head


def test_versions_stand_in_the_heads_of_the_table_the_json_and_the_chart() -> None:
    findings = found(("conflux", "direct", "", "tcp1_mbit", 9.0), ("nebula", "direct", "", "tcp1_mbit", 4.0))
    findings.about["versions"] = {"conflux": "conflux 0.1.0", "nebula": "nebula 1.12.0 (odd)"}
    assert findings.as_json()["heads"] == {"conflux": "0.1.0", "nebula": "1.12.0"}
    lines = findings.table().splitlines()
    assert lines[0].split()[-2:] == ["conflux", "nebula"]
    assert lines[1].split() == ["0.1.0", "1.12.0"]
    assert "conflux 0.1.0; nebula 1.12.0" in chart(findings)


def test_a_relayed_column_has_the_name_of_its_program() -> None:
    assert column("conflux", "relay") == "conflux relayed"
    assert column("nebula-offloads", "relay") == "nebula-offloads relayed"
    findings = found(("conflux", "relay", "", "tcp1_mbit", 9.0), ("nebula-offloads", "relay", "", "tcp1_mbit", 6.0))
    assert findings.as_json()["conflux_to_others"]["relay_tcp1_mbit"] == {"nebula-offloads": 1.5}
    assert "nebula-offloads relayed" in chart(findings)


def test_jains_index_is_one_for_equal_shares_and_a_half_for_none() -> None:
    assert Shares(20.0, 20.0).jain == 1.0
    assert Shares(40.0, 0.0).jain == 0.5
    assert Shares(0.0, 0.0).jain == 0.0


def test_the_chart_names_every_program_once_a_panel() -> None:
    picture = ElementTree.fromstring(chart(FINDINGS))
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("conflux relayed") == 1
    assert texts.count("nebula") == 2
    assert texts.count("1,000") == 1
