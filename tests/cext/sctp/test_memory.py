"""The association when allocations fail: every one of a life in turn, under the address sanitizer."""

from __future__ import annotations

import re
import subprocess

from kit.driven import ALLOCATION, build
from kit.sctp import SOURCES


def test_an_association_survives_any_failed_allocation() -> None:
    program = build("sctp/sctp_memory.c", *SOURCES, wrapped=ALLOCATION, libraries=("crypto",))
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        lives, starved, wrong, came = map(int, re.findall(r"\d+", line))
        assert lives > 100  # each with another allocation that failed
        assert starved > 0
        assert wrong == 0
        assert came > 60  # the last life had all it wanted
