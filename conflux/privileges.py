"""Giving up what root can do, once the TUN device exists: everything after that needs no privilege at all.

The user id stays (files in the state directory belong to it); what goes are the capabilities, for good: the bounding
and ambient sets are emptied and no_new_privs is set, so nothing this process starts can get them back.  All of this is
harmless where there is nothing to give up: for an ordinary user and in a user namespace.
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
    """The kernel did not let go of privileges."""


def drop() -> None:
    """Give up every capability of this thread and forbid new ones.

    Capabilities are per thread and threads made later inherit them: call it before the first thread starts.
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
        if error in (errno.EINVAL, errno.EPERM):  # past the last one; or not ours to drop, so not ours to use
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
