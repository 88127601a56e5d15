"""Which bundle a board takes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from conflux.board.release import Image, Version, refusal

SAID = "BOARD=rpi4\nVERSION=0.3.0+20261201\nCOMPATIBLE=conflux-rpi4\n"
IMAGE = Image.parse(SAID, "0.2.0\n")


def test_versions_are_ordered_by_number_and_not_by_letter():
    rising = ["0.1", "0.1.0+9", "0.1.0+10", "0.1.0+10.1", "0.1.1", "0.2", "0.10", "1", "1.0.0.1"]
    for lower, higher in pairwise(rising):
        assert Version.parse(lower) < Version.parse(higher)


def test_numbers_that_are_left_out_are_zero():
    assert Version.parse("0.2") == Version.parse("0.2.0") == Version.parse("0.2.0.0")


@pytest.mark.parametrize(
    "text",
    ["", "v1", "1.", ".1", "1..2", "1.2.3.4.5", "1+", "1+a", "1-2", " 1", "1\n", "\u0661", "9" * 10, "1+" + "1" * 99],
)
def test_what_is_no_version_is_refused(text):
    with pytest.raises(ValueError, match="no version"):
        Version.parse(text)


def test_a_bundle_of_this_board_that_is_not_too_old_is_taken():
    for version in ("0.2.0", "0.2.0+1", "0.3.0+20261201", "0.4"):
        assert refusal("conflux-rpi4", version, IMAGE) is None


def test_a_bundle_below_the_floor_is_refused_and_both_versions_are_said():
    why = refusal("conflux-rpi4", "0.1.9+20991231", IMAGE)
    assert why == "version 0.1.9+20991231 is older than 0.2.0, the oldest that 0.3.0+20261201 goes back to"


def test_a_bundle_for_another_board_is_refused_and_both_boards_are_said():
    assert refusal("conflux-rpi3", "9.9", IMAGE) == "it is for conflux-rpi3, and this board is conflux-rpi4"


def test_a_bundle_without_a_version_is_refused():
    assert "no version" in str(refusal("conflux-rpi4", "latest\x1b[2J", IMAGE))
    assert "\x1b" not in str(refusal("conflux-rpi4", "latest\x1b[2J", IMAGE))


def test_what_an_image_says_of_itself_is_read():
    assert Image("rpi4", "0.3.0+20261201", "conflux-rpi4", "0.2.0") == IMAGE


@pytest.mark.parametrize(
    ("said", "floor"),
    [
        ("", "1"),
        ("BOARD=\nVERSION=1\nCOMPATIBLE=c\n", "1"),
        ("BOARD=a b\nVERSION=1\nCOMPATIBLE=c\n", "1"),
        (SAID, ""),
        (SAID, "new"),
        ("BOARD=a\nVERSION=new\nCOMPATIBLE=c\n", "1"),
        (SAID + "X" * 5000, "1"),
    ],
)
def test_an_image_that_says_no_sense_is_refused(said, floor):
    with pytest.raises(ValueError, match=r"."):
        Image.parse(said, floor)
