"""Take a part of the published test vectors into tests/vectors/published: make_published.py DIRECTORY

DIRECTORY has the files of C2SP/wycheproof (testvectors_v1/*_test.json) and C2SP/CCTV (ML-KEM).  Of each Wycheproof file
the first test of every kind is kept: one for each set of flags, expected result and sizes.  `make vectors` runs
all of them.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

PUBLISHED = Path(__file__).parent / "published"
MODULUS = "cctv-ML-KEM-modulus-ML-KEM-768.txt"
LEFT_OUT = ("mldsa_65_sign_noseed_test.json",)  # keys of ours are seeds
KEYS_LEFT_OUT = {"source", "publicKeyDer", "publicKeyPem", "publicKeyJwk", "privateKeyPkcs8"}
MODULUS_LINES = (0, 255, 256, 767, 779)  # of both halves of the vector, and its ends


def part_of(suite: dict[str, Any]) -> dict[str, Any]:
    """Return the first test of every kind, in the groups they were in."""
    seen: set[object] = set()
    groups = []
    for group in suite["testGroups"]:
        sizes = tuple(group.get(size) for size in ("ivSize", "tagSize"))
        sizes += (group.get("keySize"),) if "ivSize" in group else ()
        kept = []
        for test in group["tests"]:
            kind = (sizes, tuple(test.get("flags", ())), test["result"])
            if kind not in seen:
                seen.add(kind)
                kept.append({key: value for key, value in test.items() if key != "comment"})
        if kept:
            head = {key: value for key, value in group.items() if key not in KEYS_LEFT_OUT}
            groups.append({**head, "tests": kept})
    return {"algorithm": suite["algorithm"], "testGroups": groups}


def main() -> None:
    """Write every file anew."""
    source = Path(sys.argv[1])
    PUBLISHED.mkdir(exist_ok=True)
    for path in sorted(set(source.glob("*_test.json")) - {source / name for name in LEFT_OUT}):
        part = part_of(json.loads(path.read_text()))
        (PUBLISHED / path.name).write_text(json.dumps(part, indent=0) + "\n")
    lines = gzip.decompress((source / f"{MODULUS}.gz").read_bytes()).decode().splitlines()
    (PUBLISHED / MODULUS).write_text("".join(f"{lines[at]}\n" for at in MODULUS_LINES))
    for name in ("strcmp", "unluckysample"):
        file = f"cctv-ML-KEM-{name}-ML-KEM-768.txt"
        (PUBLISHED / file).write_text((source / file).read_text())


if __name__ == "__main__":
    main()
