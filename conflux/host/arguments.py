"""A secret among the arguments of this process: every user of the host sees those, so it is overwritten at once.

The kernel shows the memory in which it put the arguments, /proc/PID/cmdline; the interpreter has copies of its own.
"""

from __future__ import annotations

import os

ANCESTORS_MAX = 32  # chosen: a shell in a session in a terminal has a handful
CMDLINE_BYTES_MAX = 1 << 21  # the kernel takes no longer arguments, by default
_ARG_START, _PPID = 45, 1  # fields 48 and 4 of /proc/PID/stat, counted behind the name, which may hold anything


def hide(secret: str) -> None:
    """Overwrite an argument of this process with stars.  What cannot be done is found by shown()."""
    found = os.fsencode(secret)
    try:
        start, end = (int(field) for field in _stat("self")[_ARG_START : _ARG_START + 2])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:  # it comes before pathlib is there
            memory.seek(start)
            seen = memory.read(end - start)
            at = seen.find(found)
            while at >= 0:
                memory.seek(start + at)
                memory.write(b"*" * len(found))
                at = seen.find(found, at + len(found))
    except (OSError, ValueError, IndexError):
        return


def shown(secret: str) -> tuple[int, str] | None:
    """Return a process, by id and name, that shows a secret among its arguments: this one, or one that it comes from.

    `sudo conflux join TOKEN` is such a one: sudo waits until the command ends.
    """
    found, pid = os.fsencode(secret), os.getpid()
    for _ in range(ANCESTORS_MAX):
        if pid <= 0:
            break
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if found in file.read(CMDLINE_BYTES_MAX):
                    return pid, _name(pid)
            pid = int(_stat(pid)[_PPID])
        except (OSError, ValueError, IndexError):
            break
    return None


def _stat(process: int | str) -> list[bytes]:
    """Return the fields of a process behind its name."""
    with open(f"/proc/{process}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def _name(pid: int) -> str:
    with open(f"/proc/{pid}/comm", "rb") as file:
        return file.read(64).decode(errors="replace").strip()
