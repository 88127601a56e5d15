"""Two route machines over one link: set-up, confirmation, refusals, teardown, bounds."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from kit.builders import hop_key, make_card, make_member, make_realm

from conflux.carrier.interface import TETHER_CHANNEL_COUNT_MAX, CloseTether, OpenTether
from conflux.errors import RemoteProtocolError
from conflux.ids import LinkId, StreamId
from conflux.realm.card import Card
from conflux.route import routes
from conflux.route.event import (
    ReceiverRoute,
    ReceiverRouteGone,
    RouteAsked,
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
from conflux.route.onion import ONION_BYTES, HopKey
from conflux.route.routes import (
    CONFIRM_TIMEOUT_S,
    HELD_COUNT_MAX,
    HELD_PER_LINK_MAX,
    HOLD_S,
    INCOMING_PER_LINK_MAX,
    Routes,
)

REALM = make_realm("routes")
D = make_member(REALM, "destination")
D_CARD = make_card(D)
STREAM = StreamId(b"stream of 16 b..")
LINK_S, LINK_D = LinkId(3), LinkId(9)


def hop(card: Card) -> HopKey:
    return HopKey(card.node_id, card.hop_key_id, card.hop_public)


class Entropy:
    def __init__(self, first: int) -> None:
        self.count = first

    def __call__(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size)


def unseal_slot(key_id: bytes, slot: bytes, info: bytes) -> bytes:
    if key_id != D_CARD.hop_key_id:
        raise RemoteProtocolError("stale-key")
    return hop_key("destination").unseal(slot, info)


def end(first: int, *, accepts: bool = True, relaying: bool = False, known: set[StreamId] | None = None) -> Routes:
    """Return an end whose confirmations are "sealed" by a prefix; the datapath seals the real ones."""

    def unseal(stream: StreamId, sealed: bytes) -> bytes:
        if not sealed.startswith(stream):
            raise RemoteProtocolError("auth")
        return sealed[16:]

    return Routes(
        REALM.anchor.realm_id,
        entropy=Entropy(first),
        unseal_slot=unseal_slot,
        accepts=lambda stream: accepts if known is None else stream in known,
        seal_confirmation=lambda stream, tag: stream + tag,
        unseal_confirmation=unseal,
        relaying=relaying,
        awaits_stream=lambda: known is not None,
    )


def said(word: str) -> Refusal:
    """Return the refusal of the first hop, for itself."""
    known = word in list(RefusalWord)
    return Refusal(RefusalWord(word) if known else RefusalWord.OTHER, 0, of_next=False, said=word)


def events(side: Routes) -> list:
    return list(iter(side.next_event, None))


def commands(side: Routes) -> list:
    return list(iter(side.next_command, None))


def sent(side: Routes):
    return decode_message_untrusted(side.next_transmit().data)


def ready(s: Routes, d: Routes) -> tuple[RouteReady, ReceiverRoute]:
    s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    d.receive_untrusted(LINK_D, s.next_transmit().data, now=0.0)
    s.receive_untrusted(LINK_S, d.next_transmit().data, now=0.0)
    opened = commands(s)[0]
    s.tether_up(LINK_S, opened.tether)
    (at_s,), (at_d,) = events(s), events(d)
    return at_s, at_d


def test_set_up_gives_both_ends_each_others_labels():
    at_s, at_d = ready(end(0), end(1000))
    assert isinstance(at_s, RouteReady)
    assert isinstance(at_d, ReceiverRoute)
    assert at_d.stream == STREAM
    assert (at_s.hop.label_out, at_s.hop.label_in) == (at_d.hop.label_in, at_d.hop.label_out)
    assert at_s.hop.tether == at_d.hop.tether
    assert (at_s.hop.link, at_d.hop.link) == (LINK_S, LINK_D)


def test_direct_set_up_asks_for_the_label_that_frames_may_follow_under():
    rng = random.Random(1)
    s, d = end(0), end(1000)
    s._entropy = s._labels._entropy = rng.randbytes
    route = s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    (asked,) = events(s)
    assert isinstance(asked, RouteAsked)
    assert asked.route == route
    d.receive_untrusted(LINK_D, s.next_transmit().data, now=0.0)
    (taken,) = events(d)
    assert taken.hop.label_in == asked.hop.label_out != 0
    assert taken.hop.label_out == asked.hop.label_in


def test_label_that_is_in_use_on_the_link_is_not_given_twice():
    rng = random.Random(1)
    s, d = end(0), end(1000)
    s._entropy = s._labels._entropy = rng.randbytes
    s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    (asked,) = events(s)
    d._labels.take(LINK_D, asked.hop.label_out)
    d.receive_untrusted(LINK_D, s.next_transmit().data, now=0.0)
    (taken,) = events(d)
    assert taken.hop.label_in != asked.hop.label_out
    s.receive_untrusted(LINK_S, d.next_transmit().data, now=0.0)
    s.tether_up(LINK_S, commands(s)[0].tether)
    (confirmed,) = events(s)
    assert confirmed.hop.label_out == taken.hop.label_in, "the confirmation says which"


def test_nothing_may_follow_the_set_up_of_a_route_through_a_relay():
    rng = random.Random(1)
    s = end(0)
    s._entropy = s._labels._entropy = rng.randbytes
    s.build(STREAM, [hop(D_CARD), hop(D_CARD)], LINK_S, now=0.0)
    assert events(s) == []


def test_route_is_not_ready_before_its_tether_is_open():
    s, d = end(0), end(1000)
    s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    d.receive_untrusted(LINK_D, s.next_transmit().data, now=0.0)
    s.receive_untrusted(LINK_S, d.next_transmit().data, now=0.0)
    assert events(s) == []
    assert isinstance(commands(s)[0], OpenTether)


def test_the_onion_names_no_stream_and_differs_every_time():
    s = end(0)
    s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    first, second = sent(s), sent(s)
    assert first.onion != second.onion
    assert STREAM not in encode_message(first)


def test_replayed_set_up_is_refused():
    s, d = end(0), end(1000)
    s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    setup = s.next_transmit().data
    d.receive_untrusted(LINK_D, setup, now=0.0)
    d.next_transmit()
    events(d)
    with pytest.raises(RemoteProtocolError, match="replay"):
        d.receive_untrusted(LINK_D, setup, now=1.0)
    assert isinstance(sent(d), Refuse)
    assert events(d) == []


def test_slots_are_remembered_up_to_the_bound_and_the_oldest_is_forgotten(monkeypatch):
    monkeypatch.setattr(routes, "SEEN_COUNT_MAX", 2)
    s, d = end(0), end(1000)
    setups = []
    for _ in range(3):
        s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
        setups.append(s.next_transmit().data)
    for setup in setups[:2]:
        d.receive_untrusted(LINK_D, setup, now=0.0)
    with pytest.raises(RemoteProtocolError, match="replay"):
        d.receive_untrusted(LINK_D, setups[0], now=0.0)
    d.receive_untrusted(LINK_D, setups[2], now=0.0)
    with pytest.raises(RemoteProtocolError, match="replay"):
        d.receive_untrusted(LINK_D, setups[1], now=0.0)
    d.receive_untrusted(LINK_D, setups[0], now=0.0)


def test_unknown_stream_is_refused_under_the_route_key():
    s, d = end(0), end(1000, accepts=False)
    route = s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    d.receive_untrusted(LINK_D, s.next_transmit().data, now=0.0)
    refusal = d.next_transmit().data
    assert b"unknown-stream" not in refusal
    s.receive_untrusted(LINK_S, refusal, now=0.0)
    assert events(s) == [RouteFailed(route, STREAM, RouteEnd.REFUSED, said("unknown-stream"))]
    assert isinstance(commands(s)[-1], CloseTether)


def test_slot_for_a_key_that_turned_is_refused_by_name():
    s, d = end(0), end(1000)
    route = s.build(STREAM, [hop(make_card(make_member(REALM, "another node")))], LINK_S, now=0.0)
    with pytest.raises(RemoteProtocolError, match="stale-key"):
        d.receive_untrusted(LINK_D, s.next_transmit().data, now=0.0)
    s.receive_untrusted(LINK_S, d.next_transmit().data, now=0.0)
    assert events(s) == [RouteFailed(route, STREAM, RouteEnd.REFUSED, said("stale-key"))]


def test_confirmation_of_another_route_is_refused():
    s, d = end(0), end(1000)
    for _ in range(2):
        s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    first, second = s.next_transmit().data, s.next_transmit().data
    d.receive_untrusted(LINK_D, first, now=0.0)
    d.receive_untrusted(LINK_D, second, now=0.0)
    confirms = [sent(d), sent(d)]
    swapped = Confirm(confirms[0].request, confirms[0].label, confirms[1].sealed)
    with pytest.raises(RemoteProtocolError, match="auth"):
        s.receive_untrusted(LINK_S, encode_message(swapped), now=0.0)
    assert events(s) == []


def test_forged_confirmation_is_refused():
    s = end(0)
    s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    setup = sent(s)
    with pytest.raises(RemoteProtocolError, match="auth"):
        s.receive_untrusted(LINK_S, encode_message(Confirm(setup.request, 5, STREAM + bytes(16))), now=0.0)


def test_answer_over_another_link_is_refused():
    s, d = end(0), end(1000)
    s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    d.receive_untrusted(LINK_D, s.next_transmit().data, now=0.0)
    with pytest.raises(RemoteProtocolError, match="unexpected"):
        s.receive_untrusted(LinkId(4), d.next_transmit().data, now=0.0)


def test_silence_fails_the_route_and_closes_its_tether():
    s = end(0)
    route = s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    assert s.next_timeout() == CONFIRM_TIMEOUT_S
    s.handle_timeout(now=CONFIRM_TIMEOUT_S)
    assert events(s) == [RouteFailed(route, STREAM, RouteEnd.TIMEOUT)]
    assert isinstance(commands(s)[-1], CloseTether)
    assert s.next_timeout() is None


def test_teardown_carries_the_streams_last_frame():
    s, d = end(0), end(1000)
    at_s, at_d = ready(s, d)
    assert s.close(at_s.route, b"last frame") == at_s.hop
    d.receive_untrusted(LINK_D, s.next_transmit().data, now=0.0)
    assert events(d) == [ReceiverRouteGone(STREAM, at_d.hop, b"last frame")]
    assert s.next_timeout() is None


def test_guessed_label_tears_nothing_down():
    s, d = end(0), end(1000)
    _, at_d = ready(s, d)
    with pytest.raises(RemoteProtocolError, match="unknown-label"):
        d.receive_untrusted(LINK_D, encode_message(Teardown(at_d.hop.label_in ^ 1, b"")), now=0.0)
    assert events(d) == []


def test_routes_over_a_lost_link_end():
    s, d = end(0), end(1000)
    at_s, at_d = ready(s, d)
    pending = s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    s.link_down(LINK_S)
    d.link_down(LINK_D)
    assert events(s) == [
        RouteLost(at_s.route, STREAM, at_s.hop, RouteEnd.LINK_DOWN),
        RouteFailed(pending, STREAM, RouteEnd.LINK_DOWN),
    ]
    assert events(d) == [ReceiverRouteGone(STREAM, at_d.hop, b"")]


def test_lost_link_is_forgotten():
    """Link numbers are never used again, so what is kept of a lost link would stay for ever."""
    s, d = end(0), end(1000)
    ready(s, d)
    s.link_down(LINK_S)
    d.link_down(LINK_D)
    assert len(d._setup_budget._buckets) == 0
    assert s._labels._used == d._labels._used == {}


def test_a_neighbour_has_a_bounded_number_of_routes():
    s, d = end(0), end(1000)
    for _ in range(INCOMING_PER_LINK_MAX + 1):
        s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
        d.receive_untrusted(LINK_D, s.next_transmit().data, now=0.0)
    answers = [sent(d) for _ in range(INCOMING_PER_LINK_MAX + 1)]
    assert [type(answer) for answer in answers[:-1]] == [Confirm] * INCOMING_PER_LINK_MAX
    assert answers[-1] == Refuse(answers[-1].request, b"", b"busy")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x82\x01\x40",
        b"\x82\x09\x40",
        encode_message(Setup(bytes(8), bytes(8), 4, 0, bytes(ONION_BYTES))),
        encode_message(Setup(bytes(8), bytes(8), 0, 7, bytes(ONION_BYTES))),
        encode_message(Setup(bytes(8), bytes(8), 4, 7, D_CARD.hop_key_id + bytes(ONION_BYTES - 8))),
    ],
)
def test_malformed_message_is_refused_and_changes_nothing(message):
    d = end(1000)
    with pytest.raises(RemoteProtocolError):
        d.receive_untrusted(LINK_D, message, now=0.0)
    assert events(d) == []
    assert d.next_timeout() is None


def test_a_setup_names_as_many_channels_as_a_tether_may_have_and_no_more():
    s, d = end(0), end(1000)
    s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    setup = sent(s)
    with pytest.raises(RemoteProtocolError):
        d.receive_untrusted(LINK_D, encode_message(replace(setup, channel_count=TETHER_CHANNEL_COUNT_MAX + 1)), now=0.0)
    d.receive_untrusted(LINK_D, encode_message(replace(setup, channel_count=TETHER_CHANNEL_COUNT_MAX)), now=0.0)
    assert isinstance(sent(d), Confirm)


@pytest.mark.parametrize("plain", [b"\xff", b"bu\xc3\xa9y", b"\x1b[2J\x00", b"x" * 32])
def test_refusal_in_any_bytes_is_passed_on_as_printable_text(plain):
    s, relay = end(0), end(1000, relaying=True)
    relay_hop = HopKey(D.node_id, D_CARD.hop_key_id, D_CARD.hop_public)
    s.build(STREAM, [relay_hop, hop(D_CARD)], LINK_S, now=0.0)
    relay.receive_untrusted(LINK_D, s.next_transmit().data, now=0.0)
    relay.relays.link_open(relay.relays.next_event().relay, LinkId(10))
    onward = sent(relay)
    relay.receive_untrusted(LinkId(10), encode_message(Refuse(onward.request, b"", plain)), now=0.0)
    s.receive_untrusted(LINK_S, relay.next_transmit().data, now=0.0)
    (failed,) = events(s)
    assert (failed.end, failed.refusal.word) == (RouteEnd.REFUSED, RefusalWord.OTHER)
    assert (failed.refusal.hop, failed.refusal.of_next) == (1, True)
    assert failed.refusal.said.startswith("next: ")
    assert failed.refusal.said.isascii()
    assert failed.refusal.said.isprintable()


@pytest.mark.parametrize("word", ["timeout", "link-closed", "link-down", "tether-down", "peer", "refused"])
def test_refusal_in_the_words_of_own_ends_stays_a_refusal(word):
    s = end(0)
    route = s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    setup = sent(s)
    s.receive_untrusted(LINK_S, encode_message(Refuse(setup.request, b"", word.encode())), now=0.0)
    assert events(s) == [RouteFailed(route, STREAM, RouteEnd.REFUSED, said(word))]


def test_a_set_up_that_overtakes_what_opens_its_stream_waits_for_it():
    known: set[StreamId] = set()
    s, d = end(0), end(1000, known=known)
    s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    d.receive_untrusted(LINK_D, s.next_transmit().data, now=0.0)
    assert d.next_transmit() is None
    d.stream_opened(StreamId(b"another stream.."), now=0.1)
    assert d.next_transmit() is None
    known.add(STREAM)
    d.stream_opened(STREAM, now=0.1)
    (arrived,) = events(d)
    assert isinstance(arrived, ReceiverRoute)
    assert isinstance(sent(d), Confirm)
    assert d.next_timeout() > 10.0
    d.stream_opened(STREAM, now=0.2)
    assert events(d) == []


def test_a_set_up_whose_stream_never_comes_is_refused_before_its_sender_gives_up():
    s, d = end(0), end(1000, known=set())
    s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
    d.receive_untrusted(LINK_D, s.next_transmit().data, now=0.0)
    assert d.next_timeout() == HOLD_S < CONFIRM_TIMEOUT_S
    d.handle_timeout(now=HOLD_S)
    s.receive_untrusted(LINK_S, d.next_transmit().data, now=HOLD_S)
    (failed,) = events(s)
    assert failed.refusal == said("unknown-stream")
    assert d.next_timeout() is None


def test_few_set_ups_wait_and_none_of_a_link_that_closed():
    known: set[StreamId] = set()
    s, d = end(0), end(1000, known=known)
    for link in range(HELD_COUNT_MAX // HELD_PER_LINK_MAX + 1):
        refused = HELD_PER_LINK_MAX if link * HELD_PER_LINK_MAX == HELD_COUNT_MAX else 1
        for _ in range(HELD_PER_LINK_MAX + (refused == 1)):
            s.build(STREAM, [hop(D_CARD)], LINK_S, now=0.0)
            d.receive_untrusted(LinkId(20 + link), s.next_transmit().data, now=0.0)
        assert [type(decode_message_untrusted(each.data)) for each in iter(d.next_transmit, None)] == [Refuse] * refused
    for link in range(HELD_COUNT_MAX // HELD_PER_LINK_MAX):
        d.link_down(LinkId(20 + link))
    known.add(STREAM)
    d.stream_opened(STREAM, now=0.1)
    assert (d.next_transmit(), d.next_timeout(), events(d)) == (None, None, [])
