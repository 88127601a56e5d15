"""The world that most tests of the native datapath start from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.native import Pair, World, world


@pytest.fixture
def made() -> Iterator[World]:
    """A world without nodes; what the test makes in it is closed afterwards."""
    with world() as one:
        yield one


@pytest.fixture
def pair(made: World) -> Pair:
    """A's stream to B over one open link."""
    return Pair(made)
