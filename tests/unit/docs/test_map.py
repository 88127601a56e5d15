"""The picture of the rooms is what the command makes of the code as it is."""

from __future__ import annotations

import re
from itertools import pairwise
from runpy import run_path
from types import SimpleNamespace

import pytest
from kit.tree import DOCS


@pytest.fixture(scope="module")
def map_() -> SimpleNamespace:
    """Return what the script defines; it is no module of a package."""
    return SimpleNamespace(**run_path(str(DOCS / "pictures" / "map.py")))


def test_the_map_is_of_todays_imports(map_):
    assert map_.picture() == map_.PICTURE.read_text(), "run make map, and commit docs/pictures/map.svg"


def test_the_floors_of_the_page_are_those_of_the_house(map_):
    page = (DOCS / "explanation" / "architecture.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE)
    assert {int(floor): set(re.findall(r"\w+", rooms)) for floor, rooms in rows} == {
        floor: set(rooms) for floor, rooms in enumerate(map_.house("FLOORS"))
    }


def test_an_arrow_that_a_longer_way_implies_is_left_out(map_):
    edges = {("cli", "daemon"), ("daemon", "node"), ("cli", "node")}
    assert map_.reduced(edges) == [("cli", "daemon"), ("daemon", "node")]


def test_places_of_a_row_do_not_overlap(map_):
    floors = {"a": 2, "b": 1, "c": 1, "d": 0}
    rows, _ = map_.placed(floors, [("a", "b"), ("a", "c"), ("a", "d"), ("b", "d"), ("c", "d")])
    map_.spread(rows)
    for row in rows:
        for left, right in pairwise(row):
            assert left.x + left.width / 2 < right.x - right.width / 2
