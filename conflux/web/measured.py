"""What `conflux board bench` found the last time: its report, which the page links to."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Final

from conflux.web.answer import Answer
from conflux.web.request import Refused

PLACE: Final = Path("/var/lib/conflux-bench")
REPORT: Final = "conflux-bench.html"
BYTES_MAX: Final = 1 << 20  # one has 60 kB


def measured_at(place: Path = PLACE) -> float | None:
    """Return when this board was last measured, in Unix seconds; None: it was not."""
    try:
        return (place / REPORT).stat().st_mtime
    except OSError:
        return None


def measured(place: Path = PLACE) -> Answer:
    """Return the report.  Raises Refused if there is none.

    It has styles and pictures and no script; the policy allows those styles alone, by their hashes.
    """
    try:
        with (place / REPORT).open("rb") as file:
            body = file.read(BYTES_MAX + 1)
    except OSError:
        raise Refused(404, "this board was not measured yet: `conflux board bench` does it") from None
    if len(body) > BYTES_MAX:
        raise Refused(404, "the report of this board is too large to be one")
    styles = re.findall(rb"<style>(.*?)</style>", body, re.DOTALL)[:4]
    hashes = [base64.b64encode(hashlib.sha256(style).digest()).decode() for style in styles]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes) or "'none'"
    policy = f"default-src 'none'; style-src {allowed}; img-src data:; sandbox; frame-ancestors 'none'"
    return Answer(200, "text/html; charset=utf-8", body, (("Content-Security-Policy", policy),))
