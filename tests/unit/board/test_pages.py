"""What the pages say of a flashed board is what the code does."""

from __future__ import annotations

import re

import pytest
from kit.tree import DOCS

from conflux.board.card import BoardSection, WifiSection
from conflux.board.light import UNINVITED
from conflux.board.wifi import Wifi, notice

FLASH = (DOCS / "how-to" / "flash-a-card.md").read_text()
TROUBLE = (DOCS / "how-to" / "trouble.md").read_text()


def test_every_key_of_the_card_is_on_the_page():
    keys = {
        f"{section}.{key}" for section, kind in (("board", BoardSection), ("wifi", WifiSection)) for key in kind._fields
    }
    assert set(re.findall(r"`((?:board|wifi)\.[a-z_]+)`", FLASH)) == keys


@pytest.mark.parametrize(
    ("said", "quoted"),
    [
        (UNINVITED, "in no realm, and the card has no invitation"),
        (notice(Wifi.REFUSED, "home", 0), "refuses this board"),
        (notice(Wifi.SEARCHING, "home", 99), "is not found"),
    ],
)
def test_what_a_board_says_is_on_the_page(said, quoted):
    assert quoted in said
    assert f"`{quoted}`" in TROUBLE
