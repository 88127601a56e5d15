"""STUN and TURN servers as the configuration names them."""

from __future__ import annotations

import re

import pytest

from conflux.carrier.ice.server import IceServer
from conflux.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "credentials", "expected"),
    [
        ("stun:example.net", (), ("stun", "example.net", 3478, "udp")),
        ("stun:[2001:db8::1]:19302", (), ("stun", "2001:db8::1", 19302, "udp")),
        ("turn:example.net?transport=tcp", ("u", "p"), ("turn", "example.net", 3478, "tcp")),
        ("turns:example.net:443", ("u", "p"), ("turns", "example.net", 443, "tcp")),
    ],
)
def test_server_urls_are_read(url: str, credentials: tuple[str, ...], expected: tuple[object, ...]) -> None:
    server = IceServer.parse(url, *credentials)
    assert (server.scheme, server.host, server.port, server.transport) == expected


@pytest.mark.parametrize(
    "url",
    ["", "example.net", "http://example.net", "stun:", "stun:a:0", "stun:a:99999", "stun:a?transport=tcp", "turn:a"],
)
def test_wrong_server_urls_are_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(url))):
        IceServer.parse(url)


def test_password_of_a_server_is_not_shown() -> None:
    assert "secret" not in repr(IceServer.parse("turn:a", "u", "secret"))
