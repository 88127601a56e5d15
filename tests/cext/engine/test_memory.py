"""The engine's tables when allocations fail, under the address sanitizer: each call says so, and succeeds later."""

from __future__ import annotations

import subprocess

from kit.driven import ALLOCATION, build
from kit.tree import CEXT

CYTHON = {path.with_suffix(".c") for path in CEXT.rglob("*.pyx")}  # what Cython leaves beside its sources
SOURCES = sorted(str(path.relative_to(CEXT)) for path in {*CEXT.glob("*/*.c")} - CYTHON)


def test_a_call_that_gets_no_memory_says_so_and_changes_nothing() -> None:
    program = build("engine/memory_driver.c", *SOURCES, wrapped=ALLOCATION, libraries=("crypto", "pthread"))
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = {name: (int(failed), int(told)) for name, failed, told in map(str.split, done.stdout.splitlines())}
    assert set(said) == {
        *("engine", "configure", "egress", "addresses", "sender", "receiver", "label", "entry", "link", "channel"),
        *("relay", "packet"),
    }
    for name, (failed, told) in said.items():
        assert failed > 0, name
        assert told == failed, name
