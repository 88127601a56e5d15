"""What is dear because somebody who guesses shall pay is dear in one unit test only."""

from __future__ import annotations

import pytest

from conflux.crypto import passphrase


@pytest.fixture
def quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a passphrase's key take 128 KiB and no time."""
    monkeypatch.setattr(passphrase, "LOG_N", 7)
