"""`conflux bench`: an output that cannot be written is refused before measuring; two reports are compared."""

import json
from dataclasses import replace

import pytest

from conflux.bench.figure import LESS, MORE, Figure
from conflux.bench.report import JSON_NAME, PAGE_NAME, Missing, Report, encode
from conflux.cli import parser

REPORT = Report(
    quick=False,
    seconds=70,
    machine={"board": "Pi 4", "cpu": "Cortex-A72", "kernel": "6.12", "versions": {"conflux": "0.1.0"}},
    before={},
    after={"at": "2026-11-22T10:01:11+00:00"},
    settings={"aead": "ChaCha20-Poly1305"},
    figures=(
        Figure("link", "link_bulk", "super-packets", "Gbit/s", MORE, (0.5, 0.6)),
        Figure("tunnel", "tunnel_ping_idle", "ping, idle", "ms", LESS, (0.8,)),
    ),
    missing=(),
)


def outcome(capsys, *arguments: object) -> tuple[int, str, str]:
    code = parser.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def two(tmp_path):
    pi5 = replace(
        REPORT,
        machine={**REPORT.machine, "board": "Pi 5", "cpu": "Cortex-A76"},
        figures=(replace(REPORT.figures[0], rounds=(1.1,)),),
        missing=(Missing("tunnel", "skipped", "no device"),),
    )
    paths = tmp_path / "pi4.json", tmp_path / "pi5.json"
    for path, report in zip(paths, (REPORT, pi5), strict=True):
        path.write_text(json.dumps(encode(report)))
    return paths


def test_two_reports_are_compared(capsys, two):
    code, out, err = outcome(capsys, "bench", "--compare", *two)
    assert (code, err) == (0, "")
    assert "board\n  A  Pi 4\n  B  Pi 5" in out
    assert "conflux" in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "super-packets 0.550 1.10 Gbit/s 2.00 x" in lines
    assert "ping, idle 0.800 - ms -" in lines
    assert "B: tunnel: skipped: no device" in lines


def test_a_comparison_is_json_too(capsys, two):
    code, out, _ = outcome(capsys, "bench", "--compare", *two, "--json")
    assert code == 0
    rows = json.loads(out)["figures"]
    assert rows["link_bulk"] == {
        "unit": "Gbit/s",
        "a": 0.55,
        "b": 1.1,
        "b_times_as_good": 2.0,
        "within_spread": False,
        "regimes_differ": False,
    }
    assert rows["tunnel_ping_idle"]["b"] is None


def test_a_report_cannot_steer_the_terminal(capsys, two):
    steering = replace(REPORT, machine={**REPORT.machine, "board": "\x1b]0;owned\x07 Pi"})
    two[1].write_text(json.dumps(encode(steering)))
    code, out, _ = outcome(capsys, "bench", "--compare", *two)
    assert code == 0
    assert "\x1b" not in out
    assert "?]0;owned? Pi" in out


def test_a_file_that_is_no_report_is_named(capsys, two, tmp_path):
    two[1].write_text("{}")
    assert outcome(capsys, "bench", "--compare", *two) == (
        1,
        "",
        f"conflux: {two[1]}: not a report of `conflux bench` (its conflux-bench.json is wanted)\n",
    )
    code, _, err = outcome(capsys, "bench", "--compare", two[0], tmp_path / "none.json")
    assert (code, err) == (1, f"conflux: cannot read {tmp_path / 'none.json'}: No such file or directory\n")


def test_comparing_measures_nothing(capsys, two):
    code, _, err = outcome(capsys, "bench", "--quick", "--compare", *two)
    assert code == 2
    assert "--compare measures nothing" in err


def test_an_output_that_cannot_be_written_is_refused_at_once(capsys, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    code, out, err = outcome(capsys, "bench", "--quick", "--out", file)
    assert (code, out, err) == (1, "", f"conflux: cannot write to {file}: it is not a directory\n")
    code, out, err = outcome(capsys, "bench", "--quick", "--out", file / "below")
    assert (code, out, err) == (1, "", f"conflux: cannot write to {file / 'below'}: Not a directory\n")
    code, out, err = outcome(capsys, "bench", "--quick", "--out", "/proc/nowhere")
    assert (code, out) == (1, "")
    assert err.startswith("conflux: cannot write to /proc/nowhere: ")


@pytest.mark.parametrize("name", [JSON_NAME, PAGE_NAME])
def test_a_report_that_is_there_is_not_replaced_unasked(capsys, tmp_path, monkeypatch, name):
    kept = tmp_path / name
    kept.write_text("what was there")
    code, out, err = outcome(capsys, "bench", "--quick", "--out", tmp_path)
    assert (code, out) == (1, "")
    assert err == f"conflux: {kept} is there already: --force replaces it, or give another name\n"
    assert kept.read_text() == "what was there"
    monkeypatch.setenv("CONFLUX_PURE", "1")  # so that it comes no further
    assert "CONFLUX_PURE" in outcome(capsys, "bench", "--quick", "--out", tmp_path, "--force")[2]


def test_the_twin_is_not_measured_in_place_of_the_engine(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("CONFLUX_PURE", "1")
    code, _, err = outcome(capsys, "bench", "--quick", "--out", tmp_path)
    assert code == 1
    assert "CONFLUX_PURE=1 is set" in err
