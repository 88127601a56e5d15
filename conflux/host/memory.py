"""The memory that this process holds, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

MIB = 1 << 20  # the megabyte of the bench's memory figures


class Memory(NamedTuple):
    """What a process holds; None where the kernel does not say."""

    rss_bytes: int | None  # resident
    pss_bytes: int | None  # proportional: a page that n processes share counts as 1/n


def memory() -> Memory:
    """Return what this process holds now."""
    return Memory(
        _bytes(Path("/proc/self/status"), "VmRSS:"),
        _bytes(Path("/proc/self/smaps_rollup"), "Pss:"),
    )


def _bytes(path: Path, field: str) -> int | None:
    """Return the value of one line, which the kernel writes in units of 1024 bytes."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), None)
