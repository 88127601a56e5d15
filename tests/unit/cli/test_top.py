"""`conflux top`: one picture, in any width, and what a hostile peer can do to a terminal."""

from __future__ import annotations

import pytest
from kit.answers import HOSTILE, status

from conflux.cli.top import BARS, Traffic, frame, spark

PAST = [Traffic(1.0, 0.5), Traffic(None, None), Traffic(8.0, 0.25)]


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(columns):
    assert max(map(len, frame(status(), PAST, columns=columns, bars=BARS))) <= columns


def test_in_eighty_columns_everything_is_there():
    text = "\n".join(frame(status(warnings=["the clock is wrong"]), PAST, columns=80, bars=BARS))
    for words in (
        "attic in realm home, up 2 h 1 min",
        "! the clock is wrong",
        "8.0 Mbit/s",
        "barn    by cellar",
        "8.4 MB  1.3 MB",
        "left the LAN",
        "to barn    flowing    cellar",
        "943 Mbit/s",
        "spoofed",
    ):
        assert words in text
    assert "aged" not in text  # a healthy network has it


def test_forty_columns_have_half_of_the_cells_and_no_cut_word():
    lines = frame(status(), PAST, columns=40, bars=BARS)
    assert not any(line.endswith(">") for line in lines)
    assert any("by cellar" in line for line in lines)


def test_a_device_that_is_down_is_said():
    device = status()["device"] | {"up": False}
    assert "! conflux0 is DOWN: packets do not pass" in frame(status(device=device), [], columns=80, bars="")


def test_a_board_alone_says_so():
    text = "\n".join(frame(status(nodes=[], streams=[], links=[], drops={}), [], columns=80, bars=BARS))
    assert "nodes: no other is known yet" in text
    assert "links: none, no data-plane socket is open" in text


def test_a_hostile_name_steers_no_terminal():
    streams = [status()["streams"][0] | {"name": HOSTILE}]
    lines = frame(status(streams=streams, warnings=["\x1b]0;title\x07\n"]), [], columns=80, bars=BARS)
    assert all(line.isprintable() for line in lines)


def test_a_plot_grows_to_the_highest_value_and_has_gaps():
    assert spark([0.0, 4.0, None, 8.0], BARS) == "▁▅ █"
    assert spark([0.0, 0.0], BARS) == "▁▁"
    assert spark([1.0], "") == ""
