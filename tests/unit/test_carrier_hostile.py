"""What a stranger, a liar or a careless peer can do to a link: nothing but be counted."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from ipaddress import ip_network
from typing import Any, cast

import pytest
from test_carrier_rtc import LEFT, PATIENCE_S, RIGHT, TETHER, Side, describe, on_loopback, open_link, open_tether

from conflux.carrier.interface import CandidatesFound, Closed, ControlArrived, Describe, Described, SendControl
from conflux.carrier.rtc import RtcCarrier
from conflux.carrier.server import IceServer
from conflux.carrier.tether import parse_protocol_untrusted
from conflux.errors import ConfigError

COOKIE = 0x2112A442  # RFC 8489, section 5


def stun_message(attributes: bytes) -> bytes:
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


def port_of(side: Side) -> int:
    described = next(event for event in side.events if isinstance(event, Described))
    return int(described.local.candidates[0].split()[5])


@on_loopback
async def test_strange_datagrams_neither_raise_nor_harm_the_link(left: Side, right: Side) -> None:
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


@on_loopback
async def test_text_and_oversized_messages_are_dropped(left: Side, right: Side) -> None:
    await open_link(left, right)
    await open_tether(left, right, 1)
    link = right.carrier._links[RIGHT]
    tether = link.tether(TETHER)
    assert tether is not None
    assert link._control is not None
    assert tether.channels[0] is not None
    link._sctp._remote_max_message_size = 0  # a peer that does not care what we can take
    link._control.send("text")
    link._control.send(bytes(65537))
    tether.channels[0].send("text")
    link._control.send(b"fine")
    assert (await left.event(ControlArrived)).data == b"fine"
    await left.until(lambda: left.frames == [])
    assert left.carrier.drop_counts["oversized"] == 1
    assert left.carrier.drop_counts["text-message"] >= 1


@on_loopback
async def test_channels_of_unknown_label_or_bounds_are_closed_again(left: Side, right: Side) -> None:
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


@on_loopback
async def test_sctp_that_makes_no_sense_ends_the_link(left: Side, right: Side) -> None:
    await open_link(left, right)
    link = right.carrier._links[RIGHT]
    opens_twice = struct.pack("!BBHLHH", 3, 0, 0, 0, 0, 0)  # DCEP open on a stream that is in use
    await link._sctp._send(1, 50, opens_twice)
    assert (await left.event(Closed)).reason == "sctp-malformed"
    await right.event(Closed)


def test_dead_peer_is_noticed_by_the_next_thing_sent() -> None:
    """The far process is gone without a word: its socket answers with an ICMP error, and nothing answers the probe."""

    async def main() -> None:
        left, right = Side(), Side()
        await open_link(left, right)
        link = right.carrier._links[RIGHT]
        for endpoint in list(link._ice.endpoints):
            endpoint.transport.abort()
        left.carrier.perform(SendControl(LEFT, b"anybody there?"))
        async with asyncio.timeout(2):
            assert (await left.event(Closed)).reason == "unreachable"
        await left.carrier.close()
        await right.carrier.close()

    asyncio.run(main())


def test_error_about_a_peer_that_still_answers_ends_nothing() -> None:
    """An ICMP error can be forged: it only makes us ask."""

    async def main() -> None:
        left, right = Side(), Side()
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
        await left.carrier.close()
        await right.carrier.close()

    asyncio.run(main())


class StunServer(asyncio.DatagramProtocol):
    """Answers every binding request with one mapped address."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        mapped = struct.pack("!HHBBHI", 0x0020, 8, 0, 1, 4242 ^ (COOKIE >> 16), 0xC6336401 ^ COOKIE)  # 198.51.100.1
        self.transport.sendto(struct.pack("!HHI", 0x0101, len(mapped), COOKIE) + data[8:20] + mapped, addr)


def test_what_stun_finds_follows_the_description() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server, protocol = await loop.create_datagram_endpoint(StunServer, local_addr=("127.0.0.1", 0))
        port = server.get_extra_info("sockname")[1]
        side = Side(ice_servers=(IceServer.parse(f"stun:127.0.0.1:{port}"),))
        side.carrier.perform(Describe(LEFT, initiator=True))
        found = await side.event(CandidatesFound)
        assert [type(event) for event in side.events] == [Described, CandidatesFound]
        assert " 198.51.100.1 4242 typ srflx " in found.candidates[0]
        await side.carrier.close()
        server.close()
        await protocol.closed.wait()

    asyncio.run(main())


def test_silent_stun_server_delays_nothing() -> None:
    async def main() -> None:
        silent = IceServer.parse("stun:127.0.0.1:9")
        left, right = Side(ice_servers=(silent,)), Side(ice_servers=(silent,))
        async with asyncio.timeout(1):
            await open_link(left, right)
        await left.carrier.close()
        await right.carrier.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "credentials", "expected"),
    [
        ("stun:example.net", (), ("stun", "example.net", 3478, "udp")),
        ("stun:[2001:db8::1]:19302", (), ("stun", "2001:db8::1", 19302, "udp")),
        ("turn:example.net?transport=tcp", ("u", "p"), ("turn", "example.net", 3478, "tcp")),
        ("turns:example.net:443", ("u", "p"), ("turns", "example.net", 443, "tcp")),
    ],
)
def test_server_urls_are_read(url: str, credentials: tuple[str, ...], expected: tuple[object, ...]) -> None:
    server = IceServer.parse(url, *credentials)
    assert (server.scheme, server.host, server.port, server.transport) == expected


@pytest.mark.parametrize(
    "url",
    ["", "example.net", "http://example.net", "stun:", "stun:a:0", "stun:a:99999", "stun:a?transport=tcp", "turn:a"],
)
def test_wrong_server_urls_are_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(url))):
        IceServer.parse(url)


def test_password_of_a_server_is_not_shown() -> None:
    assert "secret" not in repr(IceServer.parse("turn:a", "u", "secret"))


@pytest.mark.parametrize(
    "protocol", ["", "x", "0123456789abcdef/0/0", "0123456789abcdef/1/1", "0123456789abcdef/0/1\n"]
)
def test_protocol_fields_that_name_no_channel_are_refused(protocol: str) -> None:
    assert parse_protocol_untrusted(protocol) is None


def test_carrier_with_nothing_to_offer_still_describes() -> None:
    async def main() -> None:
        side = Side(addresses=None, excluded=(ip_network("0.0.0.0/0"), ip_network("::/0")))
        other = Side()
        ours, _ = await describe(side, other)
        assert ours.candidates == ()
        await side.carrier.close()
        await other.carrier.close()

    RtcCarrier.prepare()
    asyncio.run(main())
