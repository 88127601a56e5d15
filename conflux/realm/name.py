"""Names that a person types: of realms, nodes and tags.  Each is one DNS label, so it can be a host name as it is."""

from __future__ import annotations

import re
from typing import Any

from conflux.errors import ConfigError, RemoteProtocolError
from conflux.ids import fold_name
from conflux.realm.reason import Reason
from conflux.record import Shape

NAME_CHARS_MAX = 63  # RFC 1035, section 2.3.4

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def parse_name(text: str, what: str = "name") -> str:
    """Return text if it is a name.  Raises ConfigError."""
    if _NAME.fullmatch(text) is None:
        raise ConfigError(_refused(what, text))
    return text


def _refused(what: str, text: str) -> str:
    return f"{what} {text!r}: 1 to 63 of a-z, 0-9 and '-', with no '-' first or last"


def parse_node_name(text: str) -> str:
    """Return the name of a node that a person typed, folded.  Raises ConfigError."""
    name = fold_name(text)
    if _NAME.fullmatch(name) is None:
        raise ConfigError(_refused("node name", text))
    return name


def label() -> Shape:
    """A name in a record; other text of a peer never reaches a terminal, a file name or a host table."""

    def load(item: Any) -> str:
        if type(item) is not str or _NAME.fullmatch(item) is None:
            raise RemoteProtocolError(Reason.MALFORMED, "expected a name")
        return item

    return Shape(load)
