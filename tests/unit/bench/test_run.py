"""A bench runs its parts one by one; a part that fails does not stop the others."""

import json
import sys

import pytest

from conflux.bench import child, link, pair
from conflux.bench.figure import LESS, Figure, PartFailed, PartSkipped, Plan, seconds_each
from conflux.bench.run import Findings, apart, run
from conflux.datapath import packet

QUICK = Plan.of(quick=True)
FIGURE = {"part": "start", "name": "x", "title": "an x", "unit": "ms", "better": LESS, "rounds": [1.0, 2.0]}


def said_by(*lines: dict[str, object], tail: str = "") -> Findings:
    """Return a child that writes lines, then does what tail says."""
    program = "".join(f"print({json.dumps(line)!r}, flush=True)\n" for line in lines) + tail
    findings = Findings(lambda line: None)
    child.run([sys.executable, "-c", program], QUICK, findings)
    return findings


def test_a_childs_findings_come_back():
    steps = []
    findings = Findings(steps.append)
    lines = [
        {"say": "step", "part": "start", "what": "an x"},
        {"say": "figure", "figure": FIGURE},
        {"say": "setting", "name": "mtu", "value": 4000},
        {"say": "done"},
    ]
    program = "".join(f"print({json.dumps(line)!r})\n" for line in lines)
    child.run([sys.executable, "-c", program], QUICK, findings)
    assert steps == ["start: an x"]
    assert findings.figures == [Figure("start", "x", "an x", "ms", LESS, (1.0, 2.0))]
    assert findings.settings == {"mtu": 4000}


def test_each_round_is_a_process_of_its_own():
    program = "import json, os; print(json.dumps({'say': 'step', 'part': 'start', 'what': 'x'}))\n"
    program += f"print(json.dumps({{'say': 'figure', 'figure': {FIGURE} | {{'rounds': [float(os.getpid())]}}}}))\n"
    program += "print(json.dumps({'say': 'done'}))"
    steps: list[str] = []
    findings = Findings(steps.append)
    apart([sys.executable, "-c", program])(QUICK, findings)
    (figure,) = findings.figures
    assert len(set(figure.rounds)) == QUICK.round_count
    assert steps == [f"start: x, round {number} of 3" for number in (1, 2, 3)]


def test_what_was_measured_before_a_process_fails_is_kept():
    findings = Findings(lambda line: None)
    program = f"import json; print(json.dumps({{'say': 'figure', 'figure': {FIGURE}}}), flush=True); 1 / 0"
    with pytest.raises(PartFailed, match="its process ended"):
        apart([sys.executable, "-c", program])(QUICK, findings)
    assert [figure.rounds for figure in findings.figures] == [(1.0, 2.0)]


def test_skipped_part_has_the_reason_of_the_child():
    with pytest.raises(PartSkipped, match="no device"):
        said_by({"say": "skipped", "why": "no device"})


def test_failed_part_has_the_error_of_the_child():
    with pytest.raises(PartFailed, match="it stood still"):
        said_by({"say": "failed", "why": "it stood still"})


def test_failed_part_has_the_last_line_of_a_child_that_dies():
    with pytest.raises(PartFailed, match="its process ended: ZeroDivisionError"):
        said_by({"say": "figure", "figure": FIGURE}, tail="1 / 0")


def test_a_child_that_is_killed_is_noticed():
    with pytest.raises(PartFailed, match="its process ended: exit code -9"):
        said_by(tail="import os; os.kill(os.getpid(), 9)")


def test_a_part_that_cannot_be_measured_leaves_the_others_alone():
    def skipped(plan, recorder):
        recorder.figure(Figure("tunnel", "t", "t", "ms", LESS, (1.0,)))
        raise PartSkipped("not here")

    def broken(plan, recorder):
        raise OSError(28, "No space left on device")

    def fine(plan, recorder):
        recorder.figure(Figure("ciphers", "c", "c", "ms", LESS, (1.0,)))
        recorder.setting("aead", "AES-256-GCM")

    lines = []
    report = run(QUICK, lines.append, {"tunnel": skipped, "link": broken, "ciphers": fine})
    assert [figure.name for figure in report.figures] == ["c", "t"]
    assert [(part.part, part.how) for part in report.missing] == [("tunnel", "skipped"), ("link", "failed")]
    assert "tunnel: skipped: not here" in lines
    assert report.settings == {"aead": "AES-256-GCM"}
    assert report.failed


def test_batch_counts_as_many_calls_as_it_returns():
    each = seconds_each(lambda: sum(1 for _ in range(1000)), Plan(True, 2, 0.001, 0, 0, 0))
    assert len(each) == 2
    assert all(0 < seconds < 0.0001 for seconds in each)


@pytest.mark.parametrize("data", [link.super_packet(60_000), link.small_packet(100)])
def test_generated_packets_are_valid(data):
    body = data[10:]
    assert int.from_bytes(body[2:4]) == len(body)
    words = [int.from_bytes(body[at : at + 2]) for at in range(0, 20, 2)]
    assert sum(words) % 0xFFFF == 0, "the header's checksum"
    source, destination, _ = packet.parse(body)
    assert (source, destination) == (pair.NEAR.packed, pair.FAR.packed)


def test_two_engines_carry_packets_both_ways():
    with pair.Pair() as two:
        assert two.open_s < pair._OPEN_S_MAX
        two.near.engine.packet(link.small_packet(100), 0.0)
        child.until(lambda: two.far.arrived == 1, "a packet", within_s=5, pause_s=0.001)
        head = bytearray(link.small_packet(100))
        head[22:26], head[26:30] = pair.FAR.packed, pair.NEAR.packed
        two.far.engine.packet(bytes(head), 0.0)
        child.until(lambda: two.near.arrived == 1, "the reply", within_s=5, pause_s=0.001)
        assert set(two.drops()) == {"near: tun-down", "far: tun-down"}


def test_waiting_has_an_end():
    with pytest.raises(PartFailed, match="godot did not come"):
        child.until(lambda: False, "godot", within_s=0.01, pause_s=0.001)
