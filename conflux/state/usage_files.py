"""What passed, as a file: how many bytes on which day, and with whom.

It is written seldom, for the card's sake, and only its owner reads it.  A damaged one is set aside: counting goes on.
"""

from __future__ import annotations

import contextlib
from typing import Final

from conflux.errors import StateError
from conflux.state.directory import StateDir
from conflux.usage.book import UsageFile

USAGE: Final = "usage"
ASIDE: Final = "usage.damaged"


class UsageFiles:
    """The file of one node's book.  warning: what a person should know of it, or None."""

    def __init__(self, state: StateDir) -> None:
        self._state = state
        self.warning: str | None = None

    def load(self) -> UsageFile | None:
        """Return what was kept; None: nothing, or nothing of use, and then warning says why."""
        try:
            return self._state.load_record(USAGE, UsageFile)
        except StateError as error:
            self.warning = f"usage-lost: {error}; the bytes counted before are not known, and counting begins anew"
            with contextlib.suppress(OSError):
                (self._state.path / USAGE).replace(self._state.path / ASIDE)
                self.warning = f"{self.warning} (the damaged file is {self._state.path / ASIDE})"
            return None

    def save(self, file: UsageFile) -> None:
        """Write the book.  Raises StateError."""
        self._state.save_record(USAGE, file)
