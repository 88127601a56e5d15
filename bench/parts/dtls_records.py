"""What one DTLS record costs: OpenSSL's own record layer beside cext/dtls/dtls.c, in alternating runs.

Run by `make bench-parts`; alone: dtls_records.py [RUN_COUNT]
"""

from __future__ import annotations

import json
import sys

from compiled import output_of

PAYLOAD_BYTES = 1400
RUN_COUNT = 15


def main(run_count: int = RUN_COUNT) -> None:
    """Print one line per cipher suite."""
    said = output_of(
        "dtls_records",
        str(PAYLOAD_BYTES),
        str(run_count),
        parts=("dtls/dtls.c",),
        libraries=("-lssl", "-lcrypto"),
    )
    print(f"DTLS: ns per record of {PAYLOAD_BYTES} bytes, medians of {run_count} alternating runs")
    print(f"{'suite':32}{'OpenSSL seal':>14}{'open':>8}{'ours seal':>12}{'open':>8}")
    for line in said.splitlines():
        row = json.loads(line)
        print(
            f"{row['suite']:32}{row['openssl_seal_ns']:14}{row['openssl_open_ns']:8}"
            f"{row['ours_seal_ns']:12}{row['ours_open_ns']:8}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
