"""Files that are complete or missing, also if the power fails while one is written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write(path: Path, data: bytes, mode: int, *, has_modes: bool = True) -> None:
    """Make data the content of a file of a directory that there is, completely or not at all.  Raises OSError.

    The new content has a second name until the disk keeps it; then it is renamed over the old one in one step.
    has_modes: False: the file system may know no permissions, as FAT.
    """
    # The second name is fixed: a file that a crash left there is never read, and the next write replaces it.
    beside = path.with_name(f".{path.name}.new")
    try:
        file_fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        with os.fdopen(file_fd, "wb") as file:
            try:
                os.fchmod(file.fileno(), mode)
            except OSError:
                if has_modes:
                    raise
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_directory(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def sync_directory(directory: Path) -> None:
    """Have the disk keep which files are in a directory.  Raises OSError."""
    directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory_fd)
    finally:
        os.close(directory_fd)
