"""The compiled frame codec with gcc's address and undefined-behaviour sanitizers, beside the one that is installed.

It does not share a process with atheris: gcc's sanitizer library brings coverage functions that replace libFuzzer's.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

VARIABLE = "CONFLUX_FUZZ_CODEC"


def build(root: Path, directory: Path) -> dict[str, str]:
    """Build the codec below directory if its sources are newer; return the environment of a process that uses it."""
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", str(directory)]
    environment = dict(os.environ, CONFLUX_SANITIZE="address,undefined")
    subprocess.run(command, cwd=root, env=environment, check=True)
    return {
        VARIABLE: str(next(directory.glob("conflux/anchor/_codec.*.so"))),
        "LD_PRELOAD": f"{_library('libasan.so')} {_library('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0",  # those of the interpreter itself, at its end
        "PYTHONMALLOC": "malloc",  # in Python's own arenas a read that goes too far stays inside memory that is allowed
    }


def _library(name: str) -> str:
    asked = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, check=True, text=True)
    return asked.stdout.strip()


def load() -> None:
    """Put the build that the environment names where imports of conflux.anchor._codec find it; no-op without."""
    if VARIABLE not in os.environ:
        return
    spec = importlib.util.spec_from_file_location("conflux.anchor._codec", os.environ[VARIABLE])
    assert spec is not None
    assert spec.loader is not None
    codec = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(codec)
