"""Labs run as root of a machine of their own; enter.py makes it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from rig.enter import RESULTS_FD
from rig.topology import SETTINGS, Lab

collect_ignore_glob = [] if RESULTS_FD in os.environ else ["test_*", "*/test_*"]  # they need namespaces: `make lab`


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab for one test."""
    lab = Lab(SETTINGS)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    """A lab that the tests of one file use one after another."""
    lab = Lab(SETTINGS)
    yield lab
    lab.close()
