"""Takes secrets out of text: those that are known, and whatever has the form of one."""

from __future__ import annotations

import re
from collections.abc import Iterable

GONE = "(taken out)"

_FORMS = tuple(
    re.compile(form, re.DOTALL)
    for form in (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----",
        r"cfx1[^\s\"'<>]*",  # an invitation
        r"\bS[OAUXNCP][A-Z2-7]{50,}\b",  # a seed of NATS
        r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+",  # a JWT
        r"\b[0-9a-fA-F]{64,}\b",  # 32 bytes in hexadecimal
        # ... and in base64, with letters of both cases and a digit, so that no path is taken for one.
        r"(?<![\w+/=-])(?=[\w+/-]*[0-9])(?=[\w+/-]*[a-z])(?=[\w+/-]*[A-Z])[A-Za-z0-9+/_-]{43,}={0,2}(?![\w+/=-])",
    )
)
_ASSIGNED = re.compile(r"^(\s*(?:\"[^\"]*\"|'[^']*'|[\w.-])+\s*=).*$")


def scrubbed(text: str, known: Iterable[str] = ()) -> str:
    """Return text without secrets.  known: secrets by their value."""
    for secret in sorted(set(known), key=len, reverse=True):
        if secret:
            text = text.replace(secret, GONE)
    for form in _FORMS:
        text = form.sub(GONE, text)
    return text


def without_values(text: str) -> str:
    """Return the headers and keys of a configuration that is broken, so that it is not known what is a secret in it."""
    kept = []
    for line in text.splitlines():
        assigned = _ASSIGNED.match(line)
        is_header = re.fullmatch(r"\s*\[[\w.\s-]*\]?\]?\s*(#.*)?", line)
        comment = line.strip().startswith("#")
        kept.append(
            line.partition("#")[0].rstrip()
            if is_header
            else f"{assigned[1]} ..."
            if assigned
            else "#"
            if comment
            else "..."
        )
    return "\n".join(kept)
