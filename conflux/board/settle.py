"""What counts on a board: what its card says now, and where that is missing or wrong, what it said the last time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from conflux.board.card import BoardSection, Card
from conflux.board.wifi import Network

VERSION: Final = 1
SETTINGS: Final = "settings.json"  # in the directory of this room on the data partition
NAME_DIGITS: Final = 4  # of a name that nobody gave: enough for the boards of one LAN


class Kept(NamedTuple):
    """What was last taken from the card; kept on the data partition, readable for root alone.

    made_of: the digest of what /etc/conflux/conflux.toml was made of.  token: the digest of the token that was last
    handed to the daemon.
    """

    name: str | None = None
    time_zone: str | None = None
    ssh_keys: tuple[str, ...] = ()
    network: Network | None = None
    conflux: Mapping[str, Any] = {}
    made_of: str | None = None
    token: str | None = None


def settled(card: Card | None, kept: Kept) -> Kept:
    """Return what counts from now on.  card: None: there is none, or it cannot be read."""
    if card is None:
        return kept
    board, unset = card.board, BoardSection()

    def of(key: str, last: Any) -> Any:
        value = getattr(board, key)
        is_unset = value == getattr(unset, key)
        return last if is_unset and ({f"board.{key}", "board"} & card.wrong) else value

    return kept._replace(
        name=of("name", kept.name),
        time_zone=of("time_zone", kept.time_zone),
        ssh_keys=of("ssh_key", kept.ssh_keys),
        network=_network(card, kept.network),
        conflux=card.conflux,
    )


def _network(card: Card, last: Network | None) -> Network | None:
    """Return the network of the card; not one whose password is wrong, which would be an open one."""
    wifi = card.wifi
    is_whole = wifi.ssid is not None and wifi.password is not None
    if "wifi" in card.wrong and not (is_whole and not any(fault.key.startswith("wifi") for fault in card.faults)):
        return last
    return None if wifi.ssid is None else Network(wifi.ssid, wifi.password, wifi.country, wifi.hidden)


def token_of(card: Card | None) -> str | None:
    """Return the invitation on the card; None: there is none, or it was used."""
    token = None if card is None else card.board.token
    return token if token is not None and token.startswith("cfx1") else None


def digest(token: str) -> str:
    """Return what is kept of a token: enough to know it again, and nothing to join with."""
    return hashlib.sha256(token.encode()).hexdigest()


def name_for(machine_id: str) -> str:
    """Return the name of a board whose card gives none: another one on each board."""
    return f"conflux-{hashlib.sha256(b'conflux-board ' + machine_id.encode()).hexdigest()[:NAME_DIGITS]}"


def encode(kept: Kept) -> bytes:
    """Return this as it is kept."""
    network = None if kept.network is None else kept.network._asdict()
    table = {"version": VERSION, **kept._asdict(), "network": network}
    return json.dumps(table, indent=1, default=str).encode() + b"\n"


def decode_untrusted(data: bytes) -> Kept:
    """Return what was kept; what the disk damaged is as if nothing had been kept."""
    try:
        table = json.loads(data)
        if not isinstance(table, dict) or table.pop("version", None) != VERSION:
            return Kept()
        network = table.get("network")
        conflux = table.get("conflux")
        return Kept(
            name=_text(table.get("name")),
            time_zone=_text(table.get("time_zone")),
            ssh_keys=tuple(str(each) for each in table.get("ssh_keys") or ()),
            network=None if not isinstance(network, dict) else Network(**network),
            conflux=conflux if isinstance(conflux, dict) else {},
            made_of=_text(table.get("made_of")),
            token=_text(table.get("token")),
        )
    except (ValueError, TypeError, RecursionError):
        return Kept()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
