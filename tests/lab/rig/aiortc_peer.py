"""An unmodified aiortc peer: plain RTCPeerConnection, nothing of Conflux.  It echoes every message.

usage: aiortc_peer.py answer   reads an offer, writes its answer
       aiortc_peer.py offer    makes the channels of a link and of one tether, writes its offer, reads the answer

Descriptions are lines of JSON {"type": ..., "sdp": ...} on standard input and output.  It ends with its standard input.
"""

import asyncio
import json
import sys

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription

TETHER = "0123456789abcdef"


def echo(channel: RTCDataChannel) -> None:
    """Send every message of a channel back."""

    @channel.on("message")
    def on_message(message: bytes | str) -> None:
        channel.send(message)


def write(description: RTCSessionDescription) -> None:
    """Write a description as one line."""
    print(json.dumps({"type": description.type, "sdp": description.sdp}), flush=True)


async def main(role: str) -> None:
    """Be the peer in a role, until standard input ends."""
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.on("datachannel", echo)
    if role == "offer":
        echo(connection.createDataChannel("conflux.link.1"))
        for index in range(2):
            echo(
                connection.createDataChannel(
                    "conflux.tether.1", ordered=False, maxPacketLifeTime=250, protocol=f"{TETHER}/{index}/2"
                )
            )
        await connection.setLocalDescription(await connection.createOffer())
        write(connection.localDescription)
    await connection.setRemoteDescription(RTCSessionDescription(**json.loads(await stdin.readline())))
    if role == "answer":
        await connection.setLocalDescription(await connection.createAnswer())
        write(connection.localDescription)
    while await stdin.readline():
        pass
    await connection.close()


asyncio.run(main(sys.argv[1]))
