"""/etc/conflux/conflux.toml of a flashed board, made of the card's."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

INTERFACES: Final = ("eth0", "wlan0")  # 99-default.link names them so on every board
HEAD: Final = """\
# Made of conflux.toml on the card's first partition.  It is made anew when that changes, and not before: what is edited
# here stays until then.
"""
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def table_of(conflux: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """Return the configuration of a board as a table.

    conflux: what the card says in [conflux]; it wins.  name: of the board.  The page is on, for the LAN.
    """
    table: dict[str, Any] = {"page": {"listen": list(INTERFACES)}}
    if name is not None:
        table["node"] = {"name": name}
    for section, keys in conflux.items():
        table[section] = {**table.get(section, {}), **copy.deepcopy(keys)}
    return table


def digest_of(table: Mapping[str, Any]) -> str:
    """Return what says that a table is the one of last time."""
    return hashlib.sha256(json.dumps(table, sort_keys=True, default=str).encode()).hexdigest()


def text_of(table: Mapping[str, Any], token: str | None) -> str:
    """Return the file's text.  token: an invitation that is to be used; None: none is."""
    if token is not None:
        table = {**table, "realm": {**table.get("realm", {}), "token": token}}
    return HEAD + toml_of(table)


def without_token(text: str, token: str) -> str:
    """Return the text of a configuration without a token that was used; the rest stays, whoever wrote it."""
    return "".join(line for line in text.splitlines(keepends=True) if token not in line)


def toml_of(table: Mapping[str, Any]) -> str:
    """Return a table as TOML.  What is in it was read from TOML: tables, lists, texts, numbers, true and false."""
    return "".join(_section(table, ()))


def _section(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = [f"{_key(key)} = {_value(value)}\n" for key, value in table.items() if not isinstance(value, Mapping)]
    if path and (lines or not table):
        lines.insert(0, f"\n[{'.'.join(map(_key, path))}]\n")
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += _section(value, (*path, key))
    return lines


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return '"' + "".join(_character(each) for each in value) + '"'
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case Mapping():
            return "{ " + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + " }"
    return _value(str(value))  # a date: no key takes one, and the check says so


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    return f"\\u{code:04X}" if code < 32 or code == 127 else character
