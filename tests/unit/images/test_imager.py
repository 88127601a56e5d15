"""What Raspberry Pi Imager reads."""

from __future__ import annotations

import json

import pytest
from kit.tree import TREE
from recipe.board import RecipeError
from recipe.imager import Entry, repository

ENTRY = Entry("Conflux", "it", "https://x/y.img.zst", 3, "aa", 2, "bb", "2026-12-01", ("pi3-64bit",))
TEMPLATE = (TREE / "images/imager.json.in").read_text()


def test_an_image_has_what_imager_needs_to_check_it():
    (listed,) = json.loads(repository(TEMPLATE, [ENTRY]))["os_list"]
    assert {"name", "description", "url", "extract_size", "extract_sha256", "image_download_size"} < set(listed)
    assert listed["image_download_sha256"] == "bb"
    assert listed["devices"] == ["pi3-64bit"]


def test_what_all_images_share_comes_from_the_template():
    listed = json.loads(repository('{"every": {"init_format": "none"}}', [ENTRY, ENTRY]))["os_list"]
    assert [each["init_format"] for each in listed] == ["none", "none"]


def test_a_board_that_imager_does_not_know_is_offered_for_all():
    entry = Entry("Conflux", "it", "u", 3, "aa", 2, "bb", "2026-12-01", ())
    assert "devices" not in json.loads(repository(TEMPLATE, [entry]))["os_list"][0]


@pytest.mark.parametrize("template", ["", "[]", "{}", '{"every": 1}'])
def test_a_wrong_template_is_named(template):
    with pytest.raises(RecipeError, match=r"images/imager\.json\.in"):
        repository(template, [])
