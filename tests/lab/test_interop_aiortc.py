"""A link against an unmodified aiortc peer in a process of its own, over this machine's host candidates.

this process: RtcCarrier or  ◄── JSON lines: SDP ──►  aiortc_peer.py: RTCPeerConnection, echoes
              NativeCarrier
                  └────────── ICE, DTLS, SCTP, data channels ──────────┘
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from interop import (
    LINK,
    OURS,
    PATIENCE_S,
    TETHER,
    Ours,
    description_of,
    exchange,
    give_address,
    perform,
    sdp_of,
)

from conflux.carrier.interface import (
    Closed,
    Connect,
    Describe,
    Described,
    Description,
    Disconnect,
    Opened,
    OpenTether,
    SendControl,
    TetherUp,
)

pytestmark = pytest.mark.parametrize("kind", OURS)


@pytest.fixture(scope="module", autouse=True)
def _address() -> None:
    give_address()


@asynccontextmanager
async def our_side(kind: str) -> AsyncIterator[Ours]:
    ours = OURS[kind]()
    ours.carrier.prepare()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield ours
    finally:
        await ours.close()


class Peer:
    """The other process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def read(self) -> Description:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        return description_of(json.loads(line)["sdp"])

    async def end(self) -> None:
        """Let the peer close its connection and exit."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await self.process.wait() == 0

    def write(self, kind: str, description: Description) -> None:
        assert self.process.stdin is not None
        setup = "actpass" if kind == "offer" else "active"
        line = json.dumps({"type": kind, "sdp": sdp_of(description, setup)})
        self.process.stdin.write(line.encode() + b"\n")


@asynccontextmanager
async def peer_in_role(role: str) -> AsyncIterator[Peer]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("aiortc_peer.py")),
        role,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Peer(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_our_link_opens_against_an_unmodified_answerer(kind: str) -> None:
    async def run() -> None:
        async with our_side(kind) as ours, peer_in_role("answer") as peer:
            perform(ours, Describe(LINK, initiator=True))
            peer.write("offer", (await ours.event(Described)).local)
            perform(ours, Connect(LINK, await peer.read()))
            await ours.event(Opened)
            perform(ours, OpenTether(LINK, TETHER, 2))
            await ours.event(TetherUp)
            await exchange(ours, TETHER)
            perform(ours, Disconnect(LINK))
            await ours.event(Closed)
            await peer.end()

    asyncio.run(run())


def test_an_unmodified_offerers_link_opens_against_ours(kind: str) -> None:
    async def run() -> None:
        async with our_side(kind) as ours, peer_in_role("offer") as peer:
            offer = await peer.read()
            perform(ours, Describe(LINK, initiator=False))
            peer.write("answer", (await ours.event(Described)).local)
            perform(ours, Connect(LINK, offer))
            await ours.event(Opened)
            assert await ours.event(TetherUp) == TetherUp(LINK, TETHER)
            await exchange(ours, TETHER)
            await peer.end()
            assert (await ours.event(Closed)).reason == "peer"

    asyncio.run(run())


def test_an_unmodified_peer_that_is_killed_is_noticed_within_two_seconds_of_traffic(kind: str) -> None:
    async def run() -> None:
        async with our_side(kind) as ours, peer_in_role("answer") as peer:
            perform(ours, Describe(LINK, initiator=True))
            peer.write("offer", (await ours.event(Described)).local)
            perform(ours, Connect(LINK, await peer.read()))
            await ours.event(Opened)
            peer.process.kill()
            await peer.process.wait()
            async with asyncio.timeout(2):
                perform(ours, SendControl(LINK, b"anybody there?"))
                assert (await ours.event(Closed)).reason == "unreachable"

    asyncio.run(run())
