"""The group of users that may look at the daemon: who is in it may ask what it does, and change nothing."""

from __future__ import annotations

import grp
import os

GROUP = "conflux"  # the package makes it


def looking_group() -> int | None:
    """Return the group's number, and make it one of this process's: the owner of a socket may give it to such a group.

    None: there is no such group here, or this process may not join it.  Call it before the capabilities are dropped.
    """
    try:
        number = grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None
    if number not in {os.getegid(), *os.getgroups()}:
        try:
            os.setgroups([*os.getgroups(), number])
        except OSError:  # an ordinary user's daemon is that user's
            return None
    return number
