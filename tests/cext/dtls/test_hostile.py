"""dtls.c under the address and undefined-behaviour sanitizers, with random and mutated input."""

from __future__ import annotations

import subprocess

from kit.driven import build


def test_hostile_datagrams_neither_overrun_nor_leak() -> None:
    program = build("dtls/dtls_hostile.c", "dtls/dtls.c", libraries=("crypto",))
    for seed in range(3):
        done = subprocess.run([program, str(seed), "20000"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) > 10000
