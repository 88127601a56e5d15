"""Our side of a link against a stranger's WebRTC: descriptions as SDP, and what both kinds of carrier exchange.

RtcOurs      tethers' frames come to Python and are compared there
NativeOurs   frames are the engine's, so the engine must take each echo for a whole frame, of a label nobody has; then
             the tether is unmapped, and what comes on its streams is compared
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from native_side import NativeSide

from conflux.anchor import frame
from conflux.carrier.channels import PPID_BINARY
from conflux.carrier.interface import (
    CarrierEvent,
    Command,
    ControlArrived,
    Description,
    SendControl,
)
from conflux.carrier.rtc import RtcCarrier
from conflux.datapath.interface import OutFrame
from conflux.ids import LinkId, TetherId

LINK = LinkId(1)
TETHER = TetherId(bytes.fromhex("0123456789abcdef"))
SIZES = (1, 2, 1159, 1160, 1161, 1200, 9000, 16384, 65535, 65536)
PATIENCE_S = 30
ADDRESS = "192.0.2.1"


def give_address() -> None:
    """Give a fresh namespace an interface that ICE takes, a browser's too: not lo, and with a default route."""
    if ADDRESS in subprocess.run(["ip", "-4", "address"], check=True, capture_output=True, text=True).stdout:
        return
    for command in (
        "ip link set lo up",
        "ip link add out type veth peer name out-far",
        "ip link set out up",
        "ip link set out-far up",
        f"ip address add {ADDRESS}/24 dev out",
        f"ip route add default via 192.0.2.2 dev out src {ADDRESS}",
    ):
        subprocess.run(command.split(), check=True)


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
        message_bytes_max=int(attributes.get("max-message-size", ["65536"])[0]),  # RFC 8841, section 6.1
        candidates=tuple(attributes["candidate"]),
    )


class Ours(Protocol):
    """Our carrier and what it reported."""

    events: list[CarrierEvent]
    carrier: Any

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that comes with an event."""

    async def event(self, kind: type[Any]) -> Any:
        """Wait for the first event of a kind."""

    async def exchange_frames(self, tether: TetherId) -> None:
        """Send every size on both channels of the tether to a peer that echoes; all of it comes back."""

    async def close(self) -> None:
        """End everything."""


def perform(ours: Ours, command: Command) -> None:
    """Have our carrier do something."""
    ours.carrier.perform(command)


def heard(ours: Ours) -> list[bytes]:
    """Return what came on conflux.link.1."""
    return [event.data for event in ours.events if isinstance(event, ControlArrived)]


async def exchange(ours: Ours, tether: TetherId) -> None:
    """Send every size on conflux.link.1 and on both channels of the tether to a peer that echoes; all comes back."""
    sent = [pattern(size) for size in SIZES]
    before = len(heard(ours))
    for data in sent:
        perform(ours, SendControl(LINK, data))
    await ours.until(lambda: len(heard(ours)) == before + len(sent))
    assert list(map(digest, heard(ours)[before:])) == list(map(digest, sent))
    await ours.exchange_frames(tether)


def pattern(size: int) -> bytes:
    """Return bytes of which no two blocks are alike; a page makes the same."""
    return b"".join((size * 4 + number).to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


def digest(data: bytes) -> str:
    """Return what stands for data when it is compared."""
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()}"


class RtcOurs:
    """The carrier over aiortc."""

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
        """Wait for something that comes with an event or a frame."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    async def event(self, kind: type[Any]) -> Any:
        """Wait for the first event of a kind."""
        await self.until(lambda: any(isinstance(event, kind) for event in self.events))
        return next(event for event in self.events if isinstance(event, kind))

    async def exchange_frames(self, tether: TetherId) -> None:
        """See Ours.

        A tether may lose a frame on a machine that is busy for longer than the frame's lifetime; then it is sent again.
        """
        for size in SIZES:
            data = pattern(size)
            for channel in (0, 1):
                self.frames.clear()
                while data not in self.frames:
                    self.carrier.write(OutFrame(LINK, tether, channel, data))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(2):
                            await self.until(lambda data=data: data in self.frames)

    async def close(self) -> None:
        """End everything."""
        await self.carrier.close()
        assert self.carrier.socket_count() == 0
        assert self.carrier.drop_counts == {}


class NativeOurs(NativeSide):
    """The carrier whose links the engine carries."""

    async def exchange_frames(self, tether: TetherId) -> None:
        """See Ours."""
        header = struct.pack("!BBBBIQ", frame.VERSION, 0, 0, 0, 1234, 0)
        for size in SIZES:
            for channel in (0, 1):
                came = self.drops("unknown-label")
                while size > 32 and self.drops("unknown-label") == came:  # again, as above
                    assert self.send_frame(LINK, tether, channel, header + pattern(size - len(header)))
                    for _ in range(200):
                        await asyncio.sleep(0.01)  # the engine counts and tells nobody
                        if self.drops("unknown-label") != came:
                            break
        (link,) = self.carrier._links.values()
        streams = link._tethers[tether].streams
        self.wire.unmap(LINK, tether)
        for size in SIZES:
            for stream in streams:
                data = pattern(size)
                count = len(self.messages(stream))
                assert self.wire.send(LINK, stream, PPID_BINARY, data)
                await self.until(lambda stream=stream, count=count: len(self.messages(stream)) > count)
                assert digest(self.messages(stream)[-1]) == digest(data)
        assert self.carrier.drop_counts.pop("no-tether") == len(SIZES) * len(streams)

    async def close(self) -> None:
        """End everything."""
        await super().close()
        assert self.carrier.socket_count() == 0
        assert self.carrier.drop_counts == {}


OURS = {"rtc": RtcOurs, "native": NativeOurs}
