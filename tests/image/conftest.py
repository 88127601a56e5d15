"""These tests run as root of a machine of their own, as labs do: `make test-image`.

The boards of `desk` are flashed and switched on once, for all tests of a run: a first boot takes minutes here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from image.desk import Desk
from rig.enter import RESULTS_FD

collect_ignore_glob = [] if RESULTS_FD in os.environ else ["test_*", "long_*"]


@pytest.fixture(scope="session")
def desk() -> Iterator[Desk]:
    """Two boards that joined the founder's realm from their cards, and one with a wrong card."""
    desk = Desk()
    try:
        desk.first_boots()
        yield desk
    finally:
        desk.close()
