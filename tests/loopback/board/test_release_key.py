"""The key that signs a bundle: it is in the build folder for no longer than RAUC runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest
from kit.tree import TREE
from recipe.board import load
from recipe.card import Card
from recipe.stages import Stages
from recipe.workshop import Workshop

SECRET = b"the release key"


class Shop:
    """A workshop whose RAUC fails, or makes a bundle."""

    tree = TREE

    def __init__(self, *, fails: bool) -> None:
        self._fails = fails
        self.seen: list[bytes] = []

    def tool(self, command: list[Any], log: str, extra: object = None) -> None:
        """Look at the key, and do what RAUC would."""
        key = next(word for word in command if str(word).startswith("--key="))
        self.seen.append(Path(str(key).partition("=")[2]).read_bytes())
        if self._fails:
            raise OSError("no room is left")
        Path(command[-1]).write_bytes(b"bundle")


class Signed(Card):
    """A card of which only the bundle is made.  Its other stages are a folder."""

    def system(self) -> Path:
        """Return the folder of everything."""
        return self.keys

    boot = system


@pytest.mark.parametrize("fails", [True, False])
def test_the_release_key_stays_nowhere_also_if_the_bundle_fails(tmp_path, fails):
    keys, cache = tmp_path / "keys", tmp_path / "cache"
    keys.mkdir()
    cache.mkdir()
    for name in ("release.pem", "keyring.pem", "system.img", "boot.vfat"):
        (keys / name).write_text(name)
    (keys / "release.key").write_bytes(SECRET)
    shop = Shop(fails=fails)
    stages = Stages(cache, lambda line: None)
    card = Signed(cast(Workshop, shop), stages, load(TREE / "images/boards", "rpi4"), cast(Any, None), "1.2.3", keys)
    if fails:
        with pytest.raises(OSError, match="no room"):
            card.bundle()
    else:
        card.bundle()
    assert shop.seen == [SECRET]
    left = [Path(folder) / name for folder, _, names in os.walk(cache) for name in names]
    assert not [path for path in left if SECRET in path.read_bytes()]
