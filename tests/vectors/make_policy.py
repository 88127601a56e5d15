"""Makes policy.json: a signed policy that every later version must take, byte for byte.

Its signatures with ML-DSA differ in each run, so a new file is as good as the old one; but only the old one shows that
nodes take what was published before:

    PYTHONPATH=tests python tests/vectors/make_policy.py
"""

from __future__ import annotations

import json
from pathlib import Path

from kit.builders import NOW_UNIX
from kit.published import CLOSED_TEXT, published, publisher

POLICY = Path(__file__).with_name("policy.json")
TEXT = CLOSED_TEXT + b"# a policy of 1 December 2026\n"


def main() -> None:
    """Write the file."""
    policy = published(TEXT, NOW_UNIX, publisher(issuer="gate"))
    made = {
        "source": "Conflux's own; made by tests/vectors/make_policy.py, 2026-12-01",
        "anchor": publisher(issuer="gate").anchor.encode().hex(),
        "number": policy.head.number,
        "digest": policy.head.rank.digest.hex(),
        "text": TEXT.decode(),
        "head": policy.head.encode().hex(),
        "pieces": [piece.hex() for piece in policy.pieces],
    }
    POLICY.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
