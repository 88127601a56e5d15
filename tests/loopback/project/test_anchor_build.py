"""What stands around the codec: its choice, its stub, and the AEAD this machine prefers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from conflux.anchor import codec, frame
from conflux.anchor.speed import best_aead, prefer

# As if the extension had never been built.
WITHOUT_EXTENSION = """
import sys
sys.modules["conflux.anchor._codec"] = None
from conflux.errors import UserError
try:
    from conflux.anchor import codec
except UserError as error:
    print("refused:", error)
else:
    print("runs:", codec.Sender.__module__)
"""


def run(source: str, **environment: str) -> str:
    done = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_missing_extension_says_what_to_do() -> None:
    said = run(WITHOUT_EXTENSION)
    assert said.startswith("refused:")
    assert "setup.py build_ext --inplace" in said
    assert "CONFLUX_PURE=1" in said


def test_twin_runs_only_when_asked_for_by_name() -> None:
    assert run(WITHOUT_EXTENSION, CONFLUX_PURE="1") == "runs: conflux.anchor._codec_py\n"
    for value in ("0", "", "true"):
        assert run(WITHOUT_EXTENSION, CONFLUX_PURE=value).startswith("refused:")
    found = "from conflux.anchor import codec; print(codec.Sender.__module__)"
    assert run(found) == "conflux.anchor._codec\n"


def test_stub_says_what_the_extension_has() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "conflux.anchor._codec"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_best_aead_is_one_of_ours_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = best_aead()
    assert chosen in frame.AEAD_NAMES
    monkeypatch.setattr(codec, "Sender", None)  # measuring again would fail
    assert best_aead() == chosen


def test_chacha_is_chosen_only_where_it_is_clearly_faster() -> None:
    assert prefer(aes_s=5.0, chacha_s=1.0) == frame.CHACHA20_POLY1305
    assert prefer(aes_s=1.0, chacha_s=0.95) == frame.AES_256_GCM
    assert prefer(aes_s=1.0, chacha_s=5.0) == frame.AES_256_GCM
