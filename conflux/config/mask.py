"""The configuration without its secrets, for a program that needs the rest of it and shall not have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from conflux.config import settings


def masked(text: str) -> str:
    """Return what a configuration sets, as TOML, without the keys that are secret.  Raises ConfigError.

    What is left means what it meant before; comments and defaults are not kept.
    """
    import tomli

    settings.parse(text)  # from here on it has known keys alone, and values of their kinds
    secret = {key for key, _, entry in settings.every_key() if entry.secret}
    return "".join(f"{key} = {_toml(value)}\n" for key, value in _values(tomli.loads(text), "") if key not in secret)


def _values(table: Mapping[str, object], path: str) -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _values(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _toml(value: object) -> str:
    """Return a value as TOML has it."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case _:
            return '"' + "".join(_escaped(char) for char in str(value)) + '"'


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if char in '"\\' or ord(char) < 32 or ord(char) == 127 else char
