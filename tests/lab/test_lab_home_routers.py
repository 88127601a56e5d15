"""ICE between boards behind home routers that masquerade, without a daemon: which routers let two boards meet.

      alpha --- a-router --- line ---+--- line --- b-router --- bravo          each line 20 ms there and back
                                     |
                                   broker: a STUN server

Both agents run in this process, and their sockets are in the boards' namespaces.  Candidates are carried with the delay
of a broker between the lines.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import statistics
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aioice import Candidate
from rig.home import Home, Lines, Mapping, serve_stun
from rig.topology import Host, Lab

from conflux.carrier.ice.agent import Ice
from conflux.carrier.ice.server import IceServer

LINE_MS = 20.0
ROUNDS = 5
CLONE_NEWNET = 0x40000000


@contextmanager
def inside(host: Host) -> Iterator[None]:
    """Have this thread make its sockets in a host's namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{host.namespace}", os.O_RDONLY)
    try:
        assert libc.setns(there, CLONE_NEWNET) == 0
        yield
    finally:
        assert libc.setns(back, CLONE_NEWNET) == 0
        os.close(back)
        os.close(there)


class Ground:
    """Two homes, their lines and a STUN server."""

    def __init__(self, lab: Lab, first: Mapping, second: Mapping) -> None:
        public = lab.lan("public")
        homes = [Home(lab, name, public, mapping) for name, mapping in (("a", first), ("b", second))]
        self.boards = tuple(home.board(lab, name) for home, name in zip(homes, ("alpha", "bravo"), strict=True))
        self.lines = Lines(public, tuple(home.router for home in homes), rtt_ms=LINE_MS)
        self.stun = IceServer("stun", *serve_stun(lab.host("broker", public)), "udp")


class End:
    """One agent on a board."""

    def __init__(self, board: Host, *, controlling: bool) -> None:
        self.board = board
        self.drops: Counter[str] = Counter()
        self.ice = Ice(
            controlling=controlling,
            addresses=board.addresses[:1],
            refused=(),
            drop_counts=self.drops,
            lost=lambda reason: None,
        )


async def meet(ground: Ground, *, within_s: float, late_ms: float = 0.0) -> float:
    """Have the boards' agents find each other as a link does; return the milliseconds that the slower one took.

    late_ms: how much longer what bravo says takes to alpha.  Raises TimeoutError.
    """
    alpha, bravo = ends = [End(board, controlling=not number) for number, board in enumerate(ground.boards)]
    to_alpha_s, to_bravo_s = (LINE_MS + late_ms) / 1e3, LINE_MS / 1e3
    loop = asyncio.get_running_loop()
    started = loop.time()

    async def connect(end: End, other: End, begin_s: float, described_s: float, other_s: float) -> float:
        """Begin then, get the other's description then; what this end finds takes other_s to the other."""
        await asyncio.sleep(begin_s)
        with inside(end.board):
            await end.ice.gather_candidates()  # in one turn of the loop

        def found(candidate: Candidate) -> None:
            loop.call_later(other_s, lambda: tasks.create_task(other.ice.add_remote([candidate.to_sdp()])))

        looking = tasks.create_task(end.ice.find_more([ground.stun], found))
        await asyncio.sleep(started + described_s - loop.time())
        first = other.ice.local_candidates[0].to_sdp()
        await end.ice.reach(other.ice.local_username, other.ice.local_password, [first])
        looking.cancel()
        return (loop.time() - started) * 1e3

    try:
        async with asyncio.timeout(within_s), asyncio.TaskGroup() as tasks:
            took_ms = [
                tasks.create_task(connect(alpha, bravo, 0, to_bravo_s + to_alpha_s, to_bravo_s)),
                tasks.create_task(connect(bravo, alpha, to_bravo_s, to_bravo_s, to_alpha_s)),
            ]
        return max(task.result() for task in took_ms)
    finally:
        for end in ends:
            await end.ice.close()


@pytest.fixture
def ground(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Ground]:
    """A ground whose routers both have the mapping that the test names."""
    ground = Ground(lab, request.param, request.param)
    yield ground
    ground.lines.close()


@pytest.mark.parametrize("ground", [Mapping.ENDPOINT_INDEPENDENT], indirect=True)
def test_boards_meet_where_the_mapping_does_not_depend_on_the_destination(ground: Ground) -> None:
    # Until alpha has bravo's candidate: 60 ms.  Its check and the answer: 40 ms more, and bravo's own: another 20.
    for late_ms in (0.0, 30.0):
        times_ms = [asyncio.run(meet(ground, within_s=5, late_ms=late_ms)) for _ in range(ROUNDS)]
        assert statistics.median(times_ms) < 120 + late_ms + 50, f"{late_ms:g} ms late: {times_ms}"


@pytest.mark.parametrize("ground", [Mapping.BY_DESTINATION], indirect=True)
def test_boards_do_not_meet_where_the_mapping_depends_on_it(ground: Ground) -> None:
    with pytest.raises(TimeoutError):
        asyncio.run(meet(ground, within_s=5))
