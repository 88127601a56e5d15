"""The parts of the control plane: replay windows, budgets, answers, cards, records."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from kit.builders import NOW_UNIX, make_card, make_member, make_realm
from kit.control import boot_id

from conflux import record
from conflux.budget import BudgetTable, TokenBucket
from conflux.control import cards, pending, presence, replay
from conflux.control.cards import CardBook
from conflux.control.envelope import BODY_BYTES_MAX, PAYLOAD_BYTES_MAX, Envelope, Inner, Kind, Reach
from conflux.control.pending import Answers
from conflux.control.presence import Presences
from conflux.control.replay import ReplayWindow, SeenEnvelopes, Sources, Verdict
from conflux.control.who import Presence, Question, Who
from conflux.crypto.seal import OVERHEAD_BYTES
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import BootId, NodeId
from conflux.realm.broker.subjects import buckets_of
from conflux.realm.card import Card

A, B = NodeId(b"a" * 16), NodeId(b"b" * 16)
LAST = replay.WINDOW_SIZE - 1


@pytest.mark.parametrize(
    ("seen", "asked", "verdict"),
    [
        ([], 0, Verdict.FRESH),
        ([5], 5, Verdict.REPEATED),
        ([5], 4, Verdict.FRESH),
        ([5], 6, Verdict.FRESH),
        ([LAST, 0], 0, Verdict.REPEATED),
        ([LAST + 1, 0], 0, Verdict.TOO_OLD),
        ([0, LAST], 0, Verdict.REPEATED),
        ([0, LAST + 1], 1, Verdict.FRESH),
        ([7, 2**63], 7, Verdict.TOO_OLD),
        ([7, 2**63], 2**63 - LAST, Verdict.FRESH),
    ],
)
def test_replay_window_tells_fresh_repeated_and_too_old_at_its_edges(
    seen: list[int], asked: int, verdict: Verdict
) -> None:
    window = ReplayWindow()
    for seq in seen:
        window.accept(seq)
    assert window.check(asked) is verdict
    assert window.check(asked) is verdict  # asking changes nothing


def test_boot_ids_of_a_source_only_grow() -> None:
    sources = Sources()
    sources.accept(A, boot_id(5), 9)
    assert sources.check(A, boot_id(4), 10) is Verdict.OLD_BOOT
    assert sources.check(A, boot_id(5), 9) is Verdict.REPEATED
    assert sources.check(A, boot_id(6), 9) is Verdict.FRESH
    sources.accept(A, boot_id(6), 9)
    assert sources.check(A, boot_id(5), 10) is Verdict.OLD_BOOT
    assert sources.check(B, boot_id(1), 9) is Verdict.FRESH


def envelope_of(number: int) -> Envelope:
    return Envelope(None, number.to_bytes(16, "big"), 8, None, b"payload")


def test_sources_and_seen_envelopes_are_bounded() -> None:
    sources, seen = Sources(), SeenEnvelopes()
    for number in range(replay.SOURCE_COUNT_MAX + 1):
        sources.accept(NodeId(number.to_bytes(16, "big")), boot_id(1), 1)
    assert sources.check(NodeId(bytes(16)), boot_id(1), 1) is Verdict.FRESH
    assert sources.check(NodeId((1).to_bytes(16, "big")), boot_id(1), 1) is Verdict.REPEATED
    for number in range(replay.ENVELOPE_COUNT_MAX + 1):
        seen.add(envelope_of(number), 0.0)
    assert envelope_of(0) not in seen
    assert envelope_of(1) in seen


def test_seen_envelopes_are_forgotten_after_a_minute() -> None:
    seen = SeenEnvelopes()
    for number in range(1000):
        seen.add(envelope_of(number), 0.5 * number)
    assert len(seen) == 2 * replay.ENVELOPE_S
    assert envelope_of(999) in seen


def test_seen_envelope_is_another_one_if_anything_authenticated_differs() -> None:
    seen, envelope = SeenEnvelopes(), replace(envelope_of(1), to=A, key_id=bytes(8))
    seen.add(envelope, 0.0)
    assert replace(envelope, hop_limit=3) in seen
    for other in ({"to": B}, {"to": None}, {"key_id": b"12345678"}, {"key_id": None}, {"payload": b"another"}):
        assert replace(envelope, **other) not in seen
    assert replace(envelope, id=bytes(16)) not in seen  # a retry, whose answer may have to be given again


def test_token_bucket_fills_at_its_rate_up_to_its_burst() -> None:
    bucket = TokenBucket(2.0, 3.0)
    assert [bucket.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_s(10.0) == pytest.approx(0.5)
    assert not bucket.take(10.4)
    assert bucket.take(10.5)
    assert [bucket.take(99.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(50.0)  # a clock that goes back gives nothing


def test_budget_table_forgets_a_key_it_is_told_to() -> None:
    table = BudgetTable(1.0, 1.0, count_max=2)
    assert table.take("a", 0.0)
    table.forget("a")
    table.forget("b")
    assert len(table._buckets) == 0


def test_budget_table_keeps_keys_apart_and_forgets_the_oldest() -> None:
    table = BudgetTable(1.0, 1.0, count_max=2)
    assert table.take("a", 0.0)
    assert not table.take("a", 0.0)
    assert table.take("b", 0.0)
    assert table.take("c", 0.0)
    assert table.take("a", 0.0)  # it was forgotten, so its bucket is full again
    assert not table.take("c", 0.0)


def test_answers_are_remembered_for_as_long_as_a_request_may_come_again() -> None:
    answers = Answers()
    answers.add(A, boot_id(1), 7, b"message", 0.0)
    assert answers.find(A, boot_id(1), 7, pending.ANSWER_LIFETIME_S - 1) is not None
    assert answers.find(A, boot_id(2), 7, 1.0) is None
    assert answers.find(A, boot_id(1), 7, pending.ANSWER_LIFETIME_S) is None
    for seq in range(pending.ANSWER_COUNT_MAX + 1):
        answers.add(A, boot_id(1), seq, b"", 100.0)
    assert answers.find(A, boot_id(1), 0, 100.0) is None
    assert answers.find(A, boot_id(1), 1, 100.0) is not None


# ── cards ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def open_book() -> CardBook:
    return CardBook(make_realm().anchor, lambda: NOW_UNIX, lambda date_unix: None)


def encoded(name: str, boot: int = 1, serial: int = 1) -> bytes:
    return make_card(make_member(make_realm(), name), boot=boot_id(boot), serial=serial).encode()


def test_book_finds_by_node_address_and_name() -> None:
    book = open_book()
    bob = make_member(make_realm(), "bob")
    assert book.store(book.judge_untrusted(bob.node_id, encoded("bob"))) is None
    for who in (Who(node=bob.node_id), Who(name="bob"), *(Who(address=address) for address in bob.addresses)):
        found = book.find_answer(who)
        assert found is not None
        assert found.node_id == bob.node_id
    assert book.find_answer(Who(name="alice")) is None
    book.remove(bob.node_id)
    assert all(book.find_answer(who) is None for who in (Who(node=bob.node_id), Who(name="bob")))


def test_newer_card_replaces_and_older_is_refused() -> None:
    book = open_book()
    bob = make_member(make_realm(), "bob").node_id
    book.store(book.judge_untrusted(bob, encoded("bob", boot=2, serial=2)))
    for boot, serial in ((2, 1), (1, 9)):
        with pytest.raises(RemoteProtocolError, match="stale-card"):
            book.judge_untrusted(bob, encoded("bob", boot=boot, serial=serial))
    replaced = book.store(book.judge_untrusted(bob, encoded("bob", boot=3, serial=1)))
    assert replaced is not None
    assert replaced.boot == boot_id(2)
    assert len(book) == 1


def test_judging_a_card_again_gives_the_one_we_hold() -> None:
    book = open_book()
    bob = make_member(make_realm(), "bob").node_id
    known = book.judge_untrusted(bob, encoded("bob"))
    book.store(known)
    assert book.judge_untrusted(bob, encoded("bob")) is known


def test_book_is_bounded_and_the_card_unused_longest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "CARD_COUNT_MAX", 2)
    book = open_book()
    nodes = {name: make_member(make_realm(), name).node_id for name in ("ann", "bob", "cid")}
    for name in ("ann", "bob"):
        book.store(book.judge_untrusted(nodes[name], encoded(name)))
    assert book.find(nodes["ann"]) is not None
    book.store(book.judge_untrusted(nodes["cid"], encoded("cid")))
    assert book.find(nodes["bob"]) is None
    assert book.find_answer(Who(name="bob")) is None
    assert book.find(nodes["ann"]) is not None


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_question_asks_for_exactly_one_thing() -> None:
    with pytest.raises(LocalProtocolError):
        Who()
    with pytest.raises(LocalProtocolError):
        Who(name="a", node=A)
    for fields in ([1, None, None, None, None], [1, b"\x01\x02\x03\x04", "a", None, None]):
        with pytest.raises(RemoteProtocolError, match="malformed"):
            Who.decode_untrusted(record.encode(fields))


@pytest.mark.parametrize(
    "who",
    [
        Who(address=IPv4Address("100.64.0.1")),
        Who(address=IPv6Address("fd00::1")),
        Who(name="bob"),
        Who(node=A),
        Who(feature="public"),
    ],
)
def test_question_survives_the_wire(who: Who) -> None:
    question = Question(who, b"card")
    assert Question.decode_untrusted(question.encode()) == question


def test_largest_card_fits_into_every_layer() -> None:
    question = Question(Who(node=A), bytes(Card.BYTES_MAX)).encode()
    assert len(question) <= BODY_BYTES_MAX
    inner = Inner(A, BootId(bytes(8)), 2**64 - 1, 255, 2**64 - 1, bytes(BODY_BYTES_MAX), bytes(64)).encode()
    assert len(inner) + OVERHEAD_BYTES <= PAYLOAD_BYTES_MAX
    Envelope(A, bytes(16), 8, bytes(8), bytes(PAYLOAD_BYTES_MAX)).encode()


def test_envelope_for_a_node_and_for_a_bucket_is_refused() -> None:
    both = Envelope(A, bytes(16), 8, None, b"x", bucket=7).encode()
    with pytest.raises(RemoteProtocolError, match="for one node, and for a bucket"):
        Envelope.decode_untrusted(both)


def test_signed_message_names_receiver_and_every_field() -> None:
    base = Inner(A, BootId(bytes(8)), 1, 10, 0, b"x", bytes(64))
    variants = {
        base.signed_message(B),
        base.signed_message(None),
        Inner(B, BootId(bytes(8)), 1, 10, 0, b"x", bytes(64)).signed_message(B),
        Inner(A, BootId(b"1" * 8), 1, 10, 0, b"x", bytes(64)).signed_message(B),
        Inner(A, BootId(bytes(8)), 2, 10, 0, b"x", bytes(64)).signed_message(B),
        Inner(A, BootId(bytes(8)), 1, 11, 0, b"x", bytes(64)).signed_message(B),
        Inner(A, BootId(bytes(8)), 1, 10, 1, b"x", bytes(64)).signed_message(B),
        Inner(A, BootId(bytes(8)), 1, 10, 0, b"y", bytes(64)).signed_message(B),
    }
    assert len(variants) == 8


def test_largest_presence_makes_an_envelope_of_160_bytes_at_most() -> None:
    inner = Inner(A, BootId(bytes(8)), 2**64 - 1, Kind.PRESENCE, 0, bytes(Presence.BYTES_MAX), bytes(64)).encode()
    assert (
        len(Envelope(None, bytes(16), 8, None, inner, reach=Reach.ALL).encode()) <= presence.ENVELOPE_BYTES_MAX == 160
    )
    with pytest.raises(RemoteProtocolError, match="oversized"):
        Presence.decode_untrusted(record.encode([1, bytes(Presence.BYTES_MAX)]))


def test_presence_goes_far_at_the_start_on_a_change_for_all_and_every_six_hours() -> None:
    presences = Presences(rng=random.Random(1), now=0.0)
    said = []

    def run(hours: float) -> list[Reach]:
        said.clear()
        ends_at = at[0] + 3600 * hours
        while presences.next_timeout() <= ends_at:
            at[0] = presences.next_timeout()
            assert presences.take_due(now=at[0] - 0.001) is None
            reach = presences.take_due(now=at[0])
            assert reach is not None
            said.append(reach)
        at[0] = ends_at
        return list(said)

    at = [0.0]
    assert run(0.001) == [Reach.ALL]
    assert presences.next_timeout() >= 0.8 * presence.NEAR_PERIOD_S
    day = run(24)
    assert 3 <= day.count(Reach.ALL) <= 5
    assert 75 <= day.count(Reach.NEAR) <= 120
    presences.soon(Reach.NEAR, now=at[0])
    assert presences.next_timeout() <= at[0] + presence.SOON_S_MAX
    assert run(0.001) == [Reach.NEAR]
    presences.soon(Reach.ALL, now=at[0])
    assert run(0.001) == [Reach.ALL]


def test_presence_is_said_more_seldom_while_bytes_are_short_and_as_soon_as_ever_on_a_change() -> None:
    presences = Presences(rng=random.Random(1), now=0.0)
    presences.stretch = 4.0
    at = far_at = presences.next_timeout()
    assert presences.take_due(now=at) is Reach.ALL
    for _ in range(200):
        before, at = at, presences.next_timeout()
        if presences.take_due(now=at) is Reach.ALL:
            assert at - far_at >= 4 * presence.FAR_PERIOD_S * (1 - pending.JITTER)
            far_at = at
        else:
            assert at - before >= 4 * presence.NEAR_PERIOD_S * (1 - pending.JITTER)
    assert far_at > 0.8 * at
    presences.soon(Reach.ALL, now=at)
    assert presences.next_timeout() <= at + presence.SOON_S_MAX


def test_bucket_of_a_question_is_one_of_those_in_which_its_owner_is_asked_for() -> None:
    member = make_member(make_realm("home"), "bob")
    own = buckets_of(member.node_id, member.name, member.addresses)
    asked = [Who(node=member.node_id), Who(name="bob"), *(Who(address=address) for address in member.addresses)]
    assert sorted({who.bucket for who in asked}) == list(own)


def test_presence_survives_the_wire() -> None:
    presence = Presence(7, b"lists...")
    assert Presence.decode_untrusted(presence.encode()) == presence
