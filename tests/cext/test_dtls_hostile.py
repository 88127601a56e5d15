"""dtls.c under the address and undefined-behaviour sanitizers, fed with anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

from dtls_records import SOURCES


def test_hostile_datagrams_neither_overrun_nor_leak(tmp_path: Path) -> None:
    program = tmp_path / "dtls_hostile"
    subprocess.run(
        [
            *("gcc", "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"),
            *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
            *(str(Path(__file__).with_name("dtls_hostile.c")), str(SOURCES / "dtls.c")),
            *("-o", str(program), "-lcrypto"),
        ],
        check=True,
    )
    for seed in range(3):
        done = subprocess.run([program, str(seed), "20000"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) > 10000
