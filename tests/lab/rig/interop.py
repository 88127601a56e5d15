"""Our side of a link against a stranger's WebRTC: descriptions as SDP, and what both kinds of carrier exchange.

RtcOurs      Python gets the tethers' frames and compares them
NativeOurs   the engine gets them, so it must take each echo for a whole frame, whose label is unknown; then the tether
             is unmapped, and the messages on its streams are compared
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from kit.carrier import NativeSide, RtcSide

from conflux.anchor import frame
from conflux.carrier.interface import (
    ControlArrived,
    Description,
    OutFrame,
    SendControl,
)
from conflux.carrier.native.dcep import PPID_BINARY
from conflux.ids import LinkId, TetherId

LINK = LinkId(1)
TETHER = TetherId(bytes.fromhex("0123456789abcdef"))
SIZES = (1, 2, 1159, 1160, 1161, 1200, 9000, 16384, 65535, 65536)
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


def heard(ours: Ours) -> list[bytes]:
    """Return what came on conflux.link.1."""
    return [event.data for event in ours.events if isinstance(event, ControlArrived)]


async def exchange(ours: Ours, tether: TetherId) -> None:
    """Send every size on conflux.link.1 and on both channels of the tether to a peer that echoes; all comes back."""
    sent = [pattern(size) for size in SIZES]
    before = len(heard(ours))
    for data in sent:
        ours.carrier.perform(SendControl(LINK, data))
    await ours.until(lambda: len(heard(ours)) == before + len(sent))
    assert list(map(digest, heard(ours)[before:])) == list(map(digest, sent))
    await ours.exchange_frames(tether)


def pattern(size: int) -> bytes:
    """Return bytes of which no two blocks are alike; a page makes the same."""
    return b"".join((size * 4 + number).to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


def digest(data: bytes) -> str:
    """Return what stands for data when it is compared."""
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()}"


class RtcOurs(RtcSide):
    """The carrier over aiortc."""

    async def exchange_frames(self, tether: TetherId) -> None:
        """Send every size on both channels of the tether to a peer that echoes; all of it comes back.

        A machine that is busy for longer than a frame's lifetime may lose the frame; then it is sent again.
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


class NativeOurs(NativeSide):
    """The carrier whose links the engine carries."""

    async def exchange_frames(self, tether: TetherId) -> None:
        """Send every size on both channels of the tether to a peer that echoes; all of it comes back."""
        header = struct.pack("!BBBBIQ", frame.VERSION, 0, 0, 0, 1234, 0)
        for size in SIZES:
            for channel in (0, 1):
                came = self.drops("unknown-label")
                while size > 32 and self.drops("unknown-label") == came:  # a lost frame is sent again
                    assert self.send_frame(LINK, tether, channel, header + pattern(size - len(header)))
                    for _ in range(200):
                        await asyncio.sleep(0.01)  # the engine counts and reports nothing
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


Ours = RtcOurs | NativeOurs
OURS: dict[str, type[Ours]] = {"rtc": RtcOurs, "native": NativeOurs}


@asynccontextmanager
async def our_side(kind: str, *, within_s: float) -> AsyncIterator[Ours]:
    """Make our side of a link and close it; by then it has no socket and has dropped nothing."""
    ours = OURS[kind]()
    ours.carrier.prepare()
    try:
        async with asyncio.timeout(within_s):
            yield ours
    finally:
        await ours.close()
    assert ours.carrier.socket_count() == 0
    assert ours.carrier.drop_counts == {}
