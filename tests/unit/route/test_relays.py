"""Route machines in a row: sender, relays, destination; and what a relay refuses, forgets and bounds."""

from __future__ import annotations

import itertools

import pytest
from kit.builders import hop_key, make_card, make_member, make_realm

from conflux.carrier.interface import CloseTether, OpenTether
from conflux.errors import RemoteProtocolError
from conflux.ids import LinkId, StreamId
from conflux.route import onion
from conflux.route.event import (
    LinkWanted,
    ReceiverRoute,
    ReceiverRouteGone,
    RelayGone,
    RelayReady,
    RouteEnd,
    RouteFailed,
    RouteLost,
    RouteReady,
)
from conflux.route.message import (
    Confirm,
    Refusal,
    RefusalWord,
    Refuse,
    Setup,
    Teardown,
    decode_message_untrusted,
    encode_message,
)
from conflux.route.onion import HopKey
from conflux.route.relays import SETUP_TIMEOUT_S
from conflux.route.routes import LIFETIME_S, SETUP_BURST, SETUP_RATE, Routes

REALM = make_realm("relays")
STREAM = StreamId(b"stream of 16 b..")


class Station:
    """One node's route machine and the links it has."""

    def __init__(self, name: str, *, relaying: bool = True, accepts: bool = True) -> None:
        self.name = name
        self.member = make_member(REALM, name)
        self.card = make_card(self.member)
        counter = itertools.count(int.from_bytes(name.encode()[:2]) << 8)
        self.routes = Routes(
            REALM.anchor.realm_id,
            entropy=lambda size: (next(counter) % 256**size).to_bytes(size),
            unseal_slot=self._unseal,
            accepts=lambda stream: accepts,
            seal_confirmation=lambda stream, tag: stream + tag,
            unseal_confirmation=lambda stream, sealed: sealed[16:],
            relaying=relaying,
        )
        self.links: dict[LinkId, tuple[Station, LinkId]] = {}
        self.events: list[object] = []
        self.commands: list[object] = []
        self.heard: list[object] = []

    def _unseal(self, key_id: bytes, slot: bytes, info: bytes) -> bytes:
        if key_id != self.card.hop_key_id:
            raise RemoteProtocolError("stale-key")
        return hop_key(self.name).unseal(slot, info)

    @property
    def key(self) -> HopKey:
        return HopKey(self.card.node_id, self.card.hop_key_id, self.card.hop_public)

    def link_to(self, other: Station) -> LinkId:
        return next(link for link, (station, _) in self.links.items() if station is other)


class Row:
    """Stations in a row, with a link between neighbours.  Messages arrive and tethers open at once."""

    def __init__(self, *stations: Station) -> None:
        self.stations = stations
        for number, (a, b) in enumerate(itertools.pairwise(stations)):
            link_a, link_b = LinkId(10 + number), LinkId(20 + number)
            a.links[link_a], b.links[link_b] = (b, link_b), (a, link_a)
        self.now = 0.0

    def build(self, *hops: Station) -> int:
        first = self.stations[0]
        return first.routes.build(STREAM, [hop.key for hop in hops], first.link_to(hops[0]), now=self.now)

    def run(self) -> None:
        while any(self._step(station) for station in self.stations):
            pass

    def _step(self, station: Station) -> bool:
        routes, busy = station.routes, False
        while (event := routes.relays.next_event()) is not None:
            busy = True
            station.events.append(event)
            if isinstance(event, LinkWanted):
                self._find_link(station, event)
        for event in iter(routes.next_event, None):
            busy = True
            station.events.append(event)
        for command in iter(routes.next_command, None):
            busy = True
            station.commands.append(command)
            if isinstance(command, OpenTether):
                routes.tether_up(command.link, command.tether)
        for transmit in iter(routes.next_transmit, None):
            busy = True
            other, link = station.links[transmit.link]
            other.heard.append(decode_message_untrusted(transmit.data))
            try:
                other.routes.receive_untrusted(link, transmit.data, now=self.now)
            except RemoteProtocolError as error:
                other.events.append(error.reason)
        return busy

    def _find_link(self, station: Station, event: LinkWanted) -> None:
        for link, (other, _) in station.links.items():
            if other.card.node_id == event.node:
                station.routes.relays.link_open(event.relay, link)
                return
        station.routes.relays.link_failed(event.relay, RefusalWord.UNKNOWN_NEXT)


def of(station: Station, kind: type) -> list:
    return [event for event in station.events if isinstance(event, kind)]


@pytest.mark.parametrize("relay_count", [1, 2, 3])
def test_labels_join_up_from_the_sender_to_the_destination(relay_count):
    stations = [Station(name) for name in ("sender", "rod", "ruth", "rita")[: 1 + relay_count]] + [Station("end")]
    row = Row(*stations)
    row.build(*stations[1:])
    row.run()
    (ready,) = of(stations[0], RouteReady)
    (arrived,) = of(stations[-1], ReceiverRoute)
    hop = ready.hop
    for station in stations[1:-1]:
        (joined,) = of(station, RelayReady)
        assert (joined.before.label_in, joined.before.label_out) == (hop.label_out, hop.label_in)
        assert joined.before.tether == hop.tether
        hop = joined.ahead
    assert (arrived.hop.label_in, arrived.hop.label_out) == (hop.label_out, hop.label_in)
    assert arrived.stream == STREAM


def test_no_identifier_is_the_same_on_two_links():
    stations = [Station("sender"), Station("rod"), Station("ruth"), Station("end")]
    row = Row(*stations)
    row.build(*stations[1:])
    row.run()
    setups = [next(m for m in station.heard if isinstance(m, Setup)) for station in stations[1:]]
    for field in ("request", "tether", "label_back", "onion"):
        assert len({getattr(setup, field) for setup in setups}) == 3, field
    confirms = [next(m for m in station.heard if isinstance(m, Confirm)) for station in stations[:-1]]
    assert len({confirm.label for confirm in confirms}) == 3
    assert len({confirm.request for confirm in confirms}) == 3


def test_a_confirmed_relay_has_forgotten_next_node_onion_and_route_key():
    sender, rod, end = Station("sender"), Station("rod"), Station("end")
    row = Row(sender, rod, end)
    row.build(rod, end)
    row.run()
    (state,) = rod.routes.relays._relays.values()
    assert state.set_up is None
    assert set(rod.routes.relays.status()[0]._asdict()) == {"before", "ahead", "expires_at"}


@pytest.mark.parametrize("teller", ["sender", "end"])
def test_teardown_passes_through_from_either_end(teller):
    sender, rod, end = Station("sender"), Station("rod"), Station("end")
    row = Row(sender, rod, end)
    route = row.build(rod, end)
    row.run()
    if teller == "sender":
        sender.routes.close(route, b"last")
        row.run()
        assert of(end, ReceiverRouteGone)[0].last == b"last"
    else:
        (arrived,) = of(end, ReceiverRoute)
        message = encode_message(Teardown(arrived.hop.label_out, b""))
        rod.routes.receive_untrusted(rod.link_to(end), message, now=0.0)
        row.run()
        assert [event.end for event in of(sender, RouteLost)] == [RouteEnd.TORN_DOWN]
    assert rod.routes.relays.status() == ()
    assert of(rod, RelayGone)[0].before is not None
    assert isinstance(rod.commands[-1], CloseTether)
    assert rod.routes.next_timeout() is None


def test_lost_link_behind_a_relay_is_told_to_the_sender_at_once():
    sender, rod, end = Station("sender"), Station("rod"), Station("end")
    row = Row(sender, rod, end)
    row.build(rod, end)
    row.run()
    rod.routes.link_down(rod.link_to(end))
    row.run()
    assert [event.end for event in of(sender, RouteLost)] == [RouteEnd.TORN_DOWN]
    assert rod.routes.relays.status() == ()


@pytest.mark.parametrize(
    ("reason", "refuser"), [("unknown-next", "rod"), ("no-relay", "rod"), ("unknown-stream", "end"), ("loop", "rod")]
)
def test_refusals_reach_the_sender_with_their_reason_and_who_refused(reason, refuser):
    sender, rod = Station("sender"), Station("rod", relaying=reason != "no-relay")
    end = Station("end", accepts=reason != "unknown-stream")
    row = Row(sender, rod, end)
    hops = {"unknown-next": [rod, Station("unlinked")], "loop": [rod, sender]}.get(reason, [rod, end])
    row.build(*hops)
    row.run()
    (failed,) = of(sender, RouteFailed)
    assert (failed.refusal.word, failed.refusal.hop) == (reason, 0 if refuser == "rod" else 1)
    assert rod.routes.relays.status() == ()
    assert rod.routes.next_timeout() is None


def test_a_relay_cannot_read_a_refusal_that_is_not_its_own():
    sender, rod, end = Station("sender"), Station("rod"), Station("end", accepts=False)
    row = Row(sender, rod, end)
    row.build(rod, end)
    row.run()
    refusals = [message for station in (rod, sender) for message in station.heard if isinstance(message, Refuse)]
    assert len(refusals) == 2
    assert all(refusal.plain == b"" and b"unknown" not in refusal.sealed for refusal in refusals)


def test_turned_key_of_the_second_hop_is_told_by_the_first():
    sender, rod, end = Station("sender"), Station("rod"), Station("end")
    row = Row(sender, rod, end)
    old = Station("another key")
    wrong = HopKey(end.card.node_id, old.card.hop_key_id, old.card.hop_public)
    sender.routes.build(STREAM, [rod.key, wrong], sender.link_to(rod), now=0.0)
    row.run()
    (failed,) = of(sender, RouteFailed)
    assert failed.refusal == Refusal(RefusalWord.STALE_KEY, 1, of_next=True, said="next: stale-key")


def test_silent_next_hop_is_given_up_and_told():
    sender, rod, end = Station("sender"), Station("rod"), Station("end")
    row = Row(sender, rod, end)
    rod.links.clear()
    row.build(rod, end)
    (transmit,) = iter(sender.routes.next_transmit, None)
    rod.routes.receive_untrusted(LinkId(20), transmit.data, now=0.0)
    assert rod.routes.next_timeout() == SETUP_TIMEOUT_S
    rod.routes.handle_timeout(now=SETUP_TIMEOUT_S)
    answer = decode_message_untrusted(rod.routes.next_transmit().data)
    assert isinstance(answer, Refuse)
    assert rod.routes.next_timeout() is None


def test_one_neighbours_flood_of_set_ups_is_bounded_and_leaves_room_for_others(monkeypatch):
    monkeypatch.setattr("conflux.route.relays.RELAY_PER_NEIGHBOUR_MAX", 5)
    sender, rod, end = Station("sender"), Station("rod"), Station("end")
    row = Row(sender, rod, end)
    for _ in range(10):
        row.build(rod, end)
        row.run()
    assert len(rod.routes.relays.status()) == 5
    assert [event.refusal.word for event in of(sender, RouteFailed)] == [RefusalWord.BUSY] * 5


def test_replayed_set_up_is_not_passed_on():
    sender, rod, end = Station("sender"), Station("rod"), Station("end")
    row = Row(sender, rod, end)
    row.build(rod, end)
    (transmit,) = iter(sender.routes.next_transmit, None)
    rod.routes.receive_untrusted(rod.link_to(sender), transmit.data, now=0.0)
    row.run()
    with pytest.raises(RemoteProtocolError, match="replay"):
        rod.routes.receive_untrusted(rod.link_to(sender), transmit.data, now=1.0)
    assert len(rod.routes.relays.status()) == 1


def test_the_sender_notices_a_confirmation_that_a_relay_forged():
    sender, rod, end = Station("sender"), Station("rod"), Station("end")
    row = Row(sender, rod, end)
    row.build(rod, end)
    (transmit,) = iter(sender.routes.next_transmit, None)
    setup = decode_message_untrusted(transmit.data)
    forged = encode_message(Confirm(setup.request, 77, STREAM + bytes(16)))
    with pytest.raises(RemoteProtocolError, match="auth"):
        sender.routes.receive_untrusted(sender.link_to(rod), forged, now=0.0)
    assert of(sender, RouteReady) == []
    assert row.stations[0].routes.status()[0].ready is False


def test_teardown_of_a_guessed_label_is_refused():
    sender, rod, end = Station("sender"), Station("rod"), Station("end")
    row = Row(sender, rod, end)
    row.build(rod, end)
    row.run()
    (joined,) = of(rod, RelayReady)
    for label in (0, joined.before.label_in ^ 1, joined.ahead.label_in, joined.before.label_out):
        with pytest.raises(RemoteProtocolError, match="unknown-label"):
            rod.routes.receive_untrusted(rod.link_to(sender), encode_message(Teardown(label, b"")), now=0.0)
    assert len(rod.routes.relays.status()) == 1


def test_set_ups_beyond_a_neighbours_rate_are_refused_before_their_slot_is_opened():
    sender, rod, end = Station("sender"), Station("rod", relaying=False), Station("end")
    Row(sender, rod, end)
    opened = []
    rod.routes._unseal_slot = lambda *slot: opened.append(slot) or bytes(onion._PLAIN_BYTES)
    setup = encode_message(Setup(bytes(8), bytes(8), 4, 7, bytes(onion.ONION_BYTES)))

    def flood(now: float) -> int:
        before, reasons = len(opened), []
        for _ in range(1000):
            try:
                rod.routes.receive_untrusted(rod.link_to(sender), setup, now=now)
            except RemoteProtocolError as error:
                reasons.append(error.reason)
        assert reasons.count("flood") == 1000 - (len(opened) - before)
        return len(opened) - before

    assert flood(0.0) == SETUP_BURST
    assert flood(1.0) == SETUP_RATE
    answers = [decode_message_untrusted(each.data) for each in iter(rod.routes.next_transmit, None)]
    assert answers[-1].plain == b"busy"
    with pytest.raises(RemoteProtocolError, match="auth"):  # set-ups of another neighbour are looked at
        rod.routes.receive_untrusted(rod.link_to(end), setup, now=1.0)


def test_confirmation_that_comes_too_late_leaves_no_route_behind():
    sender, rod, end = Station("sender"), Station("rod"), Station("end")
    row = Row(sender, rod, end)
    route = row.build(rod, end)
    (transmit,) = iter(sender.routes.next_transmit, None)
    sender.routes.close(route)
    rod.routes.receive_untrusted(rod.link_to(sender), transmit.data, now=0.0)
    row.run()
    assert len(of(end, ReceiverRoute)) == len(of(end, ReceiverRouteGone)) == 1
    assert rod.routes.relays.status() == ()


def test_a_set_up_dropped_after_the_next_hop_confirmed_leaves_nothing_there():
    sender, rod, end = Station("sender"), Station("rod"), Station("end")
    row = Row(sender, rod, end)
    row.build(rod, end)
    (transmit,) = iter(sender.routes.next_transmit, None)
    setup = decode_message_untrusted(transmit.data)
    rod.routes.receive_untrusted(rod.link_to(sender), transmit.data, now=0.0)
    row._find_link(rod, rod.routes.relays.next_event())
    onward = rod.routes.next_transmit()
    end.routes.receive_untrusted(end.link_to(rod), onward.data, now=0.0)
    rod.routes.receive_untrusted(
        rod.link_to(end), end.routes.next_transmit().data, now=0.0
    )  # the tether to it is not open yet
    rod.routes.tether_down(rod.link_to(sender), setup.tether)
    row.run()
    assert len(of(end, ReceiverRoute)) == len(of(end, ReceiverRouteGone)) == 1


def test_a_passed_route_lives_for_the_lifetime_its_sender_gave_and_no_longer():
    sender, rod, end = Station("sender"), Station("rod"), Station("end")
    row = Row(sender, rod, end)
    row.build(rod, end)
    row.run()
    expires_at = rod.routes.relays.next_timeout()
    assert expires_at == SETUP_TIMEOUT_S + LIFETIME_S
    rod.routes.handle_timeout(now=expires_at - 0.001)
    assert len(rod.routes.relays.status()) == 1
    rod.routes.handle_timeout(now=expires_at)
    row.run()
    assert rod.routes.relays.status() == ()
    assert [event.end for event in of(sender, RouteLost)] == [RouteEnd.TORN_DOWN]
    assert len(of(end, ReceiverRouteGone)) == 1
