"""Two associations that are open, and one whose peer breaks rules."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
from kit.forger import (
    Forger,
)
from kit.sctp import (
    MS,
    Association,
    opened_pair,
    run_until,
)


@pytest.fixture
def pair(sctp: ctypes.CDLL) -> Iterator[tuple[Association, Association]]:
    a, b = opened_pair(sctp)
    run_until(a, b, 0, 50 * MS)
    yield a, b
    a.delete()
    b.delete()


@pytest.fixture
def forger(sctp: ctypes.CDLL, pair: tuple[Association, Association]) -> Forger:
    return Forger(sctp, *pair)
