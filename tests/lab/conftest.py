"""Labs run as root of a machine of their own; enter.py makes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from enter import RESULTS_FD
from topology import Lab

# Short enough that a test can wait for idleness, long enough that a busy machine does not go idle in between.
SETTINGS: dict[str, dict[str, Any]] = {"stream": {"idle_timeout": 2.0}, "link": {"linger": 0.5}}


def pytest_configure() -> None:
    if RESULTS_FD not in os.environ:
        raise pytest.UsageError("labs need namespaces: run `make lab`, or tests/lab/enter.py -m pytest tests/lab/...")


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab(SETTINGS)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    """A lab that the tests of one file use one after another."""
    lab = Lab(SETTINGS)
    yield lab
    lab.close()
