"""The verdict of `make soak-full` on its samples, and their picture."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest
from rig.soak_chart import LEFT, PANELS, WIDTH, chart
from rig.topology import LabFailure
from soak import Sample, Verdict, judge

HALF_AN_HOUR_S = 1800
SVG = "{http://www.w3.org/2000/svg}"


def seen(
    allocated_mb: Callable[[float], float],
    descriptors: Callable[[float], int] = lambda at_s: 27,
    threads: Callable[[float], int] = lambda at_s: 2,
    over_s: int = HALF_AN_HOUR_S,
) -> list[Sample]:
    return [
        Sample("alpha", at_s, True, threads(at_s), descriptors(at_s), 60.0, 50.0, allocated_mb(at_s), {})
        for at_s in range(10, over_s + 1, 10)
    ]


def verdict(samples: list[Sample]) -> Verdict:
    return judge(samples, "alpha")


def test_chance_and_the_first_minutes_are_no_growth() -> None:
    chance = random.Random(1)
    judged = verdict(seen(lambda at_s: min(33 + at_s / 100, 37) + chance.uniform(-1, 1)))
    assert judged.faults == []


def test_a_slow_leak_is_found_under_noise() -> None:
    chance = random.Random(1)
    (fault,) = verdict(seen(lambda at_s: 33 + 9 * at_s / 3600 + chance.uniform(-1, 1))).faults
    assert fault.startswith("alpha: memory grew by")


def test_one_burst_is_no_growth_and_hides_none() -> None:
    assert verdict(seen(lambda at_s: 60 if at_s == HALF_AN_HOUR_S else 33)).faults == []
    assert len(verdict(seen(lambda at_s: 60 if at_s < 600 else 33 + 9 * at_s / 3600)).faults) == 1


def test_a_descriptor_or_a_thread_more_is_growth() -> None:
    def late(before: int) -> Callable[[float], int]:
        return lambda at_s: before + (at_s > 1000)

    faults = verdict(seen(lambda at_s: 33, late(27), late(2))).faults
    assert faults == ["alpha: threads grew from 2 to 3", "alpha: descriptors grew from 27 to 28"]


def test_a_descriptor_open_for_a_moment_is_none() -> None:
    assert verdict(seen(lambda at_s: 33, lambda at_s: 27 + (at_s == HALF_AN_HOUR_S))).faults == []


def test_a_short_run_says_nothing_about_an_hour() -> None:
    assert verdict(seen(lambda at_s: 33 + at_s / 10, over_s=120)).faults == []
    with pytest.raises(LabFailure, match="too few"):
        verdict(seen(lambda at_s: 33, over_s=40))


@pytest.mark.parametrize("over_s", [HALF_AN_HOUR_S, HALF_AN_HOUR_S + 10, HALF_AN_HOUR_S + 60])
def test_no_word_in_the_picture_is_cut_off(over_s: int) -> None:
    picture = chart(seen(lambda at_s: 33, over_s=over_s), {"machine": "here", "rounds": 3, "gbit_carried": 12.5})
    shift = {"start": 0.0, "middle": 0.5, "end": 1.0}
    minutes = 0
    for group in ElementTree.fromstring(picture).iter(f"{SVG}g"):
        for word in group.iter(f"{SVG}text"):
            size, said = float(word.get("font-size", "")), word.text or ""
            wide = 0.6 * size * len(said)  # wider than these letters are on average
            left = LEFT + float(word.get("x", "")) - shift[word.get("text-anchor", "")] * wide
            assert left >= 0, said
            assert left + wide <= WIDTH, said
            minutes += said.endswith(" min")
    assert minutes == len(PANELS) * len(range(0, over_s // 60 + 1, 5))


def test_the_picture_is_whole_and_has_every_host() -> None:
    picture = chart(seen(lambda at_s: 33), {"machine": "a < b", "rounds": 3, "gbit_carried": 12.5})
    words = [element.text for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]
    assert "alpha" in words
    assert any("a < b" in (word or "") for word in words)
