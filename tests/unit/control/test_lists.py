"""How signed lists spread: who is asked, who is told, how often, and what nobody can make a node do."""

import contextlib
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from kit.builders import NOW_UNIX, make_credential, make_member, node_keys
from kit.control import Station, World, boot_id
from kit.lists import GATE, REALM, ROOT, deny_list

from conflux import record
from conflux.control import lists as lists_module
from conflux.control.channel import Arrival
from conflux.control.envelope import HOP_LIMIT_MAX, Envelope, Inner, Kind, Reach
from conflux.control.event import CardFound, ListLearnt, RequestFailed, Unanswered
from conflux.control.lists import (
    ANNOUNCE_S_MAX,
    ANSWER_MANY,
    ANSWERS_EACH,
    ASK_AGAIN_S,
    ASK_BURST,
    ASKING_COUNT_MAX,
    HINT_SPREAD_S,
    LEARN_EACH,
    LEARN_TOTAL,
    SETTLE_S,
    SETTLE_S_MAX,
    SHARE_BURST,
    STRANGERS_EACH,
    STRANGERS_TOTAL,
    Asking,
    Lists,
    Send,
)
from conflux.control.who import Who
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import Chain
from conflux.realm.listbook import ListBook
from conflux.realm.lists import SignedList
from conflux.realm.member import Member
from conflux.sim.flights import Weather

ME, PEER, OTHER = (NodeId(bytes((number,)) * 16) for number in (1, 2, 3))
ALPHA, BRAVO = make_member(REALM, "alpha"), make_member(REALM, "bravo")


def lists_of(*held: SignedList) -> Lists:
    book = ListBook(REALM.anchor, lambda: NOW_UNIX)
    book.load(held)
    return Lists(book, me=ME, rng=random.Random(1))


def sends(lists: Lists) -> list[Send]:
    return list(iter(lists.next_send, None))


def kinds(lists: Lists) -> list[tuple[NodeId | None, Kind]]:
    return [(send.to, send.kind) for send in sends(lists)]


def body(lists: Lists, *, answers: bool = False) -> bytes:
    return Asking.of(lists.book, answers=answers).encode()


@contextlib.contextmanager
def counted_flood() -> Iterator[Counter[str]]:
    """Count what is refused."""
    refused: Counter[str] = Counter()
    try:
        yield refused
    except RemoteProtocolError as error:
        refused[error.reason] += 1


CROWD = pytest.param(30, marks=pytest.mark.slow("thirty nodes that all hear each other"))
ONE, TWO = deny_list(ALPHA.node_id, number=1), deny_list(ALPHA.node_id, BRAVO.node_id, number=2)


# ── asking ──


def test_equal_lists_cost_nothing():
    lists = lists_of(ONE)
    lists.hear(PEER, lists_of(ONE).digest, now=0.0, direct=True)
    assert sends(lists) == []
    assert lists.next_timeout() is None


def test_another_digest_is_asked_about_at_once_and_by_nobody_twice():
    lists = lists_of()
    for now in (0.0, 0.1, 0.2):
        lists.hear(PEER, lists_of(ONE).digest, now=now, direct=True)
    assert kinds(lists) == [(PEER, Kind.LISTS_ASK)]


def test_question_without_an_answer_is_repeated_twice_and_given_up():
    lists = lists_of()
    lists.hear(PEER, lists_of(ONE).digest, now=0.0, direct=True)
    now, asked = 0.0, len(sends(lists))
    while (at := lists.next_timeout()) is not None:
        now = at
        lists.handle_timeout(now=now)
        asked += len(sends(lists))
    assert asked == 3
    assert now < 5.0


def test_answer_that_settles_nothing_is_not_asked_for_again_for_a_minute():
    lists, theirs = lists_of(ONE), lists_of()
    lists.hear(PEER, theirs.digest, now=0.0, direct=True)
    lists.receive_untrusted(PEER, Kind.LISTS_ASK, body(theirs, answers=True), "via", now=0.1)
    sends(lists)
    lists.hear(PEER, theirs.digest, now=ASK_AGAIN_S - 1, direct=True)
    assert sends(lists) == []
    lists.hear(PEER, lists_of(TWO).digest, now=ASK_AGAIN_S - 1, direct=True)  # it holds something else now
    assert kinds(lists) == [(PEER, Kind.LISTS_ASK)]


def test_what_all_heard_is_asked_about_later_unless_it_settles_itself():
    lists = lists_of()
    for peer in (PEER, OTHER):
        lists.hear(peer, lists_of(ONE).digest, now=0.0, direct=False)
    assert sends(lists) == []
    at = lists.next_timeout()
    assert at is not None
    assert 0.0 < at <= HINT_SPREAD_S
    lists.receive_untrusted(OTHER, Kind.LIST, ONE.encode(), "via", now=at / 2)
    assert lists.next_timeout() is None
    lists.handle_timeout(now=HINT_SPREAD_S)
    assert sends(lists) == []


def test_few_are_asked_at_once_and_the_others_only_if_that_settled_nothing():
    lists, theirs = lists_of(), lists_of(ONE)
    peers = [NodeId(number.to_bytes(16)) for number in range(100)]
    for peer in peers:
        lists.hear(peer, theirs.digest, now=0.0, direct=True)
    assert kinds(lists) == [(peer, Kind.LISTS_ASK) for peer in peers[:ASKING_COUNT_MAX]]
    lists.receive_untrusted(peers[0], Kind.LIST, ONE.encode(), "via", now=0.1)
    lists.handle_timeout(now=HINT_SPREAD_S)
    assert sends(lists) == []


def test_questions_of_a_node_are_rationed():
    lists = lists_of()
    for number in range(100):  # each answers at once, and nothing is settled by it
        peer = NodeId(number.to_bytes(16))
        lists.hear(peer, b"another!", now=0.0, direct=True)
        lists.receive_untrusted(peer, Kind.LISTS_ASK, body(lists, answers=True), number, now=0.0)
    assert len(sends(lists)) == ASK_BURST
    assert lists.drops["flood"] == 100 - ASK_BURST


def test_one_source_in_many_names_leaves_a_place_to_ask_others_at_once():
    lists, asked = lists_of(), body(lists_of(TWO))
    for number in range(1000):
        forged = NodeId(number.to_bytes(16))
        lists.hear(forged, b"another!", now=0.0, direct=True, source="flooder")
        with contextlib.suppress(RemoteProtocolError):
            lists.receive_untrusted(forged, Kind.LISTS_ASK, asked, "flooder", now=0.0)
    sends(lists)
    lists.hear(PEER, lists_of(ONE).digest, now=0.1, direct=True)
    assert kinds(lists) == [(PEER, Kind.LISTS_ASK)]


def test_one_source_in_many_names_leaves_room_to_ask_others_later():
    lists = lists_of()
    for number in range(1000):
        lists.hear(NodeId(number.to_bytes(16)), b"another!", now=0.0, direct=False, source="flooder")
    lists.hear(PEER, lists_of(ONE).digest, now=0.0, direct=False)
    lists.handle_timeout(now=HINT_SPREAD_S)
    assert PEER in [to for to, _ in kinds(lists)]


def test_one_source_that_answers_at_once_does_not_use_up_all_questions():
    lists = lists_of()
    for number in range(100):
        forged = NodeId(number.to_bytes(16))
        lists.hear(forged, b"another!", now=0.0, direct=True, source="flooder")
        with contextlib.suppress(RemoteProtocolError):
            lists.receive_untrusted(forged, Kind.LISTS_ASK, body(lists, answers=True), "flooder", now=0.0)
    assert len(sends(lists)) == SHARE_BURST
    lists.hear(PEER, lists_of(ONE).digest, now=0.0, direct=True)
    assert kinds(lists) == [(PEER, Kind.LISTS_ASK)]


# ── answering ──


def test_asked_node_gives_what_is_newer_and_says_what_it_holds():
    lists = lists_of(TWO)
    lists.receive_untrusted(PEER, Kind.LISTS_ASK, body(lists_of(ONE)), "via", now=0.0)
    assert sends(lists) == [
        Send(PEER, Kind.LIST, TWO.encode()),
        Send(PEER, Kind.LISTS_ASK, body(lists, answers=True)),
    ]


def test_answer_is_not_answered_but_the_peer_gets_what_it_lacks():
    lists = lists_of(TWO)
    lists.receive_untrusted(PEER, Kind.LISTS_ASK, body(lists_of(ONE), answers=True), "via", now=0.0)
    assert kinds(lists) == [(PEER, Kind.LIST)]
    lists.receive_untrusted(PEER, Kind.LISTS_ASK, body(lists_of(TWO), answers=True), "via", now=0.1)
    assert sends(lists) == []


def test_older_node_that_was_asked_asks_again_if_the_list_is_lost():
    lists = lists_of(ONE)
    lists.receive_untrusted(PEER, Kind.LISTS_ASK, body(lists_of(TWO)), "via", now=0.0)
    assert kinds(lists) == [(PEER, Kind.LISTS_ASK)]
    at = lists.next_timeout()
    assert at is not None
    lists.handle_timeout(now=at)
    assert kinds(lists) == [(PEER, Kind.LISTS_ASK)]
    lists.receive_untrusted(PEER, Kind.LIST, TWO.encode(), "via", now=at)
    assert lists.next_timeout() is None


def test_list_that_many_ask_for_goes_to_all_once():
    lists = lists_of(ONE)
    for number in range(50):
        peer = NodeId(number.to_bytes(16))
        lists.receive_untrusted(peer, Kind.LISTS_ASK, body(lists_of()), peer, now=number / 250)
    sent = [send.to for send in sends(lists) if send.kind is Kind.LIST]
    assert len(sent) == ANSWER_MANY
    assert sent[-1] is None


def test_peers_asked_lately_are_remembered_up_to_the_bound_and_the_oldest_is_forgotten(monkeypatch):
    monkeypatch.setattr(lists_module, "ASK_COUNT_MAX", 2)
    lists = lists_of()
    for number in range(3):
        peer = NodeId(bytes([number + 100]) * 16)
        lists.hear(peer, lists_of(ONE).digest, now=0.0, direct=True)
        assert len(lists._asks) == min(number + 1, 2)
    assert NodeId(bytes([100]) * 16) not in lists._asks


def test_questions_of_one_source_are_rationed():
    lists, flood = lists_of(ONE), 0
    for _ in range(50):
        with counted_flood() as count:
            lists.receive_untrusted(PEER, Kind.LISTS_ASK, body(lists_of(ONE)), "via", now=0.0)
        flood += count["flood"]
    assert flood == 50 - ANSWERS_EACH.burst


def test_more_rows_than_any_node_holds_are_refused():
    row = [1, 1, PEER, 7, bytes(8)]
    with pytest.raises(RemoteProtocolError, match="malformed"):
        lists_of().receive_untrusted(PEER, Kind.LISTS_ASK, record.encode([1, [row] * 129, False]), "via", now=0.0)


# ── learning ──


def test_forged_lists_cost_only_so_many_verifications(monkeypatch):
    verified: list[int] = []

    def refuse(signed: SignedList, anchor: RealmAnchor, *, now_unix: int) -> None:
        verified.append(signed.number)
        raise RemoteProtocolError("bad-signature")

    monkeypatch.setattr(SignedList, "verify", refuse)
    lists, reasons = lists_of(), []
    for number in range(100):
        with pytest.raises(RemoteProtocolError) as caught:
            lists.receive_untrusted(PEER, Kind.LIST, deny_list(number=number).encode(), "via", now=0.0)
        reasons.append(caught.value.reason)
    assert len(verified) == LEARN_EACH.burst
    assert reasons.count("flood") == 100 - LEARN_EACH.burst
    monkeypatch.undo()
    lists.receive_untrusted(PEER, Kind.LIST, TWO.encode(), "another neighbour", now=0.0)
    assert lists.next_change() is not None


def test_forged_lists_of_all_of_a_channel_together_cost_so_many_verifications(monkeypatch):
    verified: list[int] = []

    def refuse(signed: SignedList, anchor: RealmAnchor, *, now_unix: int) -> None:
        verified.append(signed.number)
        raise RemoteProtocolError("bad-signature")

    monkeypatch.setattr(SignedList, "verify", refuse)
    lists, forged = lists_of(), [deny_list(number=number).encode() for number in range(100)]
    for number, data in enumerate(forged):
        with pytest.raises(RemoteProtocolError):
            lists.receive_untrusted(PEER, Kind.LIST, data, ("nats", bytes((number,))), now=0.0)
    assert len(verified) == LEARN_TOTAL.burst
    monkeypatch.undo()
    lists.receive_untrusted(PEER, Kind.LIST, TWO.encode(), ("lan", PEER), now=0.0)
    assert lists.next_change() is not None


def test_questions_in_the_names_of_strangers_are_answered_so_often_over_a_channel():
    lists, asking = lists_of(ONE), body(lists_of(ONE))
    answered = 0
    for number in range(100):
        with counted_flood() as count:
            source = ("nats", bytes((number,)))
            lists.receive_untrusted(PEER, Kind.LISTS_ASK, asking, source, now=0.0, known=False)
        answered += not count["flood"]
    assert answered == STRANGERS_TOTAL.burst
    lists.receive_untrusted(PEER, Kind.LISTS_ASK, asking, ("lan", PEER), now=0.0, known=False)


def test_copies_of_what_is_held_cost_no_verification():
    lists = lists_of(TWO)
    for _ in range(100):
        lists.receive_untrusted(PEER, Kind.LIST, TWO.encode(), "via", now=0.0)
        lists.receive_untrusted(PEER, Kind.LIST, ONE.encode(), "via", now=0.0)
    assert lists.next_change() is None


def test_list_made_here_goes_to_all_and_is_announced():
    lists = lists_of()
    lists.publish(ONE, now=10.0)
    assert sends(lists) == [Send(None, Kind.LIST, ONE.encode())]
    change = lists.next_change()
    assert change is not None
    assert change.denied == {ALPHA.node_id}
    assert lists.announce_at is not None
    assert 10.0 < lists.announce_at <= 10.0 + ANNOUNCE_S_MAX


# ── is a stream accepted? ──


def test_node_that_started_waits_a_moment_before_it_accepts():
    lists = lists_of()
    assert lists.settles_at(100.0) == 100.0 + SETTLE_S
    assert lists.settles_at(100.0 + SETTLE_S) is None
    lists.alone()
    lists.met(now=200.0)
    assert lists.settles_at(200.1) == 200.0 + SETTLE_S


def test_it_waits_longer_while_an_answer_is_out_but_not_for_ever():
    lists = lists_of()
    lists.met(now=0.0)
    lists.hear(PEER, b"another!", now=0.1, direct=True)
    assert lists.settles_at(SETTLE_S) == SETTLE_S_MAX
    lists.receive_untrusted(PEER, Kind.LISTS_ASK, body(lists_of(), answers=True), "via", now=SETTLE_S)
    assert lists.settles_at(SETTLE_S) is None
    lists.hear(OTHER, b"another!", now=5.0, direct=True)  # later questions hold nothing up
    assert lists.settles_at(5.0) is None


# ── planes on a network ──


def world_of(count: int, seed: int = 1, weather: Weather | None = None) -> tuple[World, list[Station]]:
    names = [f"node-{number}" for number in range(count)]
    world = World(*names, seed=seed, weather=weather)
    world.run(3.0)
    return world, [world[name] for name in names]


def know(station: Station, *signed: SignedList) -> bool:
    return all(station.plane.lists.book.find(each.kind, each.signer) == each for each in signed)


def lists_sent(stations: list[Station], kind: Kind) -> int:
    plain = [envelope for station in stations for envelope in station.sent if envelope.key_id is None]
    return sum(Inner.decode_untrusted(envelope.payload).kind == kind for envelope in plain)


@pytest.mark.parametrize("count", [10, CROWD])
def test_list_reaches_all_with_one_sending_and_no_question(count):
    world, stations = world_of(count)
    for station in stations:
        station.sent.clear()
    stations[0].plane.publish(ONE, now=world.now)
    world.run(0.1)
    assert all(know(station, ONE) for station in stations)
    assert [envelope.reach for envelope in stations[0].sent] == [Reach.REALM], "nodes of other areas need it too"
    world.run(2 * ANNOUNCE_S_MAX)
    assert lists_sent(stations, Kind.LIST) == 1
    assert lists_sent(stations, Kind.LISTS_ASK) == 0
    assert lists_sent(stations, Kind.PRESENCE) == count


@pytest.mark.parametrize("seed", range(3))
def test_list_reaches_all_although_a_third_of_all_messages_is_lost(seed):
    world, stations = world_of(20, seed, Weather(control_loss=0.33))
    stations[0].plane.publish(ONE, now=world.now)
    world.run(15.0)
    assert all(know(station, ONE) for station in stations)


@pytest.mark.parametrize("count", [10, CROWD])
def test_healed_partition_has_both_lists_everywhere_and_no_storm(count):
    """Two halves learnt of different lists; one pair of nodes meets first, then all do."""
    world, stations = world_of(count)
    left, right = stations[: count // 2], stations[count // 2 :]
    for a in left:
        for b in right:
            world.hub.cut(a.node, b.node)
    roots = deny_list(BRAVO.node_id, number=1, signer=ROOT)
    left[0].plane.publish(ONE, now=world.now)
    right[0].plane.publish(roots, now=world.now)
    world.run(2 * ANNOUNCE_S_MAX)
    assert all(know(station, ONE) != know(station, roots) for station in stations)
    for station in stations:
        station.sent.clear()
    for a in left:
        for b in right:
            world.hub.mend(a.node, b.node)
            a.plane.peer_returned(b.node, now=world.now)
            b.plane.peer_returned(a.node, now=world.now)
    world.run(2 * ANNOUNCE_S_MAX)
    assert all(know(station, ONE, roots) for station in stations)
    assert lists_sent(stations, Kind.LIST) <= 4 * count
    assert lists_sent(stations, Kind.LISTS_ASK) <= 24 * count


def test_node_that_was_away_learns_before_it_knows_anybodys_card():
    world, stations = world_of(3)
    stations[0].plane.publish(TWO, now=world.now)
    world.run(1.0)
    late = world.start("late")
    stations[0].plane.peer_returned(late.node, now=world.now)
    world.run(0.02)
    assert know(late, TWO)
    assert late.plane.card(stations[0].node) is None


def test_list_is_taken_from_a_node_that_is_revoked_itself():
    world, (first, second) = world_of(2)
    second.plane.publish(deny_list(first.node, number=1), now=world.now)
    world.run(0.1)
    newer = deny_list(first.node, BRAVO.node_id, number=2)
    first.plane.publish(newer, now=world.now)
    world.run(0.1)
    assert know(second, newer)


# ── what a denied node can still do to a plane ──


def acquainted() -> tuple[World, Station, Station]:
    world, (first, second) = world_of(2)
    first.plane.request(second.node, Kind.OPEN, b"hello", now=world.now)
    world.run(0.1)
    assert second.messages()
    second.seen.clear()
    return world, first, second


def test_messages_of_a_revoked_node_are_dropped_and_counted():
    world, first, second = acquainted()
    token = second.plane.request(first.node, Kind.OPEN, b"are you there", now=world.now)
    second.plane.lists.publish(deny_list(first.node, number=1), now=world.now)
    second.plane._drain_lists(world.now)
    first.plane.request(second.node, Kind.OFFER, b"hello again", now=world.now)
    world.run(3.0)
    assert second.messages() == []
    assert second.plane.drops["revoked"] > 0
    assert second.plane.card(first.node) is None
    failed = next(event for event in second.seen if isinstance(event, RequestFailed))
    assert (failed.token, failed.reason) == (token, Unanswered.REVOKED)
    (learnt,) = [event for event in second.seen if isinstance(event, ListLearnt)]
    assert learnt.revoked == {first.node: "node-0"}


def test_card_of_a_revoked_node_is_refused():
    world, first, second = acquainted()
    second.plane.publish(deny_list(first.node, number=1), now=world.now)
    world.run(0.1)
    first.plane.who(Who(node=second.node), now=world.now)
    world.run(1.0)
    assert second.plane.card(first.node) is None
    assert second.plane.drops["revoked"] > 0
    second.seen.clear()
    second.plane.who(Who(name="node-0"), now=world.now)
    world.run(4.0)
    assert not any(isinstance(event, CardFound) for event in second.seen)


def test_revoked_node_is_asked_for_by_nobody_who_knows():
    world, first, second = acquainted()
    second.plane.publish(deny_list(first.node, number=1), now=world.now)
    world.run(0.1)
    second.seen.clear()
    second.sent.clear()
    second.plane.who(Who(node=first.node), now=world.now)
    token = second.plane.request(first.node, Kind.OPEN, b"x", now=world.now)
    world.run(0.1)
    assert [event.reason for event in second.not_found()] == [Unanswered.REVOKED]
    assert [(event.token, event.reason) for event in second.failures()] == [(token, Unanswered.REVOKED)]
    assert second.sent == []


def test_revoked_node_hears_of_it_itself():
    world, first, second = acquainted()
    assert not first.plane.is_revoked
    second.plane.publish(deny_list(first.node, number=1), now=world.now)
    world.run(0.1)
    assert first.plane.is_revoked
    (learnt,) = [event for event in first.seen if isinstance(event, ListLearnt)]
    assert first.node in learnt.revoked


def granted() -> Member:
    credential = make_credential(REALM, "granted", issuer=GATE.key)
    return Member(node_keys("granted"), REALM.anchor, Chain(credential, GATE.grant))


def test_cards_of_an_issuers_nodes_are_forgotten_when_the_root_revokes_the_issuer():
    world, (first, second) = world_of(2)
    third = world.start("granted", member=granted())
    second.plane.who(Who(node=third.node), now=world.now)
    world.run(0.5)
    assert second.plane.card(third.node) is not None
    first.plane.publish(deny_list(node_keys("gate").node_id, number=1, signer=ROOT), now=world.now)
    world.run(0.5)
    assert second.plane.card(third.node) is None
    assert third.plane.is_revoked
    second.plane.who(Who(node=third.node), now=world.now)
    world.run(4.0)
    assert second.plane.card(third.node) is None


def test_forged_presence_makes_a_node_ask_and_no_more():
    world, (first, second) = world_of(2)
    second.sent.clear()
    inner = Inner(first.node, boot_id(9), 1, Kind.PRESENCE, 0, b"\x83\x01\x01\x48another!", bytes(64))
    for number in range(20):
        envelope = Envelope(None, number.to_bytes(16), HOP_LIMIT_MAX, None, inner.encode())
        second.plane.receive_untrusted(Arrival(envelope, None, "sim"), now=world.now)
    world.run(5.0)
    assert lists_sent([second], Kind.LISTS_ASK) <= 3
    assert second.plane.drops["bad-signature"] + second.plane.drops["unknown-sender"] >= 20


def test_lists_are_sent_to_no_node_because_somebody_asked_in_its_name():
    world, first, second = acquainted()
    second.plane.publish(ONE, now=world.now)
    world.run(0.1)
    second.sent.clear()
    inner = Inner(first.node, boot_id(9), 1, Kind.LISTS_ASK, 0, body(lists_of()), bytes(64))
    envelope = Envelope(second.node, b"f" * 16, HOP_LIMIT_MAX, None, inner.encode())
    second.plane.receive_untrusted(Arrival(envelope, None, "sim"), now=world.now)
    world.run(0.1)
    assert lists_sent([second], Kind.LIST) == lists_sent([second], Kind.LISTS_ASK) == 0
    assert second.plane.drops["bad-signature"] == 1


def test_questions_of_strangers_are_answered_less_often():
    lists = lists_of(ONE)
    for second in range(100):
        with contextlib.suppress(RemoteProtocolError):
            lists.receive_untrusted(
                NodeId(second.to_bytes(16)), Kind.LISTS_ASK, body(lists_of()), "via", now=float(second), known=False
            )
    answered = sum(send.kind is Kind.LIST for send in sends(lists))
    assert answered == pytest.approx(STRANGERS_EACH.burst + 100 * STRANGERS_EACH.rate_per_s, abs=1.5)


def test_question_for_all_is_answered_by_nobody():
    """Else one small envelope, in anybody's name, would have every node send its lists to that one."""
    _, (first, second) = world_of(2)
    second.plane.publish(ONE, now=0.0)
    list(iter(second.plane.next_transmit, None))
    inner = Inner(first.node, boot_id(9), 1, Kind.LISTS_ASK, 0, body(lists_of()), bytes(64))
    second.plane.receive_untrusted(
        Arrival(Envelope(None, b"i" * 16, HOP_LIMIT_MAX, None, inner.encode()), None, "sim"), now=10.0
    )
    assert list(iter(second.plane.next_transmit, None)) == []
    assert second.plane.drops["malformed"] == 1
    alone = Envelope(second.node, b"j" * 16, HOP_LIMIT_MAX, None, inner.encode())
    second.plane.receive_untrusted(Arrival(alone, None, "sim"), now=10.0)
    assert len(list(iter(second.plane.next_transmit, None))) == 2
