"""A larger share of the processor: a packet that waits for its path should not wait for other programs too.

Before a first packet is answered, the daemons at both ends wake up about thirty times in turn; on a busy machine each
wake-up waits for the processor.  A nice value of -10 gives a share nine times that of a program with nice 0.
"""

from __future__ import annotations

import os
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")  # sched(7); missing in a kernel without autogroups


def ask(nice: int) -> bool:
    """Give this thread, and those it makes later, a nice value; return whether the kernel agreed.

    The engine's thread sets itself back to 0: moving packets has no priority over other programs.

    With autogroups a nice value counts only within a session, and the group's nice value counts between sessions.  The
    group's value is set if the session is ours, as that of a service is; in a shell's session it would change other
    programs too.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        if os.getsid(0) == os.getpid() and AUTOGROUP.exists():
            AUTOGROUP.write_text(str(nice), encoding="ascii")
    except OSError:  # not root, or root of a container: keep nice 0
        return False
    return True
