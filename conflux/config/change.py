"""What a reload changes: which keys differ, which of them a running daemon takes, and what counts then."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from conflux.config.settings import Config, every_key

S = TypeVar("S", bound=NamedTuple)


class Changes(NamedTuple):
    """Keys whose values differ.  live: a running daemon takes the new ones.  restart: it does not."""

    live: tuple[str, ...]
    restart: tuple[str, ...]


def changes(before: Config, after: Config) -> Changes:
    """Return which keys differ between two configurations."""
    differing = [(key, entry.live) for key, _, entry in every_key() if value_of(before, key) != value_of(after, key)]
    return Changes(
        tuple(key for key, is_live in differing if is_live), tuple(key for key, is_live in differing if not is_live)
    )


def merged(before: Config, after: Config) -> Config:
    """Return before, with every value of after that a running daemon takes."""
    for key in changes(before, after).live:
        before = _replaced(before, key.split("."), value_of(after, key))
    return before


def value_of(config: Config, key: str) -> Any:
    """Return the value of "section.key"."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _replaced(section: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    inner = _replaced(getattr(section, name), rest, value) if rest else value
    if hasattr(section, "_replace"):
        return section._replace(**{name: inner})
    import dataclasses

    return dataclasses.replace(section, **{name: inner})
