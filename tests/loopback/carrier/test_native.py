"""The native carrier on loopback: real sockets, ICE and DTLS, and the engine; also beside the carrier over aiortc."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
import struct
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kit.carrier import (
    LEFT,
    RIGHT,
    TETHER,
    NativeSide,
    RtcSide,
    Side,
    between,
    describe,
    open_link,
    open_tether,
    sides,
)
from kit.native import stun
from kit.tree import CEXT

from conflux.anchor import frame
from conflux.carrier.ice.agent import Ice
from conflux.carrier.ice.datagrams import DatagramTransport
from conflux.carrier.ice.server import IceServer
from conflux.carrier.interface import (
    LIFETIME_MS_MIN,
    TETHER_CHANNEL_COUNT,
    CarrierEnd,
    Closed,
    CloseTether,
    Connect,
    ControlArrived,
    Described,
    Disconnect,
    Opened,
    OpenTether,
    OutFrame,
    SendControl,
    TetherDown,
    TetherUp,
)
from conflux.carrier.native import dtls_keys
from conflux.carrier.native.dcep import PPID_BINARY, PPID_DCEP, PPID_STRING
from conflux.carrier.native.link import CARRIER_ENDS, RESETS_WAITING_MAX
from conflux.carrier.wire import (
    AES_128_GCM,
    CHACHA20_POLY1305,
    DtlsKeys,
    WireDatagram,
    WireEnd,
    WireMessage,
    WireUpcall,
)
from conflux.ids import TetherId

SIZES = (1, 2, 1100, 1200, 1201, 9000, 16384, 65535, 65536)

NATIVE = ("native", "native")
FIRST, SECOND = ("native", "rtc"), ("rtc", "native")
among_natives = between(NATIVE)
among_all = between(NATIVE, FIRST, SECOND)


@among_all
async def test_link_opens_and_carries_control_messages_of_every_size_in_order(left: Side, right: Side) -> None:
    await open_link(left, right)
    sent = [bytes([number + 1]) * size for number, size in enumerate(SIZES)]
    for data in sent:
        left.carrier.perform(SendControl(LEFT, data))
        right.carrier.perform(SendControl(RIGHT, data))
    for side in (left, right):

        def heard(side: Side = side) -> list[bytes]:
            return [event.data for event in side.events if isinstance(event, ControlArrived)]

        await side.until(lambda heard=heard: len(heard()) == len(sent))
        assert heard() == sent
        assert side.carrier.drop_counts == {}


@among_all
async def test_tether_comes_up_on_both_sides_whichever_opens_it(left: Side, right: Side) -> None:
    await open_link(left, right)
    await open_tether(left, right)
    other = TetherId(bytes(8))
    right.carrier.perform(OpenTether(RIGHT, other, 8))
    await left.until(lambda: TetherUp(LEFT, other) in left.events)
    await right.until(lambda: TetherUp(RIGHT, other) in right.events)


@among_all
async def test_closed_tether_goes_down_on_the_far_side_only(left: Side, right: Side) -> None:
    await open_link(left, right)
    await open_tether(left, right)
    left.carrier.perform(CloseTether(LEFT, TETHER))
    assert await right.event(TetherDown) == TetherDown(RIGHT, TETHER)
    assert not [event for event in left.events if isinstance(event, TetherDown)]


@among_all
async def test_many_tethers_open_and_close_one_after_another(left: Side, right: Side) -> None:
    await open_link(left, right)
    for number in range(40):
        tether = TetherId(bytes([number]) * 8)
        left.carrier.perform(OpenTether(LEFT, tether, 4))
        await right.until(lambda tether=tether: TetherUp(RIGHT, tether) in right.events)
        await left.until(lambda tether=tether: TetherUp(LEFT, tether) in left.events)
        left.carrier.perform(CloseTether(LEFT, tether))
        await right.until(lambda tether=tether: TetherDown(RIGHT, tether) in right.events)
    for side in (left, right):
        if isinstance(side, NativeSide):
            (link,) = side.carrier._links.values()
            await side.until(lambda link=link: link._channels.stream_count == 1)
            assert link._tether_of == {}


@among_natives
async def test_streams_of_a_closed_tether_wait_to_be_reset_and_go_with_those_that_the_peer_resets(
    left: NativeSide, right: NativeSide
) -> None:
    left.carrier._resets_wait_s = 0.3
    await open_link(left, right)
    await open_tether(left, right)
    left.carrier.perform(CloseTether(LEFT, TETHER))
    link = left.carrier._links[LEFT]
    assert len(link._resets) == TETHER_CHANNEL_COUNT
    assert not [event for event in right.events if isinstance(event, TetherDown)]
    await right.event(TetherDown)
    assert link._resets == []
    await left.until(lambda: link._channels.stream_count == 1)


@among_natives
async def test_so_many_streams_wait_to_be_reset(left: NativeSide, right: NativeSide) -> None:
    left.carrier._resets_wait_s = 60.0
    await open_link(left, right)
    for number in range(RESETS_WAITING_MAX // 8):
        tether = TetherId(bytes([number]) * 8)
        left.carrier.perform(OpenTether(LEFT, tether, 8))
        await left.until(lambda tether=tether: TetherUp(LEFT, tether) in left.events)
        left.carrier.perform(CloseTether(LEFT, tether))
    await right.event(TetherDown)


@among_all
async def test_disconnect_is_seen_by_the_far_side_at_once(left: Side, right: Side) -> None:
    await open_link(left, right)
    left.carrier.perform(Disconnect(LEFT))
    assert (await left.event(Closed)).end == CarrierEnd.ASKED
    assert (await right.event(Closed)).end == CarrierEnd.PEER  # without a goodbye it would be "consent"
    assert left.events[-1] == Closed(LEFT, CarrierEnd.ASKED)
    assert right.events[-1] == Closed(RIGHT, CarrierEnd.PEER)


@among_all
async def test_what_passed_on_a_link_that_ended_is_counted_and_only_once(left: Side, right: Side) -> None:
    await open_link(left, right)
    for side in (left, right):
        assert [link for link, _ in side.carrier.take_traffic()] == [side.events[0].link]
    left.carrier.perform(SendControl(LEFT, bytes(65536)))
    assert len((await right.event(ControlArrived)).data) == 65536
    left.carrier.perform(Disconnect(LEFT))
    for side, link in ((left, LEFT), (right, RIGHT)):
        await side.event(Closed)
        ((ended, counts),) = side.carrier.take_ended()
        sent, received = (sum(each) for each in zip(*counts.values(), strict=True))
        assert ended == link
        assert (sent if side is left else received) > 65536
        assert (received if side is left else sent) > 0  # acknowledgements
        assert list(side.carrier.take_traffic()) == []


@among_natives
async def test_link_that_is_over_is_freed_without_the_collector(left: NativeSide, right: NativeSide) -> None:
    """Else its keys and buffers would stay until the collector looks at its oldest generation."""
    gc.disable()
    try:
        await open_link(left, right)
        await open_tether(left, right)
        links = [link for side in (left, right) for link in side.carrier._links.values()]
        agents = [link._ice for link in links]
        endpoints = [endpoint for agent in agents for endpoint in agent.endpoints]
        parts = (*links, *agents, *endpoints, *(link._dtls for link in links), *(one.transport for one in endpoints))
        left_behind = [weakref.ref(part) for part in parts]
        assert len(left_behind) == 10
        del links, agents, endpoints, parts
        left.carrier.perform(Disconnect(LEFT))
        while left.carrier._tasks or right.carrier._tasks:  # noqa: ASYNC110  # they end after their last event
            await asyncio.sleep(0)
        assert [part() for part in left_behind if part() is not None] == []
    finally:
        gc.enable()


@between(FIRST)
async def test_frames_of_the_engine_reach_a_link_over_aiortc_unchanged(left: NativeSide, right: RtcSide) -> None:
    await open_link(left, right)
    await open_tether(left, right)
    sent = [bytes([number + 1]) * size for number, size in enumerate(SIZES)]
    for number, data in enumerate(sent):
        assert left.send_frame(LEFT, TETHER, number % 4, data)
    await right.until(lambda: len(right.frames) == len(sent))
    assert sorted(right.frames) == sorted(sent)


@between(SECOND)
async def test_frames_of_a_link_over_aiortc_reach_the_engine(left: RtcSide, right: NativeSide) -> None:
    await open_link(left, right)
    await open_tether(left, right)
    header = struct.pack("!BBBBIQ", frame.VERSION + 1, 0, 0, 0, 1234, 0)  # of a version that the engine drops
    for number, size in enumerate((32, 1200, 16384, 65536)):
        left.carrier.write(OutFrame(LEFT, TETHER, number % 4, header + bytes(size - len(header))))
    left.carrier.perform(SendControl(LEFT, b"that was all"))
    while right.drops("version") < 4:  # noqa: ASYNC110  # the engine counts and reports nothing
        await asyncio.sleep(0)
    await right.event(ControlArrived)
    assert not [one for one in right.upcalls if isinstance(one, WireMessage) and one.ppid == PPID_BINARY][1:]


@among_natives
async def test_frame_that_comes_before_the_acknowledgement_goes_to_the_engine(
    left: NativeSide, right: NativeSide
) -> None:
    """The accepting side may send at once: the opening side maps the stream before it sends OPEN."""
    await open_link(left, right)
    left.carrier.perform(OpenTether(LEFT, TETHER, 1))
    await right.event(TetherUp)
    header = struct.pack("!BBBBIQ", frame.VERSION, 0, 0, 0, 1234, 0)
    assert right.send_frame(RIGHT, TETHER, 0, header + bytes(16))
    while left.drops("unknown-label") < 1:  # noqa: ASYNC110  # the engine counts and reports nothing
        await asyncio.sleep(0)


@among_natives
async def test_frame_right_behind_the_opening_of_its_tether_goes_to_the_engine(
    left: NativeSide, right: NativeSide
) -> None:
    """The far end maps the stream only once it has read OPEN: what came behind goes up, and back down."""
    await open_link(left, right)
    header = struct.pack("!BBBBIQ", frame.VERSION + 1, 0, 0, 0, 1234, 0)  # of a version that the engine drops
    left.carrier.perform(OpenTether(LEFT, TETHER, 4))
    for channel in range(4):
        assert left.send_frame(LEFT, TETHER, channel, header + bytes(16))
    while right.drops("version") < 4:  # noqa: ASYNC110  # the engine counts and reports nothing
        await asyncio.sleep(0)
    assert right.drops("channel-closed") == right.drops("no-tether") == 0


@between(FIRST)
async def test_frame_right_behind_the_opening_of_its_tether_reaches_a_link_over_aiortc(
    left: NativeSide, right: RtcSide
) -> None:
    await open_link(left, right)
    left.carrier.perform(OpenTether(LEFT, TETHER, 1))
    assert left.send_frame(LEFT, TETHER, 0, bytes(32))
    await right.until(lambda: right.frames == [bytes(32)])


@among_natives
async def test_frame_has_the_same_lifetime_in_every_carrier(left: NativeSide, right: NativeSide) -> None:
    await open_link(left, right)
    left.carrier.perform(OpenTether(LEFT, TETHER, 1))
    await right.event(TetherUp)
    opens = [one for one in right.upcalls if isinstance(one, WireMessage) and one.ppid == PPID_DCEP]
    kind, lifetime_ms = opens[1].data[1], int.from_bytes(opens[1].data[4:8], "big")
    assert kind == 0x82  # unordered, for a time
    assert lifetime_ms >= LIFETIME_MS_MIN
    assert (left.wire.measured(LEFT).rtt_s or 0) < 1


@among_all
async def test_certificate_other_than_described_opens_nothing(left: Side, right: Side) -> None:
    ours, theirs = await describe(left, right)
    right.carrier.perform(Connect(RIGHT, ours))
    left.carrier.perform(Connect(LEFT, replace(theirs, dtls_sha256=bytes(32))))
    assert (await left.event(Closed)).end == CarrierEnd.DTLS
    await right.event(Closed)
    assert not [event for event in left.events + right.events if isinstance(event, Opened)]


@among_natives
async def test_peer_that_takes_no_whole_frame_is_refused(left: NativeSide, right: NativeSide) -> None:
    ours, theirs = await describe(left, right)
    right.carrier.perform(Connect(RIGHT, ours))
    left.carrier.perform(Connect(LEFT, replace(theirs, message_bytes_max=65535)))
    assert (await left.event(Closed)).end == CarrierEnd.MESSAGE_SIZE


@between(NATIVE, ("rtc", "rtc"))
async def test_disconnect_at_any_moment_leaves_nothing(left: Side, right: Side) -> None:
    for turn_count in range(0, 60, 3):
        ours, theirs = await describe(left, right)
        right.carrier.perform(Connect(RIGHT, ours))
        left.carrier.perform(Connect(LEFT, theirs))
        for _ in range(turn_count):
            await asyncio.sleep(0)
        left.carrier.perform(Disconnect(LEFT))
        right.carrier.perform(Disconnect(RIGHT))
        for side in (left, right):
            await side.event(Closed)
            assert side.carrier.socket_count() == 0
            side.events.clear()


@among_natives
async def test_dead_peer_is_noticed_by_the_next_send(left: NativeSide, right: NativeSide) -> None:
    await open_link(left, right)
    link = right.carrier._links[RIGHT]
    right.wire.remove(RIGHT)
    for endpoint in list(link._ice.endpoints):
        endpoint.transport.abort()
    left.carrier.perform(SendControl(LEFT, b"anybody there?"))
    assert (await left.event(Closed)).end == CarrierEnd.UNREACHABLE


@among_natives
async def test_consent_goes_on_through_the_engine(left: NativeSide, right: NativeSide) -> None:
    await open_link(left, right)
    agent = left.carrier._links[LEFT]._ice
    pair = agent._nominated[1]
    assert agent.remote_password is not None
    request = agent.build_request(pair, nominate=False)
    await pair.protocol.request(request, pair.remote_addr, integrity_key=agent.remote_password.encode())
    assert [one for one in right.upcalls if isinstance(one, WireDatagram)]
    assert [one for one in left.upcalls if isinstance(one, WireDatagram)]


@among_natives
async def test_channels_of_unknown_label_or_bounds_are_closed_again(left: NativeSide, right: NativeSide) -> None:
    await open_link(left, right)
    link = right.carrier._links[RIGHT]
    strange = (
        ("chat", ""),
        ("conflux.link.1", ""),
        ("conflux.tether.1", ""),
        ("conflux.tether.1", "0123456789abcdef/3/2"),
        ("conflux.tether.1", "0123456789abcdef/0/9"),
        ("conflux.tether.1", "0123456789ABCDEF/0/1"),
    )
    for label, protocol in strange:
        link._tether_of[link._channels.open(label, protocol)] = link._new_tether(TETHER, 0)
    link._settle()
    await right.until(lambda: link._channels.stream_count == 1)
    assert left.drops("channel-refused") == len(strange)


@among_natives
async def test_text_is_dropped_and_the_link_goes_on(left: NativeSide, right: NativeSide) -> None:
    await open_link(left, right)
    stream = right.carrier._links[RIGHT]._control
    assert stream is not None
    right.wire.send(RIGHT, stream, PPID_STRING, b"text")
    right.carrier.perform(SendControl(RIGHT, b"fine"))
    assert (await left.event(ControlArrived)).data == b"fine"
    assert left.drops("text-message") == 1


@among_natives
async def test_malformed_dcep_ends_the_link(left: NativeSide, right: NativeSide) -> None:
    await open_link(left, right)
    right.wire.send(RIGHT, 1, PPID_DCEP, bytes(12))
    assert (await left.event(Closed)).end == CarrierEnd.DCEP
    assert (await right.event(Closed)).end == CarrierEnd.PEER


@among_natives
async def test_library_that_fails_on_a_datagram_costs_that_datagram(left: NativeSide, right: NativeSide) -> None:
    raised: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))
    await open_link(left, right)
    bug = ValueError("of the library")

    def fail(self: Ice, data: bytes, address: object) -> None:
        raise bug

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ice, "engine_received", fail)
        left.carrier.wire_upcall(WireDatagram(LEFT, stun(), ("127.0.0.1", 9)))
    assert raised == [bug]
    right.carrier.perform(SendControl(RIGHT, b"still here"))
    assert (await left.event(ControlArrived)).data == b"still here"


@among_natives
async def test_strange_datagrams_neither_raise_nor_harm_the_link(left: NativeSide, right: NativeSide) -> None:
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    await open_link(left, right)
    described = next(event for event in left.events if isinstance(event, Described))
    port = int(described.local.candidates[0].split()[5])
    client_hello = b"\x16\xfe\xff" + bytes(8) + b"\0\x10" + b"\x01" + bytes(15)
    finished = b"\x16\xfe\xfd\0\1" + bytes(6) + b"\0\x28" + bytes(40)
    strange = [b"\0", b"\xff" * 40, b"\x80" * 40, b"\x17\xfe\xfd\0\1" + bytes(60), b"\0\1\0\0" + bytes(16)]
    strange += [stun(), stun(8), stun(1200)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for datagram in (*strange, *(100 * [client_hello, finished])):
            stranger.sendto(datagram, ("127.0.0.1", port))
    right.carrier.perform(SendControl(RIGHT, b"still here"))
    assert (await left.event(ControlArrived)).data == b"still here"
    left.carrier.perform(SendControl(LEFT, b"so am I"))
    assert (await right.event(ControlArrived)).data == b"so am I"
    assert raised == []
    assert left.drops("not-dtls-nor-stun") == left.drops("stun-malformed") == 2


@among_natives
async def test_suite_is_one_that_the_engine_carries_and_openssl_is_dropped(left: NativeSide, right: NativeSide) -> None:
    await open_link(left, right)
    for side, link in ((left, LEFT), (right, RIGHT)):
        handshake = side.carrier._links[link]._dtls
        await side.until(lambda handshake=handshake: handshake._ssl is None)  # the peer's first message came
        assert handshake._task is None


@between(NATIVE, FIRST)
async def test_lost_last_flight_is_repeated_after_the_takeover(left: NativeSide, right: Side) -> None:
    ours, theirs = await describe(left, right)
    outlet = left.carrier._links[LEFT]._dtls._outlet
    may_leave = outlet._may_leave
    lost: list[bytes] = []

    def lose_the_first(data: bytes) -> bool:
        if data[0] == 0x14 and not lost:  # ChangeCipherSpec, then Finished
            lost.append(data)
            return False
        return may_leave(data)

    outlet._may_leave = lose_the_first
    right.carrier.perform(Connect(RIGHT, ours))
    left.carrier.perform(Connect(LEFT, theirs))
    await right.event(Opened)
    await left.event(Opened)
    assert lost
    assert [one for one in left.upcalls if isinstance(one, WireDatagram) and one.data[0] == 0x16]


@pytest.mark.parametrize("prefers", [frame.AES_256_GCM, frame.CHACHA20_POLY1305])
@pytest.mark.parametrize("kinds", [NATIVE, FIRST, SECOND], ids="-".join)
async def test_suite_is_the_one_that_the_weaker_side_prefers(
    kinds: tuple[str, str], prefers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def take(*args: Any, **named: Any) -> DtlsKeys:
        keys = take_keys(*args, **named)
        taken.append(keys.cipher)
        return keys

    take_keys = dtls_keys.take_keys
    monkeypatch.setattr(dtls_keys, "take_keys", take)
    monkeypatch.setattr("conflux.carrier.native.handshake.best_aead", lambda: prefers)

    async with sides(*kinds) as (left, right):
        await open_link(left, right)
        left.carrier.perform(SendControl(LEFT, b"sealed"))
        assert (await right.event(ControlArrived)).data == b"sealed"
    assert set(taken) == {CHACHA20_POLY1305 if prefers == frame.CHACHA20_POLY1305 else AES_128_GCM}


@among_natives
async def test_sequence_number_of_the_engine_never_leaves_openssl(left: NativeSide, right: NativeSide) -> None:
    await open_link(left, right)
    outlet = left.carrier._links[LEFT]._dtls._outlet

    def record(epoch: int, sequence: int) -> bytes:
        return b"\x16\xfe\xfd" + (epoch << 48 | sequence).to_bytes(8, "big") + b"\0\2xx"

    last = dtls_keys.SEQUENCE_OUT - 1
    assert outlet._may_leave(record(0, 10**6) + record(1, last))
    assert not outlet._may_leave(record(0, 0) + record(1, last + 1))
    assert not outlet._may_leave(record(2, 0))


@pytest.mark.parametrize("kinds", [NATIVE, FIRST, SECOND], ids="-".join)
async def test_link_opens_over_ipv6(kinds: tuple[str, str]) -> None:
    async with sides(*kinds, addresses=("::1",)) as (left, right):
        await open_link(left, right)
        left.carrier.perform(SendControl(LEFT, bytes(65536)))
        assert (await right.event(ControlArrived)).data == bytes(65536)
        left.carrier.perform(Disconnect(LEFT))
        assert (await right.event(Closed)).end == CarrierEnd.PEER


@among_natives
async def test_links_that_come_and_go_leave_no_descriptor(left: NativeSide, right: NativeSide) -> None:
    counts = []
    for _ in range(12):
        await open_link(left, right)
        await open_tether(left, right)
        left.carrier.perform(Disconnect(LEFT))
        for side in (left, right):
            await side.event(Closed)
            side.events.clear()
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts == counts[:1] * len(counts)


async def test_pair_of_many_addresses_carries_whichever_the_peer_uses() -> None:
    from aioice.ice import CandidatePair

    async with sides("native", "rtc", addresses=("127.0.0.1", "127.0.0.2", "127.0.0.3")) as (left, right):
        await open_link(left, right)
        agent = right.carrier._links[RIGHT]._ice
        carried = agent._nominated[1]
        other = next(one for one in agent.remote_candidates if one is not carried.remote_candidate)
        agent._nominated[1] = CandidatePair(carried.protocol, other)  # a peer that changes to another pair
        right.carrier.perform(SendControl(RIGHT, b"by another way"))
        assert (await left.event(ControlArrived)).data == b"by another way"
        left.carrier.perform(SendControl(LEFT, b"and back"))
        assert (await right.event(ControlArrived)).data == b"and back"


@among_natives
async def test_relayed_pair_carries_a_link_through_a_socket_pair(idle: NativeSide, right: NativeSide) -> None:
    """As with TURN: between the engine and the peer there is a protocol that only aioice speaks."""
    from aioice import Candidate
    from aioice.ice import StunProtocol

    left = NativeSide(addresses=list, ice_servers=(IceServer("stun", "127.0.0.1", 9, "udp"),))
    try:
        ours, theirs = await describe(left, right)
        assert ours.candidates == ()
        agent = left.carrier._links[LEFT]._ice
        agent._addresses = ("127.0.0.1",)  # the link is inside this machine
        relay = StunProtocol(agent)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        DatagramTransport(agent._watch, sock, relay)
        text = f"1 1 udp 16777215 127.0.0.1 {sock.getsockname()[1]} typ relay raddr 127.0.0.1 rport 9"
        relay.local_candidate = Candidate.from_sdp(text)
        agent._protocols.append(relay)
        right.carrier.perform(Connect(RIGHT, replace(ours, candidates=(text,))))
        left.carrier.perform(Connect(LEFT, theirs))
        await left.event(Opened)
        await right.event(Opened)
        for size in SIZES:
            left.carrier.perform(SendControl(LEFT, bytes(size)))
            right.carrier.perform(SendControl(RIGHT, bytes(size)))
        for side in (left, right):

            def sizes(side: NativeSide = side) -> list[int]:
                return [len(event.data) for event in side.events if isinstance(event, ControlArrived)]

            await side.until(lambda sizes=sizes: len(sizes()) == len(SIZES))
            assert sizes() == list(SIZES)
        left.carrier.perform(Disconnect(LEFT))
        assert (await right.event(Closed)).end == CarrierEnd.PEER
    finally:
        await left.close()


def test_every_end_that_the_engine_reports_has_a_reason() -> None:
    parts = (CEXT / "sctp").glob("*.c"), (CEXT / "engine").glob("*.c")
    sctp, engine = ("".join(file.read_text() for file in files) for files in parts)
    of_sctp = set(re.findall(r'\[SCTP_END_\w+\]\s*=\s*"([a-z]+)"', sctp)) - {"none"}
    of_links = set(re.findall(r'\blinks_end\(\w+, "([a-z]+)"', engine))
    assert of_sctp | of_links == set(CARRIER_ENDS) == set(WireEnd)


@among_natives
async def test_tether_whose_channels_overtake_the_link_channel_comes_up(left: NativeSide, right: NativeSide) -> None:
    ours, theirs = await describe(left, right)
    link = right.carrier._links[RIGHT]
    settle, held = link._upcall_untrusted, []

    def overtaken(upcall: WireUpcall) -> None:
        """Hold the first message back until the tether's channels have come."""
        if isinstance(upcall, WireMessage) and not held:
            held.append(upcall)
            return
        settle(upcall)
        if isinstance(upcall, WireMessage) and len(link._offers) == TETHER_CHANNEL_COUNT:
            settle(held[0])

    link._upcall_untrusted = overtaken
    right.carrier.perform(Connect(RIGHT, ours))
    left.carrier.perform(Connect(LEFT, theirs))
    await left.event(Opened)
    left.carrier.perform(OpenTether(LEFT, TETHER, TETHER_CHANNEL_COUNT))
    assert (await left.event(TetherUp)).tether == TETHER
    assert (await right.event(TetherUp)).tether == TETHER
    assert right.drops("channel-refused") == 0
