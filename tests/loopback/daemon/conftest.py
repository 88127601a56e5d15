"""What the tests of the daemon share."""

import os
import signal
from pathlib import Path

import pytest

from conflux.state.directory import StateDir
from conflux.state.founding import found_realm


@pytest.fixture
def member(tmp_path: Path) -> Path:
    """Return the state directory of a realm's first node."""
    path = tmp_path / "state"
    state = StateDir.open(path, create=True)
    found_realm(state, "home", "gate", now_unix=1_800_000_000, entropy=os.urandom)
    return path


@pytest.fixture(autouse=True)
def _hangup():
    """Restore what SIGHUP does: a daemon without a terminal ignores it, and processes that are started inherit that."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)
