"""Reads a file in a directory that may be another user's, who wants root to read, wait for or hold what it should not.

The file may be a link to one that its maker may not read, a pipe that nobody writes, or as large as the disk.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from conflux.errors import UserError

END_BYTES_MAX = 2 * 1024 * 1024


def end_of(path: Path, *, bytes_max: int = END_BYTES_MAX) -> str | None:
    """Return the end of a text file, or None if there is none.  Raises UserError, also if it is not to be read."""
    try:
        directory_owner = path.parent.lstat().st_uid
        file_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(file_fd, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path}: not a regular file, and not read")
            if not is_of_directory(status.st_uid, directory_owner, user=os.geteuid()):
                raise UserError(f"{path}: of another user than its directory, and not read")
            file.seek(max(0, status.st_size - bytes_max))
            return file.read(bytes_max).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: not read: {error.strerror}") from None


def is_of_directory(owner: int, directory_owner: int, *, user: int) -> bool:
    """Say whether a file came where it is by the hand of its owner, of root or of user: else it may be a link."""
    return directory_owner in (0, user, owner)
