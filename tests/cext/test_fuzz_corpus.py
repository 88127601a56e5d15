"""The kept corpora of the C fuzz targets, through the same harnesses, built by gcc with sanitizers."""

from __future__ import annotations

import subprocess

import pytest
from fuzz.native import NATIVE
from kit import compile
from kit.tree import CEXT, TREE

FUZZ = TREE / "tests" / "fuzz"
FILE_COUNT_MAX, BYTES_MAX = 60, 65536  # of a corpus: it is read at every push


@pytest.mark.parametrize("target", sorted(NATIVE))
def test_every_kept_input_of_a_c_target_passes(target: str) -> None:
    native = NATIVE[target]
    files = sorted((FUZZ / "corpus" / target).iterdir())
    assert 0 < len(files) <= FILE_COUNT_MAX
    assert sum(path.stat().st_size for path in files) <= BYTES_MAX
    sources = (FUZZ / native.harness, FUZZ / "replay_c.c", *(CEXT / name for name in native.sources))
    included = (FUZZ / "script.h", *(CEXT / name for name in native.included))
    program = compile.build(*sources, options=compile.ADDRESS, libraries=native.libraries, included=included)
    done = subprocess.run([program, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
