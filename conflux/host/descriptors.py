"""More descriptors: connections, links and interfaces each take some, and the usual limit is 1024.

It is that low for select(), which knows no descriptor above it; the daemon does not use it.
"""

from __future__ import annotations

import contextlib
import resource
from typing import Final

COUNT_MAX: Final = (
    65_536  # the kernel's table of them then has a megabyte at most; all bounds of ours together need less
)


def ask() -> int:
    """Raise this process's limit to what the system allows, COUNT_MAX at most; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = COUNT_MAX if hard == resource.RLIM_INFINITY else min(hard, COUNT_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
