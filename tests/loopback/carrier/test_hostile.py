"""Strange datagrams, broken rules and dead peers cost a link over aiortc at most itself, and each is counted."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from kit.carrier import LEFT, RIGHT, TETHER, RtcSide, between, describe, open_link, open_tether, sides
from kit.events import PATIENCE_S

from conflux.carrier.ice.server import IceServer
from conflux.carrier.interface import (
    CarrierEnd,
    Closed,
    ControlArrived,
    Describe,
    Described,
    SendControl,
)

COOKIE = 0x2112A442  # RFC 8489, section 5

over_aiortc = between(("rtc", "rtc"))


def stun_message(attributes: bytes) -> bytes:
    """Return a binding request with these attributes."""
    return struct.pack("!HHI12s", 1, len(attributes), COOKIE, b"t" * 12) + attributes


STRANGE_DATAGRAMS = [
    b"",
    b"\x00",
    b"\xff" * 40,
    b"\x80" * 40,  # looks like RTP
    b"\x16\xfe\xfd" + bytes(40),  # looks like DTLS
    b"\x17" + b"\xff" * 1400,
    stun_message(struct.pack("!HH2s2x", 0x0024, 2, b"xx")),  # PRIORITY of two bytes
    stun_message(struct.pack("!HH4s", 0x0020, 4, b"\0\1xx")),  # XOR-MAPPED-ADDRESS without an address
    stun_message(struct.pack("!HH4s", 0x0006, 4, b"\xff\xff\xff\xff")),  # USERNAME that is no text
    stun_message(b""),
]


def port_of(side: RtcSide) -> int:
    """Return the port of a side's host candidate."""
    described = next(event for event in side.events if isinstance(event, Described))
    return int(described.local.candidates[0].split()[5])


@over_aiortc
async def test_strange_datagrams_neither_raise_nor_harm_the_link(left: RtcSide, right: RtcSide) -> None:
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    await open_link(left, right)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for datagram in STRANGE_DATAGRAMS:
            stranger.sendto(datagram, ("127.0.0.1", port_of(left)))
    right.carrier.perform(SendControl(RIGHT, b"still here"))
    assert (await left.event(ControlArrived)).data == b"still here"
    assert raised == []
    assert left.carrier.drop_counts["not-dtls-nor-stun"] == 3
    assert left.carrier.drop_counts["stun-malformed"] == 4


@over_aiortc
async def test_text_and_oversized_messages_are_dropped(left: RtcSide, right: RtcSide) -> None:
    await open_link(left, right)
    await open_tether(left, right, 1)
    link = right.carrier._links[RIGHT]
    tether = link.tether(TETHER)
    assert tether is not None
    assert link._control is not None
    assert tether.channels[0] is not None
    link._sctp._remote_max_message_size = 0  # a peer that ignores the largest message we take
    link._control.send("text")
    link._control.send(bytes(65537))
    tether.channels[0].send("text")
    link._control.send(b"fine")
    assert (await left.event(ControlArrived)).data == b"fine"
    await left.until(lambda: left.frames == [])
    assert left.carrier.drop_counts["oversized"] == 1
    assert left.carrier.drop_counts["text-message"] >= 1


@over_aiortc
async def test_channels_of_unknown_label_or_bounds_are_closed_again(left: RtcSide, right: RtcSide) -> None:
    from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters

    await open_link(left, right)
    closed: list[str] = []
    done = asyncio.Event()
    strange = (
        ("chat", ""),
        ("conflux.link.1", ""),
        ("conflux.tether.1", ""),
        ("conflux.tether.1", "0123456789abcdef/3/2"),
        ("conflux.tether.1", "0123456789abcdef/0/9"),
        ("conflux.tether.1", "0123456789ABCDEF/0/1"),
    )
    for label, protocol in strange:
        channel = RTCDataChannel(
            right.carrier._links[RIGHT]._sctp, RTCDataChannelParameters(label=label, protocol=protocol)
        )
        channel.on("close", lambda label=label: (closed.append(label), done.set()))
    async with asyncio.timeout(PATIENCE_S):
        while len(closed) < len(strange):
            done.clear()
            await done.wait()
    assert left.carrier.drop_counts["channel-refused"] == len(strange)


@over_aiortc
async def test_malformed_sctp_ends_the_link(left: RtcSide, right: RtcSide) -> None:
    await open_link(left, right)
    link = right.carrier._links[RIGHT]
    opens_twice = struct.pack("!BBHLHH", 3, 0, 0, 0, 0, 0)  # DCEP open on a stream that is in use
    await link._sctp._send(1, 50, opens_twice)
    assert (await left.event(Closed)).end == CarrierEnd.SCTP_MALFORMED
    await right.event(Closed)


@over_aiortc
async def test_dead_peer_is_noticed_by_the_next_send(left: RtcSide, right: RtcSide) -> None:
    """The far process ends without a goodbye: its port answers with an ICMP error, and the checks stay unanswered."""
    await open_link(left, right)
    link = right.carrier._links[RIGHT]
    for endpoint in list(link._ice.endpoints):
        endpoint.transport.abort()
    left.carrier.perform(SendControl(LEFT, b"anybody there?"))
    assert (await left.event(Closed)).end == CarrierEnd.UNREACHABLE


@over_aiortc
async def test_error_about_a_peer_that_still_answers_ends_nothing(left: RtcSide, right: RtcSide) -> None:
    """An ICMP error can be forged, so it only starts a check."""
    await open_link(left, right)
    agent = left.carrier._links[LEFT]._ice
    (endpoint,) = agent.endpoints
    for _ in range(5):
        agent.error_about(endpoint, ("127.0.0.1", port_of(right)))
    assert agent._probing is not None
    await agent._probing
    left.carrier.perform(SendControl(LEFT, b"still here"))
    assert (await right.event(ControlArrived)).data == b"still here"
    assert not [event for event in left.events if isinstance(event, Closed)]


async def test_a_link_without_an_address_says_so_at_once() -> None:
    async with sides(addresses=()) as (left, _):
        left.carrier.perform(Describe(LEFT, initiator=True))
        assert await left.event(Closed) == Closed(LEFT, CarrierEnd.NO_ADDRESS)


async def test_a_link_without_an_address_describes_where_a_server_may_find_one() -> None:
    async with sides(addresses=(), ice_servers=(IceServer("stun", "127.0.0.1", 9, "udp"),)) as (left, right):
        ours, _ = await describe(left, right)
        assert ours.candidates == ()
