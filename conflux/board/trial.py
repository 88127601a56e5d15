"""An update between its installation and the verdict about it: what is kept of it, and what a boot means.

trial.json    an update is installed and has no verdict yet
result.json   the last verdict
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Self

from conflux.board.release import Version
from conflux.errors import printable

SLOTS = ("A", "B")
PEERS_MAX = 16  # chosen: one of them has to answer again
FILE_BYTES_MAX = 16384
WHY_CHARS_MAX = 400
NAME_CHARS_MAX = 128


class Peer(NamedTuple):
    """A node that answered before the update.  node: its id."""

    node: str
    name: str


class Trial(NamedTuple):
    """An update that is installed.

    slot, version: where it is, and what.  former_slot, former_version: what ran when it was installed.  boot: the
    kernel's id of the boot that installed it.  was_ready: the daemon was ready then.  failed: units that had failed
    then.  peers: who answered then.
    """

    slot: str
    version: str
    former_slot: str
    former_version: str
    boot: str
    was_ready: bool
    failed: tuple[str, ...]
    peers: tuple[Peer, ...]

    def encode(self) -> str:
        """Return it as the text of a file."""
        return json.dumps({**self._asdict(), "peers": [peer._asdict() for peer in self.peers]}) + "\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a file holds.  Raises ValueError."""
        said = _object(text)
        failed = said.get("failed")
        peers = said.get("peers")
        if not isinstance(failed, list) or not isinstance(peers, list) or len(peers) > PEERS_MAX:
            raise ValueError("it is no update's")
        return cls(
            slot=_slot(said, "slot"),
            version=_version(said, "version"),
            former_slot=_slot(said, "former_slot"),
            former_version=_version(said, "former_version"),
            boot=_text(said, "boot"),
            was_ready=said.get("was_ready") is True,
            failed=tuple(str(unit)[:NAME_CHARS_MAX] for unit in failed),
            peers=tuple(Peer(_text(peer, "node"), _text(peer, "name")) for peer in map(_mapping, peers)),
        )


class Result(NamedTuple):
    """A verdict about an update.  good: it runs now.  why: what was wrong with it, or "".  at: Unix seconds."""

    version: str
    slot: str
    former_version: str
    good: bool
    why: str
    at: int

    def encode(self) -> str:
        """Return it as the text of a file."""
        return json.dumps(self._asdict()) + "\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a file holds.  Raises ValueError."""
        said = _object(text)
        at = said.get("at")
        return cls(
            version=_version(said, "version"),
            slot=_slot(said, "slot"),
            former_version=_version(said, "former_version"),
            good=said.get("good") is True,
            why=_text(said, "why", WHY_CHARS_MAX) if said.get("why") else "",
            at=at if type(at) is int and 0 <= at < 1 << 40 else 0,
        )


class Boot(StrEnum):
    """What a boot means for an update."""

    NONE = "none"  # there is no update without a verdict
    PENDING = "pending"  # it is installed, and the board has not been restarted since
    TRIAL = "trial"  # this boot is of the update
    FELL_BACK = "fell-back"  # the board was restarted, and the update did not come up, or gave up


def meaning(trial: Trial | None, slot: str, boot: str) -> Boot:
    """Return what a boot means.  slot: what runs.  boot: the kernel's id of this boot."""
    if trial is None:
        return Boot.NONE
    if trial.boot == boot:
        return Boot.PENDING
    return Boot.TRIAL if trial.slot == slot else Boot.FELL_BACK


NO_START = "the board was restarted, and it did not start"


def notice(result: Result) -> str:
    """Return what a person has to know of a verdict, as a line; "" if nothing."""
    if result.good:
        return ""
    return f"update: {result.version} was not taken, so {result.former_version} runs on: {result.why}"


def _object(text: str) -> Mapping[str, Any]:
    if len(text) > FILE_BYTES_MAX:
        raise ValueError("it is too long")
    try:
        return _mapping(json.loads(text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it is no update's")
    return value


def _text(said: Mapping[str, Any], name: str, chars_max: int = NAME_CHARS_MAX) -> str:
    value = said.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is missing")
    return printable(value)[:chars_max]


def _slot(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if value not in SLOTS:
        raise ValueError(f"{name} is no slot")
    return str(value)


def _version(said: Mapping[str, Any], name: str) -> str:
    value = _text(said, name)
    Version.parse(value)
    return value
