"""Forgetting all that a state directory holds, so that a power cut at any moment leaves the old node or none.

The mark decides.  Until it is on the disk nothing has changed; from then on there is no node here, and whoever opens
the directory next erases what is left before anything else.  The mark goes last.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from conflux.errors import StateError
from conflux.state.whole import sync_directory

MARK: Final = "erasing"
KEPT: Final = frozenset({MARK, "lock"})  # the lock is held meanwhile
FIRST: Final = frozenset({"node.key", "spare", "root.key"})  # the keys


def is_begun(directory: Path) -> bool:
    """Say whether a directory is being erased."""
    return os.path.lexists(directory / MARK)


def begin(directory: Path) -> None:
    """Decide that all is forgotten.  It needs no room on a full disk.  Raises StateError."""
    try:
        os.close(os.open(directory / MARK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        sync_directory(directory)
    except OSError as error:
        raise StateError(f"{directory / MARK}: cannot write: {error.strerror}; nothing was erased") from None


def finish(directory: Path) -> None:
    """Erase all that is there.  Called with the directory locked, and safe to repeat.  Raises StateError."""
    try:
        with os.scandir(directory) as entries:
            found = sorted(entries, key=lambda entry: (entry.name not in FIRST, entry.name))
        for entry in found:
            if entry.name in KEPT:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)  # an entry has no Path
        sync_directory(directory)
        (directory / MARK).unlink(missing_ok=True)
        sync_directory(directory)
    except OSError as error:
        where = error.filename or directory
        raise StateError(f"{where}: cannot erase: {error.strerror}; the next start goes on") from None
