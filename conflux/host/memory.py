"""The memory that this process holds, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    """Megabytes of 1024 * 1024 bytes; None where the kernel does not say."""

    rss_mb: float | None  # resident
    pss_mb: float | None  # proportional: a page that n processes share counts as 1/n


def memory() -> Memory:
    """Return what this process holds now."""
    return Memory(
        _megabytes(Path("/proc/self/status"), "VmRSS:"),
        _megabytes(Path("/proc/self/smaps_rollup"), "Pss:"),
    )


def _megabytes(path: Path, field: str) -> float | None:
    """Return the value of one line, which the kernel writes in kB."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith(field)), None)
    return None if kilobytes is None else round(kilobytes / 1024, 1)
