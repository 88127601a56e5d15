"""Names that a person types: of realms, nodes and tags.  Each is one DNS label, so it can be a host name as it is."""

from __future__ import annotations

from typing import Any

from conflux.errors import ConfigError, RemoteProtocolError
from conflux.ids import NAME, NAME_CHARS_MAX, fold_name
from conflux.realm.reason import Reason
from conflux.record import Shape

COMMANDS = frozenset({"move", "cancel"})  # commands in a place where a name may stand: `conflux route move`


def parse_name(text: str, what: str = "name") -> str:
    """Return text if it is a name.  Raises ConfigError."""
    if NAME.fullmatch(text) is None:
        raise ConfigError(_refused(what, text))
    return text


def _refused(what: str, text: str) -> str:
    shape = f"use a-z, 0-9 and '-' alone, at most {NAME_CHARS_MAX} of them, with no '-' first or last"
    return f"{text!r} is no {what}: {shape}"


def parse_node_name(text: str) -> str:
    """Return the name of a node that a person typed, folded.  Raises ConfigError."""
    name = fold_name(text)
    if NAME.fullmatch(name) is None:
        raise ConfigError(_refused("node name", text))
    return name


def new_node_name(text: str) -> str:
    """Return the name that a node is to have, folded.  Raises ConfigError, also if a command line could not name it."""
    name = parse_node_name(text)
    if name in COMMANDS:
        raise ConfigError(f"{name!r} is no node name: it is a word of the command line")
    return name


def label() -> Shape:
    """A name in a record; other text of a peer never reaches a terminal, a file name or a host table."""

    def load(item: Any) -> str:
        if type(item) is not str or NAME.fullmatch(item) is None:
            raise RemoteProtocolError(Reason.MALFORMED, "expected a name")
        return item

    return Shape(load)
