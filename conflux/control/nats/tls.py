"""Which servers of the broker are believed to be what they say: TLS 1.3, and a certificate of a known authority.

Dates are judged by this host's clock, unless that is behind what the realm has signed: then it is known to be wrong.  A
board without a battery starts in 1970, where no certificate has begun.  So a beginning is then no matter, and an end is
judged by the newest date that the realm has signed.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from conflux.control.nats.end import ConnectError, End
from conflux.errors import ConfigError

_NO_CHECK_TIME = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which Python has no name


def client_context(ca: str | None) -> ssl.SSLContext:
    """Return the TLS context of connections to the broker.

    ca: certificates in PEM, of which one has to have signed a server's; None: those that this system trusts.
    Raises ConfigError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it verifies certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context
    try:
        context.load_verify_locations(cadata=ca)
    except (ssl.SSLError, ValueError):
        raise ConfigError("the broker's CA holds no certificate in PEM") from None
    return context


class Trust:
    """What a server is held against.

    ca: as above; raises ConfigError.  floor_unix: returns the newest date that the realm has signed, 0 if none is
    known.  system: this host's clock.
    """

    def __init__(
        self, ca: str | None, *, floor_unix: Callable[[], int], system: Callable[[], float] = time.time
    ) -> None:
        self._ca = ca
        self._floor_unix = floor_unix
        self._system = system
        self._by_clock = client_context(ca)
        self._without_dates: ssl.SSLContext | None = None  # made when it is needed

    @property
    def _is_clock_behind(self) -> bool:
        return self._system() < self._floor_unix()

    def context(self) -> ssl.SSLContext:
        """Return the context for a connection that is made now."""
        if not self._is_clock_behind:
            return self._by_clock
        if self._without_dates is None:
            self._without_dates = client_context(self._ca)
            self._without_dates.verify_flags |= _NO_CHECK_TIME
        return self._without_dates

    def judge(self, certificate: Mapping[str, Any] | None) -> None:
        """Raise ConnectError if a server's certificate, as ssl's getpeercert() tells it, has ended by the realm's date.

        Called before anything is said to the server.
        """
        if not self._is_clock_behind:
            return  # context() has judged
        floor_unix = self._floor_unix()
        ends_unix = ssl.cert_time_to_seconds(str((certificate or {}).get("notAfter", "")))
        if ends_unix < floor_unix:
            raise ConnectError(End.CERTIFICATE, f"it ended before {_day(floor_unix)}, when the realm signed something")


def _day(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d")
