"""What one DTLS record costs: OpenSSL's own record layer beside cext/dtls.c, in alternating runs.

python bench/dtls_records.py [RUN_COUNT]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE.parent / "cext"
PAYLOAD_BYTES = 1400


def main(run_count: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "dtls_records"
        subprocess.run(
            [
                *("gcc", "-std=c11", "-D_GNU_SOURCE", "-O3", "-Wall", "-Wextra", f"-I{SOURCES}"),
                *(str(HERE / "dtls_records.c"), str(SOURCES / "dtls.c"), "-o", str(program), "-lssl", "-lcrypto"),
            ],
            check=True,
        )
        done = subprocess.run([program, str(PAYLOAD_BYTES), str(run_count)], check=True, capture_output=True, text=True)
    print(f"ns per record of {PAYLOAD_BYTES} bytes, medians of {run_count} alternating runs")
    print(f"{'suite':32}{'OpenSSL seal':>14}{'open':>8}{'ours seal':>12}{'open':>8}")
    for line in done.stdout.splitlines():
        row = json.loads(line)
        print(
            f"{row['suite']:32}{row['openssl_seal_ns']:14}{row['openssl_open_ns']:8}"
            f"{row['ours_seal_ns']:12}{row['ours_open_ns']:8}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
