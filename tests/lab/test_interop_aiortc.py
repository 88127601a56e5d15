"""A link against an unmodified aiortc peer in a process of its own, over this machine's host candidates.

this process: RtcCarrier ◄── JSON lines: SDP ──► aiortc_peer.py: RTCPeerConnection, echoes
                  └────────── ICE, DTLS, SCTP, data channels ──────────┘
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from conflux.carrier.interface import (
    CarrierEvent,
    Closed,
    Connect,
    ControlArrived,
    Describe,
    Described,
    Description,
    Disconnect,
    Opened,
    OpenTether,
    SendControl,
    TetherUp,
)
from conflux.carrier.rtc import RtcCarrier
from conflux.datapath.interface import OutFrame
from conflux.ids import LinkId, TetherId

LINK = LinkId(1)
TETHER = TetherId(bytes.fromhex("0123456789abcdef"))
SIZES = (1, 2, 1159, 1160, 1161, 1200, 9000, 16384, 65535, 65536)
PATIENCE_S = 30


@pytest.fixture(scope="module", autouse=True)
def _address() -> None:
    """Give a machine that has nothing but 127.0.0.1, such as a fresh namespace, an address that ICE takes."""
    RtcCarrier.prepare()
    from conflux.carrier.ice import host_addresses

    if not host_addresses(()):
        subprocess.run(["ip", "address", "add", "192.0.2.1/32", "dev", "lo"], check=True)


def sdp_of(description: Description, setup: str) -> str:
    """Say in SDP (RFC 8866, RFC 8841) what a Description says."""
    lines = [
        "v=0",
        "o=- 1 1 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 0.0.0.0",
        "a=mid:0",
        f"a=ice-ufrag:{description.ice_ufrag}",
        f"a=ice-pwd:{description.ice_pwd}",
        f"a=fingerprint:sha-256 {description.dtls_sha256.hex(':').upper()}",
        f"a=setup:{setup}",
        f"a=sctp-port:{description.sctp_port}",
        f"a=max-message-size:{description.message_bytes_max}",
        *(f"a=candidate:{candidate}" for candidate in description.candidates),
        "a=end-of-candidates",
    ]
    return "\r\n".join(lines) + "\r\n"


def description_of(sdp: str) -> Description:
    """Read from SDP what a Description says."""
    attributes: dict[str, list[str]] = {}
    for line in sdp.splitlines():
        if line.startswith("a="):
            name, _, value = line[2:].partition(":")
            attributes.setdefault(name, []).append(value)
    (fingerprint,) = (value for value in attributes["fingerprint"] if value.startswith("sha-256 "))
    return Description(
        ice_ufrag=attributes["ice-ufrag"][0],
        ice_pwd=attributes["ice-pwd"][0],
        dtls_sha256=bytes.fromhex(fingerprint.split()[1].replace(":", "")),
        sctp_port=int(attributes["sctp-port"][0]),
        message_bytes_max=int(attributes["max-message-size"][0]),
        candidates=tuple(attributes["candidate"]),
    )


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


class Ours:
    """Our carrier and what it reported."""

    def __init__(self) -> None:
        self.events: list[CarrierEvent] = []
        self.frames: list[bytes] = []
        self._changed = asyncio.Event()
        self.carrier = RtcCarrier(on_event=self._event, on_frame=self._frame)

    def _event(self, event: CarrierEvent) -> None:
        self.events.append(event)
        self._changed.set()

    def _frame(self, link: LinkId, data: bytes, channel: int) -> None:
        self.frames.append(data)
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    async def event(self, kind: type[Any]) -> Any:
        await self.until(lambda: any(isinstance(event, kind) for event in self.events))
        return next(event for event in self.events if isinstance(event, kind))

    async def exchange(self, tether: TetherId) -> None:
        """Send every size on conflux.link.1 and on both channels of the tether; all of it comes back.

        A tether may lose a frame on a machine that is busy for longer than the frame's lifetime; then it is sent again.
        """
        sent = [bytes([index + 1]) * size for index, size in enumerate(SIZES)]
        for data in sent:
            self.carrier.perform(SendControl(LINK, data))
            for channel in (0, 1):
                self.frames.clear()
                while data not in self.frames:
                    self.carrier.write(OutFrame(LINK, tether, channel, data))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(2):
                            await self.until(lambda data=data: data in self.frames)
        await self.until(lambda: len(self.control()) == len(sent))
        assert self.control() == sent

    def control(self) -> list[bytes]:
        return [event.data for event in self.events if isinstance(event, ControlArrived)]


def test_our_link_opens_against_an_unmodified_answerer() -> None:
    async def run() -> None:
        ours = Ours()
        async with asyncio.timeout(PATIENCE_S), peer_in_role("answer") as peer:
            ours.carrier.perform(Describe(LINK, initiator=True))
            peer.write("offer", (await ours.event(Described)).local)
            ours.carrier.perform(Connect(LINK, await peer.read()))
            await ours.event(Opened)
            ours.carrier.perform(OpenTether(LINK, TETHER, 2))
            await ours.event(TetherUp)
            await ours.exchange(TETHER)
            ours.carrier.perform(Disconnect(LINK))
            await ours.event(Closed)
            await peer.end()
        assert ours.carrier.socket_count() == 0
        assert ours.carrier.drop_counts == {}

    asyncio.run(run())


def test_an_unmodified_offerers_link_opens_against_ours() -> None:
    async def run() -> None:
        ours = Ours()
        async with asyncio.timeout(PATIENCE_S), peer_in_role("offer") as peer:
            offer = await peer.read()
            ours.carrier.perform(Describe(LINK, initiator=False))
            peer.write("answer", (await ours.event(Described)).local)
            ours.carrier.perform(Connect(LINK, offer))
            await ours.event(Opened)
            assert await ours.event(TetherUp) == TetherUp(LINK, TETHER)
            await ours.exchange(TETHER)
            await peer.end()
            assert (await ours.event(Closed)).reason == "peer"
        assert ours.carrier.socket_count() == 0
        assert ours.carrier.drop_counts == {}

    asyncio.run(run())


def test_an_unmodified_peer_that_is_killed_is_noticed_within_two_seconds_of_traffic() -> None:
    async def run() -> None:
        ours = Ours()
        async with asyncio.timeout(PATIENCE_S), peer_in_role("answer") as peer:
            ours.carrier.perform(Describe(LINK, initiator=True))
            peer.write("offer", (await ours.event(Described)).local)
            ours.carrier.perform(Connect(LINK, await peer.read()))
            await ours.event(Opened)
            peer.process.kill()
            await peer.process.wait()
            async with asyncio.timeout(2):
                ours.carrier.perform(SendControl(LINK, b"anybody there?"))
                assert (await ours.event(Closed)).reason == "unreachable"
        assert ours.carrier.socket_count() == 0

    asyncio.run(run())
