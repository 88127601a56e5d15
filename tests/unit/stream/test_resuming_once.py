"""Two stream machines that met before: a secret is used once, and ends with all that it is of."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kit.builders import NOW_UNIX, make_card, make_credential
from kit.resuming import (
    ANSWER,
    CARDS,
    HIGH,
    LOW,
    OFFER,
    REALM,
    Side,
    asked,
    confirm,
    exchange,
    pair,
    signed,
)

from conflux.control.envelope import Pairing
from conflux.crypto import kdf
from conflux.errors import RemoteProtocolError
from conflux.ids import BootId
from conflux.realm.credential import Chain
from conflux.realm.member import Member
from conflux.stream.event import (
    CardOutdated,
    Conflict,
    ReceiverEnd,
    ReceiverGone,
    ReceiverReady,
    Reply,
    Send,
    SenderEnd,
    SenderFailed,
    SignedAnew,
)
from conflux.stream.resume import Resume, Resumed
from conflux.stream.resuming import RIDE_S
from conflux.stream.resumptions import (
    ANSWER_S,
    DISTRUST_S,
    HALF_OPEN_S,
    IDLE_S,
    PEER_COUNT_MAX,
    SIGNED_S,
    TRIAL_BURST,
    TRIAL_RATE,
    Drop,
)

# ── once ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_repeated_resume_gets_the_identical_answer_and_opens_nothing_more():
    a, b = pair()
    resume = asked(a, b)
    b.take(resume)
    (first,) = b.sent()
    b.events()
    b.take(resume, ANSWER_S - 1)
    (second,) = b.sent()
    assert first == second
    assert b.events() == []


def test_a_resume_that_comes_after_its_answer_was_forgotten_is_refused():
    a, b = pair()
    resume, _ = exchange(a, b)
    confirm(b)
    b.streams.handle_timeout(now=ANSWER_S)
    with pytest.raises(RemoteProtocolError, match=Drop.USED):
        b.take(resume, ANSWER_S)


def stolen(a: Side) -> Side:
    """Return somebody who has all of a board's secrets."""
    thief = Side(a.member)
    for kept in [kept for own in a.secrets._kept.values() for kept in own]:
        copy = replace(kept, secret=bytearray(kept.secret))
        thief.secrets._add(copy)
    return thief


def test_a_secret_that_two_use_is_a_conflict_and_ends_what_it_opened():
    a, b = pair()
    thief = stolen(a)
    b.take(asked(thief, b))
    (resumed,) = b.sent()
    thief.take(resumed)
    b.open(a)  # the way back is in use
    b.events()
    with pytest.raises(RemoteProtocolError, match=Drop.CONFLICT):
        b.take(asked(a, b))
    gone = b.events()
    assert [event.end for event in gone if isinstance(event, ReceiverGone)] == [ReceiverEnd.CONFLICT]
    assert [event.end for event in gone if isinstance(event, SenderFailed)] == [SenderEnd.CONFLICT]
    assert Conflict(a.member.node_id, seen_here=True) in gone
    assert b.secret_count() == 0
    with pytest.raises(RemoteProtocolError, match=Drop.UNKNOWN):  # nor does the next secret of the thief serve
        b.take(asked(thief, b))


def test_after_a_conflict_both_sides_sign_for_an_hour():
    a, b = pair()
    thief = stolen(a)
    b.take(asked(thief, b))
    with pytest.raises(RemoteProtocolError, match=Drop.CONFLICT):
        b.take(asked(a, b))
    a.resuming.conflict_told(b.member.node_id, now=0.0)
    assert Conflict(b.member.node_id, seen_here=False) in a.events()
    for now, kept in ((1.0, 0), (DISTRUST_S + 1, 1)):
        for side in (a, b):
            side.streams.handle_timeout(now=now)
            side.sent()
            side.events()
        signed(a, b, now)
        assert (a.secret_count(), b.secret_count()) == (kept, kept)


def test_the_peer_that_hears_of_a_conflict_ends_what_it_had_resumed():
    a, b = pair()
    exchange(a, b)
    a.events()
    a.resuming.conflict_told(b.member.node_id, now=0.0)
    gone = a.events()
    assert [event.end for event in gone if isinstance(event, SenderFailed)] == [SenderEnd.CONFLICT]
    assert [event.end for event in gone if isinstance(event, ReceiverGone)] == [ReceiverEnd.CONFLICT]
    assert a.secret_count() == 0


def test_a_secret_that_was_used_up_serves_no_thief():
    a, b = pair()
    thief = stolen(a)
    exchange(a, b)
    confirm(b)
    with pytest.raises(RemoteProtocolError, match=Drop.USED):
        b.take(asked(thief, b))


def test_a_thief_of_a_secret_reads_no_earlier_and_no_later_exchange_that_it_only_heard():
    a, b = pair()
    thief, deaf = stolen(a), stolen(b)
    resume, resumed = exchange(a, b)
    with pytest.raises(RemoteProtocolError, match=Drop.LATE):
        thief.take(resumed)
    deaf.take(resume)  # it opens what a said, and answers with a key of its own: other keys
    mine = {event.data.key for event in deaf.events(ReceiverReady)}
    assert not mine & {event.data.key for event in b.events(ReceiverReady)}


# ── what ends a secret ───────────────────────────────────────────────────────────────────────────────────────────────


def test_secrets_are_erased_when_they_were_used():
    a, b = pair()
    (old_a,), (old_b,) = (next(iter(side.secrets._kept.values())) for side in (a, b))
    resume = asked(a, b)
    share, early = a.secrets.asked_of(b.member.node_id).share, a.secrets.asked_of(b.member.node_id).early
    b.take(resume)
    answered = next(iter(b.secrets._answered.values()))
    a.take(b.sent()[0])
    assert not any(old_a.secret)
    assert share.is_erased
    assert not any(early)
    assert any(old_b.secret)  # until a frame shows that the peer has the next one
    confirm(b)
    assert not any(old_b.secret)
    assert not any(answered.early)


def test_a_half_open_resumption_is_erased_after_ten_seconds():
    a, b = pair()
    b.take(asked(a, b))
    b.streams.handle_timeout(now=HALF_OPEN_S)
    assert b.secret_count() == 0
    assert [type(event) for event in b.events(ReceiverGone)] == [ReceiverGone]
    answered = next(iter(b.secrets._answered.values()))
    assert not any(answered.old.secret)
    assert not any(answered.early)
    assert not any(answered.next.secret)


def test_keys_of_a_side_that_forgets_a_peer_are_erased():
    a, b = pair()
    (kept,) = a.secrets._kept[b.member.node_id]
    a.streams.peer_revoked(b.member.node_id)
    assert not any(kept.secret)
    assert a.secret_count() == 0
    with pytest.raises(RemoteProtocolError, match=Drop.UNKNOWN):
        a.take(asked(b, a))


def test_a_restart_of_the_peer_ends_its_secrets():
    a, b = pair()
    a.streams.peer_restarted(b.member.node_id)
    a.events()
    newer = make_card(b.member, boot=BootId(b"\0\0\0\0\2new"))
    a.streams.open(newer, now=0.0)
    assert isinstance(a.sent()[0], Send)


def test_a_card_of_another_boot_or_chain_is_opened_with_signatures():
    for other in (make_card(HIGH, boot=BootId(b"\0\0\0\0\2new")), renewed_card(HIGH)):
        a, _b = pair()
        a.streams.open(other, now=0.0)
        assert isinstance(a.sent()[0], Send)
        assert a.secret_count() == 0


def renewed(member: Member) -> Member:
    chain = Chain(make_credential(REALM, member.name, not_before=NOW_UNIX + 86400), None)
    return Member(member.keys, member.anchor, chain)


def renewed_card(member: Member):
    return make_card(renewed(member))


def test_a_renewed_credential_of_this_node_ends_its_secrets():
    _a, b = pair()
    b.streams.adopt(renewed(HIGH))
    assert b.secret_count() == 0


def test_a_resume_under_another_chain_is_refused():
    a, b = pair()
    b.cards[LOW.node_id] = renewed_card(LOW)
    with pytest.raises(RemoteProtocolError, match=Drop.STALE):
        b.take(asked(a, b))
    assert b.secret_count() == 0


def test_a_peer_that_names_another_chain_than_its_card_is_asked_for_the_card() -> None:
    for asker_renews in (True, False):
        a, b = pair()
        one, other = (a, b) if asker_renews else (b, a)
        one.streams._book.chain = kdf.sha256(renewed_card(one.member).chain.encode())
        for kept in next(iter(one.secrets._kept.values())):  # as after an opening with signatures
            kept.pair = kept.pair._replace(own_chain=one.streams._book.chain)
        resume = asked(a, b)
        if not asker_renews:
            b.take(resume)
        with pytest.raises(RemoteProtocolError, match=Drop.STALE):
            b.take(resume) if asker_renews else a.take(b.sent()[0])
        assert other.events(CardOutdated) == [CardOutdated(one.member.node_id)]


def test_a_secret_of_an_earlier_chain_is_refused_whatever_chain_is_said() -> None:
    a, b = pair()
    thief = stolen(a)
    b.cards[LOW.node_id] = renewed_card(LOW)
    thief.streams._book.chain = kdf.sha256(renewed_card(LOW).chain.encode())
    (kept,) = next(iter(thief.secrets._kept.values()))
    kept.pair = kept.pair._replace(own_chain=thief.streams._book.chain)
    with pytest.raises(RemoteProtocolError, match=Drop.STALE):
        b.take(asked(thief, b))
    assert b.secret_count() == 0


def test_signatures_of_the_owner_end_what_a_thief_goes_on_with() -> None:
    a, b = pair()
    thief = stolen(a)
    exchange(thief, b)
    confirm(b)
    back = b.open(a)  # in use towards the thief
    b.events()
    with pytest.raises(RemoteProtocolError, match=Drop.USED):
        b.take(asked(a, b))
    a.streams.handle_timeout(now=60.0)
    (open_,) = a.sent()
    b.streams.receive_open(CARDS[LOW.node_id], open_.body, "to", now=60.0)
    gone = b.events()
    assert [event.end for event in gone if isinstance(event, ReceiverGone)] == [ReceiverEnd.SIGNED]
    assert [(event.stream, event.end) for event in gone if isinstance(event, SenderFailed)] == [
        (back, SenderEnd.SIGNED)
    ]
    assert SignedAnew(LOW.node_id) in gone, "the link that the thief opened is to end"
    with pytest.raises(RemoteProtocolError, match=Drop.UNKNOWN):
        b.take(asked(thief, b, 60.0))


def signs(a: Side, b: Side, now: float) -> bytes:
    """Return the OPEN of a board that has lost its secrets."""
    a.resuming.forget(b.member.node_id)
    a.open(b, now)
    *_, open_ = a.sent()
    assert isinstance(open_, Send)
    return open_.body


def test_signatures_of_the_peer_end_a_resume_that_is_under_way() -> None:
    """Else whoever has the old secret could still answer it."""
    a, b = pair()
    thief = stolen(a)
    resume = asked(b, a, 60.0)
    b.streams.receive_open(CARDS[LOW.node_id], signs(a, b, 60.0), "to", now=60.0)
    thief.take(resume, 60.0)
    (answer,) = thief.sent()
    with pytest.raises(RemoteProtocolError, match=Drop.LATE):
        b.take(answer, 60.0)
    assert [type(each) for each in b.sent()] == [Reply, Send]  # the stream that waited is opened with signatures


def test_a_resume_under_a_secret_that_both_signed_for_just_now_is_answered_with_its_offer() -> None:
    a, b = pair()
    b.open(a, 1.0)
    assert b.resuming.ride(LOW.node_id, OFFER, now=1.0)
    (resume,) = b.sent()
    a.take(resume, 1.0)
    a.streams.receive_open(CARDS[HIGH.node_id], signs(b, a, 1.0), "to", now=1.0)
    a.sent()
    assert a.resuming.ride_back(HIGH.node_id, OFFER.seq, ANSWER, now=1.0)
    assert [each.what for each in a.sent()] == [Pairing.RESUMED]


def test_an_exchange_that_comes_to_nothing_leaves_no_key_behind() -> None:
    a, b = pair()
    a.open(b)
    a.resuming.ride(HIGH.node_id, OFFER, now=0.0)
    b.take(a.sent()[0])
    asking, _ = b.resuming._rides[LOW.node_id]
    b.streams.peer_revoked(LOW.node_id)
    assert not any(asking.early)
    assert not any(asking.hs)
    b.streams.handle_timeout(now=RIDE_S)
    assert b.sent() == []


def test_a_resume_of_a_node_without_a_card_that_holds_is_refused():
    a, b = pair()
    b.cards.clear()
    with pytest.raises(RemoteProtocolError, match=Drop.STALE):
        b.take(asked(a, b))


@pytest.mark.parametrize("ended", ["asker", "answerer", "before the answer"])
def test_no_secret_outlives_a_credential(ended):
    holds = {"asker": True, "answerer": True}
    a = Side(LOW, holds=lambda peer: holds["asker"])
    b = Side(HIGH, holds=lambda peer: holds["answerer"])
    signed(a, b)
    if ended == "asker":
        holds["asker"] = False
        a.open(b)
        assert isinstance(a.sent()[0], Send)
        assert a.secret_count() == 0
        return
    resume = asked(a, b)
    if ended == "answerer":
        holds["answerer"] = False
        with pytest.raises(RemoteProtocolError, match=Drop.STALE):
            b.take(resume)
        assert b.secret_count() == 0
        return
    b.take(resume)
    holds["asker"] = False
    with pytest.raises(RemoteProtocolError, match=Drop.STALE):
        a.take(b.sent()[0])
    assert a.secret_count() == 0
    assert isinstance(a.sent()[0], Send)


def test_other_lists_are_compared_and_opened_with_signatures():
    a, b = pair()
    b.lists = b"\1" * 8
    b.told.clear()
    with pytest.raises(RemoteProtocolError, match=Drop.STALE):
        b.take(asked(a, b))
    assert b.told == [(LOW.node_id, bytes(8))]
    assert b.secret_count() == 0


def test_lists_that_came_before_the_answer_have_it_opened_with_signatures():
    a, b = pair()
    b.take(asked(a, b))
    (resumed,) = b.sent()
    a.lists = b"\1" * 8
    with pytest.raises(RemoteProtocolError, match=Drop.STALE):
        a.take(resumed)
    assert isinstance(a.sent()[0], Send)
    assert a.secret_count() == 0


def test_a_secret_is_kept_for_an_hour_after_the_last_stream_and_a_day_after_signatures():
    a, b = pair()
    a.streams.handle_timeout(now=IDLE_S)  # the stream is still there
    assert a.secret_count() == 1
    for stream in list(a.streams._outgoing):
        a.streams.close_sender(stream)
    a.streams.handle_timeout(now=IDLE_S + 1)
    a.streams.handle_timeout(now=2 * IDLE_S)
    assert a.secret_count() == 1
    a.streams.handle_timeout(now=2 * IDLE_S + 1)
    assert a.secret_count() == 0
    a, b = pair()
    exchange(a, b, IDLE_S / 2)
    for side in (a, b):
        side.secrets.used(LOW.node_id, SIGNED_S)
        side.secrets.used(HIGH.node_id, SIGNED_S)
        side.streams.handle_timeout(now=SIGNED_S)
        assert side.secret_count() == 0


def test_boxes_of_one_secret_are_rationed() -> None:
    (a, b), (other_a, other_b) = pair(), pair()
    b.take(asked(a, b))
    (resumed,) = b.sent()
    for side, message, record in ((other_b, asked(other_a, other_b), Resume), (a, resumed, Resumed)):
        bad = replace(message, body=replace(record.decode_untrusted(message.body), box=bytes(99)).encode())
        words = []
        for _ in range(int(TRIAL_BURST) + 1):
            with pytest.raises(RemoteProtocolError) as refused:
                side.take(bad)
            words.append(refused.value.reason)
        assert words == [Drop.SEAL] * int(TRIAL_BURST) + [Drop.FLOOD]
        with pytest.raises(RemoteProtocolError, match=Drop.SEAL):
            side.take(bad, 1 / TRIAL_RATE)


def test_the_table_is_bounded_and_the_oldest_is_erased():
    a, b = pair()
    (kept,) = a.secrets._kept[b.member.node_id]
    for number in range(PEER_COUNT_MAX):
        peer = number.to_bytes(16)
        a.secrets.keep_first(kept.pair._replace(peer=peer), b"s" * 32, b"open", peer, always_mix=False, now=0.0)
    assert a.secret_count() == PEER_COUNT_MAX
    assert not any(kept.secret)


def test_each_binding_of_the_secret_counts():
    for change in ("boot", "realm", "direction"):
        a, b = pair()
        kept = next(iter(a.secrets._kept.values()))[0]
        if change == "boot":
            a.secrets._boot = BootId(b"\0\0\0\0\2new")
        elif change == "realm":
            a.secrets._schedule._realm = bytes(16)
        resume = asked(a, b)
        if change == "direction":  # back to its sender
            with pytest.raises(RemoteProtocolError, match=Drop.UNKNOWN):
                a.take(resume)
            assert any(kept.secret)
            continue
        with pytest.raises(RemoteProtocolError, match=Drop.SEAL):
            b.take(resume)
        assert b.secret_count() == 1
