"""Giving up the capabilities of root: once the TUN device exists, the daemon needs none of them.

The user id stays, because files in the state directory belong to it.  The capabilities go for good: the bounding and
ambient sets are emptied and no_new_privs is set, so no program that this process starts gets them back.  Without any
capability, as an ordinary user or in a user namespace, all of this does no harm.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path

from conflux.errors import ConfluxError

# linux/prctl.h
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
CAPABILITY_COUNT_MAX = 64  # two 32-bit words; the kernel refuses numbers it does not know with EINVAL


class PrivilegeError(ConfluxError):
    """The kernel did not take the capabilities away."""


def drop() -> None:
    """Give up every capability of this thread and forbid new ones.

    Capabilities belong to a thread, and a thread inherits them from the one that makes it: call this before the first
    thread is made.
    Raises PrivilegeError if capabilities remain.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def prctl(option: int, argument: int) -> int:
        zero = ctypes.c_ulong(0)
        return 0 if libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero) == 0 else ctypes.get_errno()

    if prctl(PR_SET_NO_NEW_PRIVS, 1):
        raise PrivilegeError("no_new_privs was refused")
    for capability in range(CAPABILITY_COUNT_MAX):
        error = prctl(PR_CAPBSET_DROP, capability)
        if error in (errno.EINVAL, errno.EPERM):  # past the last one; or we may not drop it, and then we do not have it
            break
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)  # only kernels before 4.3 refuse
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION_3, 0))
    nothing = ctypes.create_string_buffer(struct.pack("=6I", 0, 0, 0, 0, 0, 0))
    if libc.capset(header, nothing) != 0:
        raise PrivilegeError(f"capset: {os.strerror(ctypes.get_errno())}")
    if left := effective():
        raise PrivilegeError(f"capabilities remain: {left:#x}")


def effective() -> int:
    """Return this process's effective and permitted capabilities as a bit set."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    sets = [int(line.split()[1], 16) for line in lines if line.startswith(("CapEff:", "CapPrm:"))]
    return sets[0] | sets[1]
