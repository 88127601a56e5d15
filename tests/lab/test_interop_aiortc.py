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

import pytest
from kit.tree import TREE
from rig.interop import (
    LINK,
    OURS,
    TETHER,
    description_of,
    exchange,
    give_address,
    our_side,
    sdp_of,
)

from conflux.carrier.interface import (
    CarrierEnd,
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

PATIENCE_S = 30

pytestmark = pytest.mark.parametrize("kind", OURS)


@pytest.fixture(scope="module", autouse=True)
def _address() -> None:
    give_address()


class Peer:
    """The other process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def read(self) -> Description:
        """Return the peer's description."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        return description_of(json.loads(line)["sdp"])

    async def end(self) -> None:
        """Let the peer close its connection and exit."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await self.process.wait() == 0

    def write(self, kind: str, description: Description) -> None:
        """Give the peer our description."""
        assert self.process.stdin is not None
        setup = "actpass" if kind == "offer" else "active"
        line = json.dumps({"type": kind, "sdp": sdp_of(description, setup)})
        self.process.stdin.write(line.encode() + b"\n")


@asynccontextmanager
async def peer_in_role(role: str) -> AsyncIterator[Peer]:
    """Start the other process in a role: "offer" or "answer"."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(TREE / "tests/lab/rig/aiortc_peer.py"),
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


async def test_our_link_opens_against_an_unmodified_answerer(kind: str) -> None:
    async with our_side(kind, within_s=PATIENCE_S) as ours, peer_in_role("answer") as peer:
        ours.carrier.perform(Describe(LINK, initiator=True))
        peer.write("offer", (await ours.event(Described)).local)
        ours.carrier.perform(Connect(LINK, await peer.read()))
        await ours.event(Opened)
        ours.carrier.perform(OpenTether(LINK, TETHER, 2))
        await ours.event(TetherUp)
        await exchange(ours, TETHER)
        ours.carrier.perform(Disconnect(LINK))
        await ours.event(Closed)
        await peer.end()


async def test_an_unmodified_offerers_link_opens_against_ours(kind: str) -> None:
    async with our_side(kind, within_s=PATIENCE_S) as ours, peer_in_role("offer") as peer:
        offer = await peer.read()
        ours.carrier.perform(Describe(LINK, initiator=False))
        peer.write("answer", (await ours.event(Described)).local)
        ours.carrier.perform(Connect(LINK, offer))
        await ours.event(Opened)
        assert await ours.event(TetherUp) == TetherUp(LINK, TETHER)
        await exchange(ours, TETHER)
        await peer.end()
        assert (await ours.event(Closed)).end == CarrierEnd.PEER


async def test_an_unmodified_peer_that_is_killed_is_noticed_within_two_seconds_of_traffic(kind: str) -> None:
    async with our_side(kind, within_s=PATIENCE_S) as ours, peer_in_role("answer") as peer:
        ours.carrier.perform(Describe(LINK, initiator=True))
        peer.write("offer", (await ours.event(Described)).local)
        ours.carrier.perform(Connect(LINK, await peer.read()))
        await ours.event(Opened)
        peer.process.kill()
        await peer.process.wait()
        async with asyncio.timeout(2):
            ours.carrier.perform(SendControl(LINK, b"anybody there?"))
            assert (await ours.event(Closed)).end == CarrierEnd.UNREACHABLE
