"""What would make unit tests slow and say nothing in them: waiting for a disk, and what a passphrase costs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from conflux.crypto import passphrase


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Files of a unit test need not outlive a power cut; a test of what is written when notes the calls itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a passphrase's key take 128 KiB and no time."""
    monkeypatch.setattr(passphrase, "LOG_N", 7)
