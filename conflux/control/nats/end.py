"""Why a connection to the broker ended, or was never made.  A server's words are sorted, not repeated."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from enum import StrEnum

from conflux.control.nats.config import SAID_CHARS_MAX

# Of OpenSSL's X509_V_ERR_...: a certificate has not begun, or has ended.
NOT_YET_VALID, HAS_EXPIRED = 9, 10
DATE_CODES = frozenset({NOT_YET_VALID, HAS_EXPIRED})


class End(StrEnum):
    """A reason, as a person reads it after the name of a server."""

    UNREACHABLE = "does not answer"
    SILENT = "hangs"
    NO_TLS = "offers no TLS"
    CERTIFICATE = "its certificate does not hold"
    TLS = "agrees on no TLS 1.3"
    OPEN = "admits everybody"
    NOT_ADMITTED = "does not admit this node"
    EXPIRED = "admission expired"
    REVOKED = "admission revoked"
    LIMIT = "over a limit"
    FULL = "takes no more connections"
    SLOW = "this node was too slow"
    FLOOD = "says too much"
    MALFORMED = "is no NATS server"
    LOST = "closed the connection"
    LEAVING = "is going down"
    LOCAL = "error of this host"
    REPLACED = "replaced"
    STOPPED = "stopped"

    @property
    def is_refusal(self) -> bool:
        """Whether only another credential would help."""
        return self in (End.NOT_ADMITTED, End.EXPIRED, End.REVOKED)


# By how an error of a server begins, in lower case.  Source: nats-server, server/errors.go and client.go.
_SAID = {
    "authorization violation": End.NOT_ADMITTED,
    "user authentication expired": End.EXPIRED,
    "account authentication expired": End.EXPIRED,
    "user authentication revoked": End.REVOKED,
    "maximum payload": End.LIMIT,
    "maximum control line": End.LIMIT,
    "maximum connections": End.FULL,
    "maximum account": End.FULL,
    "slow consumer": End.SLOW,
    "stale connection": End.SILENT,
    "server shutdown": End.LEAVING,
    "secure connection": End.NO_TLS,
    "authentication timeout": End.SILENT,
}


class ConnectError(Exception):
    """No connection was made.  detail: what the operating system or OpenSSL says of it; perhaps empty."""

    def __init__(self, end: End, detail: str = "") -> None:
        super().__init__(f"{end} ({detail})" if detail else str(end))
        self.end = end


def end_of(said_untrusted: str) -> End | None:
    """Return which end an error of a server announces; None: the connection may go on."""
    said = said_untrusted.lower()
    return next((end for begins, end in _SAID.items() if said.startswith(begins)), None)


def connect_error(error: Exception) -> ConnectError:
    """Return what an exception of the client library, OpenSSL or the operating system means."""
    if isinstance(error, ConnectError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConnectError(End.CERTIFICATE, _why_distrusted(error))
    if isinstance(error, ssl.SSLError):
        return ConnectError(End.TLS, quoted((getattr(error, "reason", None) or "").lower().replace("_", " ")))
    if isinstance(error, TimeoutError):
        return ConnectError(End.SILENT)
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return ConnectError(End.LOST)
    if isinstance(error, OSError):
        return ConnectError(End.UNREACHABLE, quoted(error.strerror or ""))
    return ConnectError(end_of(str(error).removeprefix("nats: ").strip("'")) or End.MALFORMED)


def _why_distrusted(error: ssl.SSLCertVerificationError) -> str:
    said = quoted(getattr(error, "verify_message", ""))
    if getattr(error, "verify_code", 0) not in DATE_CODES:
        return said
    return f"{said}; this device's clock says {datetime.now(UTC):%Y-%m-%d}"


def quoted(text_untrusted: str) -> str:
    """Return the beginning of a text, without anything that a terminal acts on."""
    shown = "".join(sign if sign.isprintable() else "?" for sign in text_untrusted[: SAID_CHARS_MAX + 1])
    return shown if len(shown) <= SAID_CHARS_MAX else shown[: SAID_CHARS_MAX - 3] + "..."
