"""Floods of what only Python can answer: a link's peer, or a stranger, delays no other link."""

from __future__ import annotations

import select
import struct
from collections.abc import Callable

import pytest
from kit.native import BINARY, Pair, World, stun

from conflux.carrier.wire import WireClosed, WireDatagram, WireEnd, WireMessage, WireReset
from conflux.datapath.config import DatapathConfig
from conflux.ids import LinkId

COUNT_MAX = 15
HANDSHAKE_COUNT_MAX = 32  # cext/engine/datagrams.c


def handshake(sequence: int) -> bytes:
    """Return one record of a handshake."""
    return struct.pack(">BHQH", 22, 0xFEFD, sequence, 3) + b"abc"


@pytest.fixture
def pair(made: World) -> Pair:
    """A's stream to B, both with few upcalls."""
    return Pair(made, DatapathConfig(upcall_count_max=COUNT_MAX))


def stranger(pair: Pair, link: LinkId) -> Callable[[bytes], object]:
    """Return what sends to one of B's links from an unknown address."""
    made = pair.world.socket()
    there = pair.b.sockets[link].getsockname()
    return lambda datagram: made.sendto(datagram, there)


def test_a_flood_of_stun_over_one_link_keeps_out_no_other_links(pair: Pair) -> None:
    _, quiet = pair.world.join(pair.a, pair.b, tethers=())
    pair.b.is_deaf = True
    flood, check = stranger(pair, pair.link_b), stranger(pair, quiet)
    for _ in range(3 * COUNT_MAX):  # no more than the ration of a link
        flood(stun(80))
    pair.world.until(lambda: pair.b.drops.get("upcall-full") == 2 * COUNT_MAX)
    for _ in range(3):
        check(stun())
    pair.world.step()
    pair.b.is_deaf = False
    pair.world.until(lambda: sum(isinstance(each, WireDatagram) and each.link == quiet for each in pair.b.wires) == 3)
    assert pair.b.drops == {"upcall-full": 2 * COUNT_MAX}


def test_a_flood_of_messages_over_one_link_keeps_out_no_other_links(pair: Pair) -> None:
    mine, quiet = pair.world.join(pair.a, pair.b, tethers=())
    pair.b.is_deaf = True
    for _ in range(3 * COUNT_MAX):
        assert pair.a.wire.send(pair.link_a, 1, BINARY, b"flood")
    pair.world.until(lambda: pair.b.drops.get("upcall-full") == 2 * COUNT_MAX)
    assert pair.a.wire.send(mine, 1, BINARY, b"control")
    pair.world.until(lambda: pair.b.engine.link(quiet)["messages_received"])  # it is there
    pair.b.is_deaf = False
    pair.world.until(lambda: WireMessage(quiet, 1, BINARY, b"control") in pair.b.wires)


def test_forged_handshakes_before_the_link_opens_are_few(made: World) -> None:
    node, ours, theirs = made.node(), made.socket(), made.socket()
    made.add_link(node, LinkId(7), ours, theirs.getsockname(), made.pair_keys()[0])
    for sequence in range(HANDSHAKE_COUNT_MAX + 10):
        theirs.sendto(handshake(sequence), ours.getsockname())
    made.until(lambda: node.drops == {"dtls-late": 10})
    made.until(lambda: len(node.wires) == HANDSHAKE_COUNT_MAX)
    assert node.wires[0] == WireDatagram(LinkId(7), handshake(0), theirs.getsockname())


def test_a_datagram_full_of_handshake_records_costs_an_open_link_one_look(pair: Pair) -> None:
    stranger(pair, pair.link_b)(b"".join(map(handshake, range(80))))
    pair.world.until(lambda: pair.b.drops == {"dtls-late": 1})
    assert len(pair.b.wires) == 1  # the WireOpened


def test_a_reset_that_finds_no_room_among_the_upcalls_ends_the_link(made: World) -> None:
    pair = Pair(made, DatapathConfig(upcall_count_max=2))
    _, quiet = made.join(pair.a, pair.b, tethers=())
    pair.b.is_deaf = True
    for count in range(1, 4):
        pair.a.wire.reset(pair.link_a, (100 + count,))
        made.until(lambda count=count: sum(isinstance(each, (WireReset, WireClosed)) for each in pair.a.wires) == count)
    pair.b.is_deaf = False
    made.until(lambda: WireClosed(pair.link_b, WireEnd.FLOOD) in pair.b.wires)
    assert WireClosed(pair.link_a, WireEnd.ABORTED) in pair.a.wires
    assert pair.b.engine.link(quiet)["open"]  # it is there


def test_upcalls_behind_one_that_raises_are_handled_once_in_order_by_the_next_calls(pair: Pair) -> None:
    handle, bugs = pair.b._wire_upcall, [b"1", b"2", b"4"]

    def raises(upcall: WireMessage) -> None:
        if upcall.data in bugs:
            raise KeyError(upcall.data)  # as a library might raise
        handle(upcall)

    pair.b.datapath.attach(raises)
    pair.b.is_deaf = True
    for number in range(5):
        assert pair.a.wire.send(pair.link_a, 1, BINARY, b"%d" % number)
    pair.world.until(lambda: pair.b.engine.link(pair.link_b)["messages_received"] == 5)
    pair.b.is_deaf = False
    raised = []
    while select.select([pair.b.datapath.fd], [], [], 0)[0]:
        try:
            pair.b.collect(0.0)
        except KeyError as error:
            raised += error.args
            assert pair.a.wire.send(pair.link_a, 1, BINARY, b"later")
    assert raised == bugs
    pair.world.until(lambda: len(pair.b.wires) == 6)
    assert [each.data for each in pair.b.wires[1:]] == [b"0", b"3", b"later", b"later", b"later"]
