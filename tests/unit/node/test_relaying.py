"""Passing the routes of others on: by whom, for whom, and what is refused."""

from __future__ import annotations

import pytest
from kit.nodes import CHANNEL_COUNT, FakeDatapath, FakeLinks, FakePlane, card_of, id_of

from conflux.carrier.interface import Hop
from conflux.control.who import Who
from conflux.ids import LinkId, NodeId, TetherId
from conflux.node.relaying import LOOKUP_COUNT_MAX, LOOKUP_PER_NEIGHBOUR_MAX, Relaying, may_relay
from conflux.route.event import LinkWanted, RelayGone, RelayReady
from conflux.route.message import RefusalWord

BEFORE, AHEAD = LinkId(1), LinkId(2)
BRAVO = id_of("bravo")


class FakeRelays:
    """What relaying tells the relays."""

    def __init__(self) -> None:
        self.opened: list[tuple[int, LinkId]] = []
        self.failed: list[tuple[int, RefusalWord]] = []

    def link_open(self, number: int, link: LinkId) -> None:
        self.opened.append((number, link))

    def link_failed(self, number: int, word: RefusalWord) -> None:
        self.failed.append((number, word))


class Relay:
    """A node that relays, among fakes: alpha is at the other end of link 1."""

    def __init__(self, *known: str) -> None:
        self.relays = FakeRelays()
        self.datapath = FakeDatapath()
        self.plane = FakePlane(id_of("rod"), {id_of(name): card_of(name) for name in known})
        self.links = FakeLinks()
        self.relaying = Relaying(
            self.relays,  # each fake has the part that relaying uses
            datapath=self.datapath,
            plane=self.plane,
            links=self.links,
            neighbour={BEFORE: id_of("alpha")}.get,
        )

    def want(self, number: int, node: NodeId, before: LinkId = BEFORE) -> None:
        self.relaying.on_event(LinkWanted(number, before, node), 0.0)


def hop(link: LinkId, label: int) -> Hop:
    return Hop(link, TetherId(bytes(8)), CHANNEL_COUNT, label, label + 1)


@pytest.mark.parametrize(
    ("relays", "may", "passes"), [(True, True, True), (True, False, False), (False, True, False), (False, False, False)]
)
def test_a_node_relays_only_if_it_offers_to_and_its_credential_allows_it(relays, may, passes):
    assert may_relay(card_of("rod", relays=relays, may=may)) == passes


def test_set_up_waits_for_the_link_to_the_next_hop():
    relay = Relay("bravo")
    relay.want(7, BRAVO)
    assert set(relay.links.users) == {id_of("alpha"), BRAVO}
    assert relay.relays.opened == []
    relay.relaying.link_up(BRAVO, AHEAD)
    assert relay.relays.opened == [(7, AHEAD)]


def test_open_link_to_the_next_hop_is_used_at_once():
    relay = Relay("bravo")
    relay.links.up[BRAVO] = AHEAD
    relay.want(7, BRAVO)
    assert relay.relays.opened == [(7, AHEAD)]


def test_next_hop_without_a_card_is_asked_and_no_other_node():
    relay = Relay()
    relay.want(7, BRAVO)
    assert relay.plane.asked == [Who(node=BRAVO)]
    relay.links.up[BRAVO] = AHEAD
    relay.relaying.card_found(BRAVO, 0.0)
    assert relay.relays.opened == [(7, AHEAD)]


def test_set_up_back_to_this_node_is_a_loop():
    relay = Relay()
    relay.want(7, id_of("rod"))
    assert relay.relays.failed == [(7, RefusalWord.LOOP)]


def test_next_hop_that_no_node_answers_to_is_unknown():
    relay = Relay()
    relay.want(7, BRAVO)
    relay.relaying.who_failed(Who(node=BRAVO))
    assert relay.relays.failed == [(7, RefusalWord.UNKNOWN_NEXT)]


def test_next_hop_that_cannot_be_dialled_is_unreachable():
    relay = Relay("bravo")
    relay.want(7, BRAVO)
    relay.relaying.dial_failed(BRAVO)
    assert relay.relays.failed == [(7, RefusalWord.UNREACHABLE)]


def test_one_neighbours_look_ups_are_bounded_and_leave_room_for_others():
    relay = Relay()
    for number in range(LOOKUP_PER_NEIGHBOUR_MAX + 1):
        relay.want(number, NodeId(number.to_bytes(16)))
    assert relay.relays.failed == [(LOOKUP_PER_NEIGHBOUR_MAX, RefusalWord.BUSY)]
    relay.want(100, BRAVO, before=LinkId(9))
    assert relay.plane.asked[-1] == Who(node=BRAVO)


def test_look_ups_of_all_neighbours_together_are_bounded():
    relay = Relay()
    for number in range(LOOKUP_COUNT_MAX + 1):
        relay.want(number, NodeId(number.to_bytes(16)), before=LinkId(number))
    assert relay.relays.failed == [(LOOKUP_COUNT_MAX, RefusalWord.BUSY)]
    assert len(relay.plane.asked) == LOOKUP_COUNT_MAX


def test_route_that_ends_leaves_no_label_and_no_link():
    relay = Relay("bravo")
    relay.links.up[BRAVO] = AHEAD
    relay.want(7, BRAVO)
    before, ahead = hop(BEFORE, 10), hop(AHEAD, 20)
    relay.relaying.on_event(RelayReady(7, before, ahead), 0.0)
    assert relay.datapath.relays == {(BEFORE, before.label_in): ahead}
    relay.relaying.on_event(RelayGone(7, before, ahead), 0.0)
    assert (relay.datapath.relays, relay.links.users) == ({}, {})


def test_set_up_that_ends_is_forgotten():
    relay = Relay()
    relay.want(7, BRAVO)
    relay.relaying.on_event(RelayGone(7, None, None), 0.0)
    relay.relaying.link_up(BRAVO, AHEAD)
    relay.relaying.dial_failed(BRAVO)
    assert (relay.relays.opened, relay.relays.failed, relay.links.users) == ([], [], {})
