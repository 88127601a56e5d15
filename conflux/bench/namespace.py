"""Private network namespaces, so that a bench needs no second machine and changes nothing of this one.

They end with the last process in them, so there is nothing to take down.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from conflux.bench.figure import PartSkipped

# linux/sched.h
CLONE_NEWNET: Final = 0x40000000
CLONE_NEWUSER: Final = 0x10000000

# linux/sockios.h, linux/if.h
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 0x0001

_LIBC = ctypes.CDLL(None, use_errno=True)


def enter() -> None:
    """Put this process into a network namespace of its own: as root, else as root of a user namespace.

    Raises PartSkipped where neither is allowed.  Call it while there is one thread.
    """
    if _unshare(CLONE_NEWNET) == 0:
        return
    uid, gid = os.geteuid(), os.getegid()
    if error := _unshare(CLONE_NEWUSER | CLONE_NEWNET):
        raise PartSkipped(f"this user may make no network namespaces here ({os.strerror(error)}): run it as root")
    try:
        # Without "deny" here a user may not write the group map.
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")
    except OSError as refused:
        raise PartSkipped(f"this user may make no user namespaces here ({refused.strerror}): run it as root") from None


def another() -> int:
    """Enter a further network namespace; return a descriptor of the one before, for inside().  Raises PartSkipped."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if error := _unshare(CLONE_NEWNET):
        raise PartSkipped(f"a second network namespace was refused ({os.strerror(error)})")
    return before


@contextlib.contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Put this thread into the namespace for a while: sockets and processes it makes belong there."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _set(namespace)
        try:
            yield
        finally:
            _set(here)
    finally:
        os.close(here)


def loopback_up() -> None:
    """Switch the namespace's own loopback on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        fcntl.ioctl(asker, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))


def _unshare(flags: int) -> int:
    """Return zero, or errno."""
    return 0 if _LIBC.unshare(flags) == 0 else ctypes.get_errno()


def _set(namespace: int) -> None:
    if _LIBC.setns(namespace, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
