"""What was said in the last minute, so that a trouble that lasts makes one line of the log a minute."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

SAY_S: Final = 60.0
KEY_COUNT_MAX: Final = 256  # the oldest goes; then its line comes again


class Lately:
    """Remembers what was said, and when."""

    def __init__(self) -> None:
        self._said: OrderedDict[Hashable, float] = OrderedDict()

    def is_new(self, key: Hashable, now: float) -> bool:
        """Say whether this was not said in the last minute, and take note that it is said now."""
        said_at = self._said.get(key)
        if said_at is not None and now < said_at + SAY_S:
            return False
        self._said.pop(key, None)
        self._said[key] = now
        while len(self._said) > KEY_COUNT_MAX:
            self._said.popitem(last=False)
        return True
