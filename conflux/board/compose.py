"""conflux.toml for a card, made of what a person gave as options, over what is in a file.

A file without options goes on the card as it is, with its comments; else the two are put together and written anew.
"""

from __future__ import annotations

import datetime
import json
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from conflux.errors import ConfigError

BYTES_MAX: Final = 65536  # of conflux.toml on a card

Tree = Mapping[str, Any]

HEADER: Final = "# Read at the first boot; docs/how-to/flash-a-card.md has every key.\n"


def compose(file: bytes | None, name: str, options: Tree) -> bytes:
    """Return the file for the card.  file: of --config, called name; options: tables, which win.

    Raises ConfigError.
    """
    if file is not None and not options:
        return file
    given: dict[str, Any] = {}
    if file is not None:
        try:
            given = tomllib.loads(file.decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{name}: {error}") from None
    return (HEADER + "\n".join(_lines(_over(given, options), ()))).encode()


def _over(below: Tree, above: Tree) -> dict[str, Any]:
    """Return two trees as one, in which the upper one wins."""
    found = dict(below)
    for key, value in above.items():
        former = found.get(key)
        found[key] = _over(former, value) if isinstance(former, Mapping) and isinstance(value, Mapping) else value
    return found


def _lines(tree: Tree, path: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of a table, and of those in it."""
    plain = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    if path and (plain or not tree):
        yield f"\n[{'.'.join(map(_key, path))}]"
    for key, value in plain.items():
        yield f"{_key(key)} = {_value(value)}"
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _lines(value, (*path, key))
    if not path:
        yield ""


def _key(key: str) -> str:
    return key if key and key.isascii() and key.replace("-", "a").replace("_", "a").isalnum() else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    raise TypeError(type(value).__name__)


def _string(text: str) -> str:
    # JSON's strings are TOML's, but for DEL; what is no text in UTF-8 is none in TOML either.
    return json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False).replace("\x7f", "\\u007f")
