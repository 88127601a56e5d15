"""A place in front of other work: what waits for a packet's way should not wait for a processor as well.

Until a first packet is answered two daemons take turns, some thirty times; on a busy machine each of these wake-ups
stands in line.  What is asked for is a share, not the processor: at -10 nine times what others get who want it too.
"""

from __future__ import annotations

import os
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")  # sched(7); not there on a kernel without it


def ask(nice: int) -> bool:
    """Give this thread, and those it makes later, a nice value; say whether the kernel agreed.

    The engine's thread goes back to 0 by itself: moving packets is everybody's equal.

    With autogroups a nice value counts within a session alone, and between sessions that of the group does.  It is set
    too where the session is ours, as a service's is: a shell's other programs are none of our business.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        if os.getsid(0) == os.getpid() and AUTOGROUP.exists():
            AUTOGROUP.write_text(str(nice), encoding="ascii")
    except OSError:  # not root, or root of a container: it runs as others do
        return False
    return True
