"""What is kept of an update, and what a boot means for it."""

from __future__ import annotations

import json

import pytest

from conflux.board.trial import NO_START, Boot, Peer, Result, Trial, meaning, notice

TRIAL = Trial("B", "0.2.0", "A", "0.1.0+1", "boot-1", True, ("own.service",), (Peer("node-1", "kitchen"),))
RESULT = Result("0.2.0", "B", "0.1.0+1", False, NO_START, 1796000000)


def test_both_records_come_back_as_they_went():
    assert Trial.parse(TRIAL.encode()) == TRIAL
    assert Result.parse(RESULT.encode()) == RESULT


@pytest.mark.parametrize(
    ("slot", "boot", "meant"),
    [("A", "boot-1", Boot.PENDING), ("B", "boot-2", Boot.TRIAL), ("A", "boot-2", Boot.FELL_BACK)],
)
def test_slot_and_boot_say_what_a_boot_means(slot, boot, meant):
    assert meaning(TRIAL, slot, boot) is meant


def test_without_an_update_a_boot_means_nothing():
    assert meaning(None, "A", "boot-2") is Boot.NONE


def test_a_notice_says_what_runs_what_does_not_and_why():
    assert notice(RESULT) == (
        "update: 0.2.0 was not taken, so 0.1.0+1 runs on: the board was restarted, and it did not start"
    )
    assert notice(RESULT._replace(good=True)) == ""


@pytest.mark.parametrize("cut", range(0, len(TRIAL.encode()) - 2, 7))
def test_a_record_that_is_cut_short_is_refused(cut):
    with pytest.raises(ValueError, match=r"."):
        Trial.parse(TRIAL.encode()[:cut])


@pytest.mark.parametrize(
    "changed",
    [
        {"slot": "C"},
        {"slot": None},
        {"version": "new"},
        {"version": 1},
        {"boot": ""},
        {"failed": "x"},
        {"peers": {}},
        {"peers": [1]},
        {"peers": [{"node": "a"}]},
        {"peers": [{"node": "a", "name": "b"}] * 17},
        {"former_version": "1" * 500},
    ],
)
def test_a_record_that_makes_no_sense_is_refused(changed):
    with pytest.raises(ValueError, match=r"."):
        Trial.parse(json.dumps(json.loads(TRIAL.encode()) | changed))


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 16000, "{" * 16000, "x" * 20000, "{}"])
def test_noise_is_refused(text):
    for record in (Trial, Result):
        with pytest.raises(ValueError, match=r"."):
            record.parse(text)


def test_what_is_not_printable_is_not_shown():
    said = json.loads(RESULT.encode()) | {"why": "a\x1b[2J\nb"}
    assert "\x1b" not in notice(Result.parse(json.dumps(said)))
    assert "\n" not in notice(Result.parse(json.dumps(said)))
