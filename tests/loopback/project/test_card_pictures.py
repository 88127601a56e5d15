"""The pictures of flashing a card show what today's program says."""

from __future__ import annotations

import re
from runpy import run_path
from types import SimpleNamespace
from xml.sax.saxutils import unescape

import pytest
from kit.cards import MIB
from kit.tree import DOCS


@pytest.fixture(scope="module")
def pictures() -> SimpleNamespace:
    """Return what the script defines; it is no module of a package."""
    return SimpleNamespace(**run_path(str(DOCS / "pictures" / "card.py")))


def words(svg: str) -> str:
    """Return what stands in a picture, without figures: a smaller image takes less time."""
    said = " ".join(unescape(line) for line in re.findall(r"<text [^>]*>([^<]*)</text>", svg))
    return " ".join(re.sub(r"[\d.]+(?: [GM]B)?", "#", said).split())


def test_the_picture_of_writing_has_todays_words(pictures):
    today = pictures.picture("Terminal", pictures.written(160 * MIB, 8 * MIB))
    kept = (DOCS / "pictures" / "card-write.svg").read_text()
    assert words(today) == words(kept), "run make pictures, and commit docs/pictures/card-write.svg"


def test_the_picture_of_the_log_is_todays(pictures):
    kept = (DOCS / "pictures" / "card-log.svg").read_text()
    assert pictures.PICTURES["card-log.svg"]() == kept, "run make pictures, and commit docs/pictures/card-log.svg"
