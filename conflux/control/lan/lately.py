"""What was said a moment ago, so that one thing that comes by several ways is said and counted once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

KEY_COUNT_MAX: Final = 256  # the oldest goes; then its line comes again


class Lately:
    """Remembers what was said, and when.  say_s: after so many seconds it is news again."""

    def __init__(self, say_s: float) -> None:
        self._say_s = say_s
        self._said: OrderedDict[Hashable, float] = OrderedDict()

    def is_new(self, key: Hashable, now: float) -> bool:
        """Say whether this was not said in the last say_s, and take note that it is said now."""
        said_at = self._said.get(key)
        if said_at is not None and now < said_at + self._say_s:
            return False
        self._said.pop(key, None)
        self._said[key] = now
        while len(self._said) > KEY_COUNT_MAX:
            self._said.popitem(last=False)
        return True
