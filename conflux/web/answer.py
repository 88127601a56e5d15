"""What the page's process answers: the page, its data, and errors, with the headers that keep a browser careful."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any, Final, NamedTuple

from conflux.api.drops import drop_rows
from conflux.web.health import Finding
from conflux.web.history import Sample
from conflux.web.request import PHRASES, Refused
from conflux.web.source import Seen

# The parts of a status that the page shows; what else there is would be weight.
SHOWN: Final = (
    "version",
    "uptime_s",
    "node",
    "realm",
    "credential",
    "device",
    "control",
    "relaying",
    "memory",
    "budget",
    "warnings",
    "nodes",
    "streams",
    "links",
    "relays",
    "destinations",
)
HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Connection", "close"),
)


class Answer(NamedTuple):
    """An answer to a request.  kind: its media type.  headers: beside those that every answer has."""

    status: int
    kind: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self, *, with_body: bool) -> bytes:
        """Return the answer as bytes.  with_body: without, it is that to HEAD."""
        lines = [
            f"HTTP/1.1 {self.status} {PHRASES[self.status]}",
            f"Content-Type: {self.kind}",
            f"Content-Length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in (*HEADERS, *self.headers)),
        ]
        head = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"
        return head + self.body if with_body else head


def refusal(refused: Refused) -> Answer:
    """Return the answer to a request that is refused."""
    headers = (("Allow", "GET, HEAD"),) if refused.status == 405 else ()
    return Answer(refused.status, "text/plain; charset=utf-8", f"{refused.text}\n".encode(), headers)


def page() -> Answer:
    """Return the page: one file that loads nothing else.

    Its policy allows the one style and the one script that are in it, by their hashes, and questions to its own server.
    """
    folder = resources.files("conflux.web")
    style, script, frame = (folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js", "html"))
    text = frame.replace("/*style*/", style).replace("/*script*/", script)
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Answer(200, "text/html; charset=utf-8", text.encode(), (("Content-Security-Policy", policy),))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def state(
    seen: Seen, findings: tuple[Finding, ...], samples: tuple[Sample, ...], *, now: float, bench_at: float | None = None
) -> Answer:
    """Return what the page shows, as JSON: the daemon's status, whether it answers, what is wrong, the last hour.

    bench_at: when this board was last measured, in Unix seconds.
    """
    status = seen.status
    value = {
        "now_at": round(now, 1),
        "bench_at": bench_at,
        "daemon": {"answering": seen.silent_at is None, "silent_at": seen.silent_at, "reason": seen.said},
        "status": None if status is None else _shown(status),
        "findings": [finding._asdict() for finding in findings],
        "history": {name: [getattr(each, name) for each in samples] for name in Sample._fields},
    }
    return Answer(200, "application/json", json.dumps(value, separators=(",", ":")).encode())


def _shown(status: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a status that the page shows, and of each drop what it says."""
    return {**{key: status[key] for key in SHOWN}, "drops": [row.shown() for row in drop_rows(status["drops"])]}
