"""The scheme of every JSON that a command prints: docs/reference/json.md has the keys, and what their endings mean.

    _ms     a latency, or how long a step took, in milliseconds
    _s      an age, a running time or an interval, in seconds
    _at     an instant, in Unix seconds; "at" alone is when an event happened
    _bytes  a size; "bytes" alone is what went through
    _mbit   a rate, in megabits a second

Counts are plain nouns in the plural, what is true or false is an adjective, and null is what is not known.
"""

from __future__ import annotations

from collections.abc import Mapping

# The key of every object that a command prints.  It counts up when a key goes, or changes its meaning; a new key does
# not count, so a reader has to pass over keys that it does not know.
KEY = "scheme"
VERSION = 1


def plain(value: object) -> object:
    """Return a value as JSON knows it: named tuples and dataclasses as dictionaries, other tuples as lists."""
    match value:
        case tuple() if hasattr(value, "_asdict"):
            return {name: plain(each) for name, each in value._asdict().items()}
        case list() | tuple():
            return [plain(each) for each in value]
        case Mapping():
            return {key: plain(each) for key, each in value.items()}
        case _ if hasattr(value, "__dataclass_fields__"):  # a dataclass, whose module takes long to import
            return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
        case _:
            return value


def answer(value: object) -> dict[str, object]:
    """Return a record as the object that a command prints."""
    keyed = plain(value)
    assert isinstance(keyed, dict)
    return {KEY: VERSION, **keyed}
