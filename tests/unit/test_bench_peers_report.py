"""What is made of the numbers of `make bench-peers`."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
sys.path += [str(TREE / "tests" / "lab"), str(TREE / "bench" / "peers")]

from chart import chart  # noqa: E402
from fairness import Shares  # noqa: E402
from report import Findings, Run  # noqa: E402
from wire import Condition  # noqa: E402

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


def test_ratios_say_how_many_times_the_others_conflux_reaches() -> None:
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
