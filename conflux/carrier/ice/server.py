"""STUN and TURN servers as the configuration names them (RFC 7064, RFC 7065).  There are none by default."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from conflux.errors import ConfigError

_URL = re.compile(
    r"(?P<scheme>stun|turns?):(?P<host>\[[0-9a-fA-F:.]+\]|[^:?\[\]]+)(:(?P<port>\d{1,5}))?"
    r"(\?transport=(?P<transport>udp|tcp))?"
)


class IceServer(NamedTuple):
    """One server.  scheme: "stun", "turn" or "turns" (TURN over TLS)."""

    scheme: str
    host: str
    port: int
    transport: str  # "udp" or "tcp", between us and a TURN server
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        """Return this without its password."""
        return f"IceServer({self.scheme}, {self.host}, {self.port}, {self.transport}, {self.username!r})"

    @classmethod
    def parse(cls, url: str, username: str | None = None, password: str | None = None) -> Self:
        """Return the server of a stun:, turn: or turns: URL.  Raises ConfigError."""
        match = _URL.fullmatch(url)
        if match is None:
            raise ConfigError(
                f"{url!r} is not stun:HOST[:PORT], turn:HOST[:PORT][?transport=udp|tcp] or turns:HOST[:PORT]"
            )
        scheme = match["scheme"]
        if scheme == "stun" and match["transport"]:
            raise ConfigError(f"{url!r}: stun: takes no transport")
        if scheme == "turns" and match["transport"] == "udp":
            raise ConfigError(f"{url!r}: turns: is TLS over TCP")
        if scheme != "stun" and (username is None or password is None):
            raise ConfigError(f"{url!r}: a TURN server needs a username and a password")
        port = int(match["port"] or (5349 if scheme == "turns" else 3478))
        if not 0 < port < 65536:
            raise ConfigError(f"{url!r}: no such port")
        transport = "tcp" if scheme == "turns" else match["transport"] or "udp"
        return cls(scheme, match["host"].strip("[]"), port, transport, username, password)

    def url(self) -> str:
        """Return the server's URL, which holds neither user nor password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        transport = f"?transport={self.transport}" if self.scheme == "turn" else ""
        return f"{self.scheme}:{host}:{self.port}{transport}"
