"""Becoming a member with a token: finds the issuer, asks, keeps the answer.  For `conflux join` and `conflux up`."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time

from conflux.config import Config
from conflux.errors import ConfigError, StateError
from conflux.log import LOGGER
from conflux.realm.clock import RealmClock
from conflux.realm.invite import Token
from conflux.realm.member import Member
from conflux.realm.name import parse_name
from conflux.realm.store import StateDir


def wanted_name(config: Config, name: str | None) -> str:
    """Return the name to ask for: the one given, the configured one, or this host's.  Raises ConfigError."""
    return parse_name(name or config.node.name or host_label(), "node name")


def configured_token(config: Config) -> Token | None:
    """Return the invitation in the configuration, if there is one.  Raises ConfigError."""
    if config.realm.token is None:
        return None
    try:
        return Token.parse(config.realm.token)
    except ConfigError as error:
        raise ConfigError(f"realm.token: {error}") from None


def realm_clock(state: StateDir) -> RealmClock:
    """Return the realm's clock, with its floor kept in state."""

    def keep(date_unix: int) -> None:
        try:
            state.save_floor(date_unix)
        except StateError as error:
            # A full card: whoever's message brought the date is not to blame, nor to be refused.
            LOGGER.error("the newest date the realm signed is not kept: %s", error)

    return RealmClock(state.floor_unix(), system=time.time, save=keep)


def host_label() -> str:
    """Return this host's name as a node name: "Pi_4.local" is "pi-4"."""
    first = socket.gethostname().split(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", first)[:63].strip("-") or "node"


def join_with_token(
    config: Config, state: StateDir, token: Token, name: str, peers: tuple[tuple[str, int], ...] = ()
) -> Member:
    """Return us as a member, kept in state.  Raises UserError with what a person can do.

    peers: places to ask beside the token's hints and the configured ones.
    """
    lan = config.control.lan
    from conflux.control.lan.config import LanConfig
    from conflux.control.lan.join import join  # TLS and, with mDNS, zeroconf: a member never needs them here

    member = asyncio.run(
        join(
            token,
            state.make_node_keys(),
            name,
            clock=realm_clock(state),
            entropy=os.urandom,
            endpoints=(*peers, *lan.peers),
            config=LanConfig(interfaces=lan.interfaces, mdns=lan.mdns),
        )
    )
    state.save_member(member)
    return member
