"""The small C parts when allocations fail, under the address sanitizer: each call says so, and changes nothing."""

from __future__ import annotations

import subprocess
from collections import Counter

from kit.driven import ALLOCATION, build

SOURCES = ("anchor/aead.c", "base/map.c", "dtls/dtls.c", "packet/packet.c", "queue/queue.c", "stun/stun.c")


def test_a_part_that_gets_no_memory_says_so_and_changes_nothing() -> None:
    program = build("base/base_memory.c", *SOURCES, wrapped=ALLOCATION, libraries=("crypto",))
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    failed: Counter[str] = Counter()
    for name, count, told in map(str.split, done.stdout.splitlines()):
        assert int(told) == int(count), f"{name} went on without the memory that it wanted"
        failed[name] += int(count)
    assert failed["map"] > 3  # the table grew several times
    assert all(failed[name] > 0 for name in ("queue", "packet", "records", "stun"))
