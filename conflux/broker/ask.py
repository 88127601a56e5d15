"""What a node would connect to: the configured servers of the broker, or those that its realm announces."""

from __future__ import annotations

import ssl

from conflux.broker.check import Ask
from conflux.config.settings import NatsSettings
from conflux.errors import ConfigError
from conflux.realm.invite import parse_hint
from conflux.realm.member import Member
from conflux.state.broker_files import broker_of
from conflux.state.clock import realm_clock
from conflux.state.directory import StateDir

CA_BYTES_MAX = 65536


def known(settings: NatsSettings, state: StateDir, member: Member) -> Ask | None:
    """Return what to check, or None if no server is configured or announced.  Raises ConfigError."""
    ca = None if settings.ca is None else _read(settings)
    if settings.servers:
        return Ask(settings.servers, ca, settings.area)
    notice = broker_of(state, member.anchor, realm_clock(state).now_unix)
    if notice is None:
        return None
    servers = tuple(parse_hint(server.removeprefix("tls://")) for server in notice.servers)
    return Ask(servers, ca or (ssl.DER_cert_to_PEM_cert(notice.ca) if notice.ca else None), notice.area)


def _read(settings: NatsSettings) -> str:
    assert settings.ca is not None
    try:
        with settings.ca.open("rb") as file:
            return file.read(CA_BYTES_MAX).decode("ascii", "replace")
    except OSError as error:
        raise ConfigError(f"cannot read {settings.ca}: {error.strerror}") from None
