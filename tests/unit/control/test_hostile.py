"""Envelopes that are forged, replayed or too many: a counted drop in the control plane, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from kit.builders import NOW_UNIX, make_card, make_credential, make_member, make_realm, node_keys
from kit.control import Station, World, boot_id
from kit.envelopes import envelope_of, inner_of, sealed_to

from conflux import record
from conflux.control import plane as plane_module
from conflux.control.channel import Arrival
from conflux.control.envelope import Envelope, Inner, Kind
from conflux.control.event import Heard
from conflux.control.who import Presence, Question, Who
from conflux.crypto.sign import context
from conflux.ids import NodeId
from conflux.realm.card import Card
from conflux.realm.credential import SKEW_S, Chain
from conflux.realm.member import Member


def acquainted() -> World:
    """alice and bob have each other's cards, and nothing is pending."""
    world = World("alice", "bob")
    world["alice"].plane.who(Who(name="bob"), now=world.now)
    world.run(3)
    for station in world.stations.values():
        station.seen.clear()
        station.sent.clear()
        station.plane.drops.clear()
    return world


def drops_of(station: Station) -> dict[str, int]:
    return dict(station.plane.drops)


def test_well_formed_message_is_accepted() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    world.inject(bob, sealed_to(bob, inner_of(alice.member, bob.node, Kind.OPEN, b"x")))
    assert [message.body for message in bob.messages()] == [b"x"]
    assert drops_of(bob) == {}


@pytest.mark.parametrize(
    ("to", "key_id", "payload", "reason"),
    [
        (None, bytes(8), bytes(2000), "malformed"),  # sealed, but for all
        (bytes(16), None, b"x", "not-for-us"),
        (None, None, b"x", "malformed"),  # no Inner in it
    ],
)
def test_envelope_without_a_message_for_us_is_dropped(
    to: NodeId | None, key_id: bytes | None, payload: bytes, reason: str
) -> None:
    world = acquainted()
    world.inject(world["bob"], envelope_of(payload, to=to, key_id=key_id))
    assert drops_of(world["bob"]) == {reason: 1}
    assert world["bob"].seen == []
    assert world["bob"].sent == []


def test_truncated_and_flipped_payloads_are_dropped() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    good = sealed_to(bob, inner_of(alice.member, bob.node, Kind.OPEN, b"x"))
    for size in range(1, len(good.payload), 61):
        world.inject(bob, replace(good, payload=good.payload[:size]))
    for position in range(0, len(good.payload), 61):
        world.now += 1  # so that the budget does not run out
        flipped = bytearray(good.payload)
        flipped[position] ^= 1
        world.inject(bob, replace(good, payload=bytes(flipped)))
    assert bob.messages() == []
    assert set(drops_of(bob)) == {"bad-seal"}


def test_forged_signature_is_dropped_and_does_not_shut_the_sender_out() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    mallory = make_member(make_realm(), "mallory")
    forged = inner_of(alice.member, bob.node, Kind.OPEN, b"evil", seq=2**50, signer=mallory)
    world.inject(bob, sealed_to(bob, forged))
    assert drops_of(bob) == {"bad-signature": 1}
    # Neither its huge sequence number moved the window, nor is its envelope id remembered.
    world.inject(bob, sealed_to(bob, inner_of(alice.member, bob.node, Kind.OPEN, b"good")))
    assert [message.body for message in bob.messages()] == [b"good"]


def test_signature_for_another_purpose_receiver_or_realm_is_dropped() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    carol = make_member(make_realm(), "carol")
    foreign = make_member(make_realm("elsewhere"), "alice")
    for number, inner in enumerate(
        (
            inner_of(alice.member, bob.node, Kind.OPEN, b"", purpose="lan-dial"),
            inner_of(alice.member, carol.node_id, Kind.OPEN, b""),  # sealed anew by carol, to bob
            inner_of(alice.member, None, Kind.OPEN, b""),
            inner_of(foreign, bob.node, Kind.OPEN, b""),
        )
    ):
        world.inject(bob, sealed_to(bob, inner, number=number))
    assert drops_of(bob) == {"bad-signature": 4}
    assert bob.messages() == []


def test_seal_made_for_another_node_is_dropped() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    info = context("control-seal", bob.member.realm_id) + bob.plane.own_card.hop_key_id + alice.node
    world.inject(bob, sealed_to(bob, inner_of(alice.member, bob.node, Kind.OPEN, b""), info=info))
    assert drops_of(bob) == {"bad-seal": 1}


def test_kinds_that_must_be_sealed_are_refused_plain_and_the_other_way_round() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    world.inject(bob, envelope_of(inner_of(alice.member, bob.node, Kind.OPEN, b""), to=bob.node))
    assert drops_of(bob) == {"not-sealed": 1}
    world.inject(bob, sealed_to(bob, inner_of(alice.member, bob.node, Kind.CARD, b"")))
    world.inject(bob, sealed_to(bob, inner_of(alice.member, bob.node, 200, b"")))
    assert drops_of(bob) == {"not-sealed": 1, "malformed": 2}


def test_replay_acts_once() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    inner = inner_of(alice.member, bob.node, Kind.OPEN, b"x")
    first = sealed_to(bob, inner, number=1)
    world.inject(bob, first)
    world.inject(bob, first)
    world.inject(bob, sealed_to(bob, inner, number=2))
    assert len(bob.messages()) == 1
    assert drops_of(bob) == {"duplicate": 1, "replayed": 1}


@pytest.mark.parametrize("kind", [Kind.PRESENCE, Kind.OPEN, Kind.WHO])
def test_message_of_another_under_the_id_of_an_envelope_does_not_shut_it_out(kind: Kind) -> None:
    world = World("alice", "bob", "mallory")
    alice, bob, mallory = world["alice"], world["bob"], world["mallory"]
    for asker in (alice, mallory):
        asker.plane.who(Who(name="bob"), now=world.now)
    world.run(3)
    true = sealed_to(bob, inner_of(alice.member, bob.node, Kind.OPEN, b"alice's"), number=7)
    bodies = {
        Kind.PRESENCE: Presence(1, bytes(8)).encode(),
        Kind.OPEN: b"mallory's",
        Kind.WHO: Question(Who(name="bob"), mallory.plane.own_card.encode()).encode(),
    }
    to = bob.node if kind is Kind.OPEN else None
    own = inner_of(mallory.member, to, kind, bodies[kind])
    bob.plane.drops.clear()
    world.inject(bob, sealed_to(bob, own, number=7) if to else envelope_of(own, to=None, number=7), via=mallory.node)
    world.inject(bob, true)
    assert [message.body for message in bob.messages()][-1:] == [b"alice's"]
    assert drops_of(bob) == {}


def test_replayed_message_tells_nothing_of_the_way_to_its_sender() -> None:
    world = World("far", "dora", "mallory")
    far, dora, mallory = world["far"], world["dora"], world["mallory"]
    dora.plane.who(Who(name="far"), now=world.now)
    world.run(3)
    announcement = next(envelope for envelope in reversed(far.sent) if envelope.to is None)
    assert Heard(far.node, far.node) in dora.seen
    dora.seen.clear()
    while dora.plane.next_path() is not None:
        pass
    copy = replace(announcement, id=b"another id of it")
    world.inject(dora, copy, via=mallory.node)
    path = bytes(32)
    dora.plane.receive_untrusted(Arrival(replace(copy, id=b"and another id !"), None, "nats", path), now=world.now)
    world.drain()
    assert dora.seen == []
    assert dora.plane.next_path() is None


def test_message_that_is_older_than_what_was_heard_tells_nothing_of_the_way_to_its_sender() -> None:
    """It was dropped when it came, as its sender was unknown then: nobody but who kept it sends it so late."""
    world = World("far", "dora", "mallory")
    far, dora, mallory = world["far"], world["dora"], world["mallory"]
    world.run(3)
    announcement = next(envelope for envelope in reversed(far.sent) if envelope.to is None)
    dora.plane.who(Who(name="far"), now=world.now)
    world.run(1)
    assert Heard(far.node, far.node) in dora.seen
    dora.seen.clear()
    world.inject(dora, replace(announcement, id=b"another id of it"), via=mallory.node)
    assert dora.seen == []


def test_request_that_comes_again_another_way_is_answered_and_tells_nothing_of_the_way() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    world.start("mallory")
    inner = inner_of(alice.member, bob.node, Kind.OPEN, b"x")
    world.inject(bob, sealed_to(bob, inner, number=1), via=alice.node)
    bob.plane.reply(bob.messages()[0], Kind.ACCEPT, b"y", now=world.now)
    world.drain()
    bob.seen.clear()
    bob.sent.clear()
    world.inject(bob, sealed_to(bob, inner, number=2), via=world["mallory"].node)
    assert [envelope.to for envelope in bob.sent] == [alice.node]
    assert bob.seen == []


def test_replay_from_below_the_window_is_refused() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    for number, seq in enumerate((2**40, 2**40 + 1024, 2**40, 2**40 + 1)):
        world.inject(bob, sealed_to(bob, inner_of(alice.member, bob.node, Kind.OPEN, b"", seq=seq), number=number))
    assert [message.seq for message in bob.messages()] == [2**40, 2**40 + 1024, 2**40 + 1]
    assert drops_of(bob) == {"replayed": 1}


def test_message_of_an_older_boot_is_refused() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    world.inject(bob, sealed_to(bob, inner_of(alice.member, bob.node, Kind.OPEN, b"", boot=0)))
    assert drops_of(bob) == {"old-boot": 1}


def test_recorded_messages_are_worth_nothing_after_their_receiver_has_restarted() -> None:
    """A restarted node has forgotten the replay window, and the key that they were sealed to."""
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    recorded = sealed_to(bob, inner_of(alice.member, bob.node, Kind.OPEN, b"x"))
    world.inject(bob, recorded)
    assert len(bob.messages()) == 1
    again = world.start("bob", boot=2)
    again.plane.who(Who(name="alice"), now=world.now)
    world.run(3)
    assert again.plane.card(alice.node) is not None
    again.plane.drops.clear()
    world.inject(again, recorded)
    assert again.messages() == []
    assert drops_of(again) == {"unknown-key": 1}


def test_message_of_another_version_is_a_drop_of_that_name_and_the_next_one_is_heard() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    later = inner_of(alice.member, bob.node, Kind.OPEN, b"x")
    assert later[:2] == b"\x88\x01"  # an array of eight, of which the version is the first
    world.inject(bob, sealed_to(bob, later[:1] + b"\x02" + later[2:]))
    assert drops_of(bob) == {"version": 1}
    world.inject(bob, sealed_to(bob, inner_of(alice.member, bob.node, Kind.OPEN, b"y"), number=2))
    assert [message.body for message in bob.messages()] == [b"y"]


def test_message_of_a_kind_that_this_version_does_not_know_is_dropped_and_the_next_one_is_heard() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    unknown = max(Kind) + 1
    world.inject(bob, sealed_to(bob, inner_of(alice.member, bob.node, unknown, b"x")))
    assert drops_of(bob) == {"malformed": 1}
    world.inject(bob, sealed_to(bob, inner_of(alice.member, bob.node, Kind.OPEN, b"y"), number=2))
    assert [message.body for message in bob.messages()] == [b"y"]


def test_unknown_sender_is_asked_for_its_card_and_its_retry_is_no_second_message() -> None:
    world = acquainted()
    bob = world["bob"]
    carol = world.start("carol")
    inner = inner_of(carol.member, bob.node, Kind.OPEN, b"hi")
    world.inject(bob, sealed_to(bob, inner))
    assert drops_of(bob) == {"unknown-sender": 1}
    world.run(0.1)
    world.inject(bob, sealed_to(bob, inner, number=2))
    assert [message.body for message in bob.messages()] == [b"hi"]


def test_unknown_senders_make_few_questions() -> None:
    world = acquainted()
    bob = world["bob"]
    for number in range(60):
        stranger = make_member(make_realm(), f"stranger-{number % 12}")
        world.inject(bob, sealed_to(bob, inner_of(stranger, bob.node, Kind.OPEN, b"", seq=number), number=number))
    assert len(bob.sent) <= 2 * 8  # to the node, and then, as it is absent, to the area


def test_unknown_key_is_answered_with_few_cards() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    for number in range(60):
        world.inject(bob, envelope_of(bytes(1200), to=bob.node, key_id=bytes(8), number=number), via=alice.node)
    assert len(bob.sent) == 8
    assert drops_of(bob) == {"unknown-key": 60}


def question_of(member: Member, card: bytes, query: Who, **options: int) -> Envelope:
    inner = inner_of(member, None, Kind.WHO, Question(query, card).encode(), **options)
    return envelope_of(inner, to=None, number=options.get("seq", 1) % 2**64)


def test_question_of_a_foreign_realm_is_dropped() -> None:
    world = acquainted()
    bob = world["bob"]
    foreign = make_member(make_realm("elsewhere"), "eve")
    world.inject(bob, question_of(foreign, make_card(foreign, boot=boot_id(1)).encode(), Who(name="bob")))
    assert drops_of(bob) == {"foreign-realm": 1}
    assert bob.sent == []


def member_with_dates(not_before: int, not_after: int) -> Member:
    realm = make_realm()
    credential = make_credential(realm, "tim", not_before=not_before, not_after=not_after)
    return Member(node_keys("tim"), realm.anchor, Chain(credential, None))


def test_question_with_an_expired_credential_is_dropped() -> None:
    world = acquainted()
    bob = world["bob"]
    tim = member_with_dates(NOW_UNIX - 100, NOW_UNIX)
    world.inject(bob, question_of(tim, make_card(tim, boot=boot_id(1)).encode(), Who(name="bob")))
    assert drops_of(bob) == {"expired": 1}
    assert bob.sent == []


def test_peer_whose_credential_runs_out_is_no_longer_heard() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    assert bob.plane.card(alice.node) is not None
    bob.clock_unix = alice.member.chain.not_after
    assert bob.plane.card(alice.node) is None
    world.inject(bob, sealed_to(bob, inner_of(alice.member, bob.node, Kind.OPEN, b"")))
    assert drops_of(bob) == {"unknown-sender": 1}
    world.run(1)
    assert bob.plane.card(alice.node) is None
    assert drops_of(bob)["expired"] >= 1


def test_clock_behind_catches_up_with_a_date_the_realm_signed() -> None:
    world = acquainted()
    bob = world["bob"]
    begins = NOW_UNIX + 10 * SKEW_S
    tim = member_with_dates(begins, begins + 1000)
    world.inject(bob, question_of(tim, make_card(tim, boot=boot_id(1)).encode(), Who(name="bob")))
    assert drops_of(bob) == {}
    assert bob.clock_unix == begins
    assert len(bob.sent) == 1


def test_card_of_another_node_is_dropped() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    mallory = make_member(make_realm(), "mallory")
    stolen = alice.plane.own_card.encode()
    world.inject(bob, question_of(mallory, stolen, Who(name="bob")))
    assert drops_of(bob) == {"wrong-sender": 1}


def test_card_of_another_boot_than_the_message_is_dropped() -> None:
    world = acquainted()
    bob = world["bob"]
    carol = make_member(make_realm(), "carol")
    world.inject(bob, question_of(carol, make_card(carol, boot=boot_id(1)).encode(), Who(name="bob"), boot=2))
    assert drops_of(bob) == {"malformed": 1}


def test_replayed_card_in_a_forged_message_is_not_kept() -> None:
    world = acquainted()
    bob = world["bob"]
    carol, mallory = make_member(make_realm(), "carol"), make_member(make_realm(), "mallory")
    body = Question(Who(name="bob"), make_card(carol, boot=boot_id(1)).encode()).encode()
    world.inject(bob, envelope_of(inner_of(carol, None, Kind.WHO, body, signer=mallory), to=None))
    assert drops_of(bob) == {"bad-signature": 1}
    assert bob.plane.card(carol.node_id) is None


def test_unsolicited_card_of_a_stranger_is_dropped_before_it_is_verified() -> None:
    world = acquainted()
    bob = world["bob"]
    carol = make_member(make_realm(), "carol")
    card = make_card(carol, boot=boot_id(1)).encode()
    world.inject(bob, envelope_of(inner_of(carol, bob.node, Kind.CARD, card), to=bob.node))
    assert drops_of(bob) == {"unsolicited": 1}
    assert bob.plane.card(carol.node_id) is None


@pytest.mark.parametrize("liar", ["bob", "carol"])
def test_answer_of_a_node_that_does_not_own_the_address_answers_nothing(liar: str) -> None:
    world = acquainted()
    world.start("carol")  # alice does not know her card yet, and knows bob's
    alice, other = world["alice"], world[liar]
    query = Who(address=make_member(make_realm(), "dave").addresses[0])
    alice.plane.who(query, now=world.now)
    world.drain()
    asked = Inner.decode_untrusted(alice.sent[-1].payload).seq
    lie = inner_of(other.member, alice.node, Kind.CARD, other.plane.own_card.encode(), re=asked)
    world.inject(alice, envelope_of(lie, to=alice.node))
    world.run(4)
    assert alice.found() == []
    assert [failed.query for failed in alice.not_found()] == [query]


def test_answer_of_another_than_the_asked_is_dropped() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    world.start("carol")
    carol = world["carol"]
    alice.plane.who(Who(name="carol"), now=world.now)
    world.run(0.1)
    token = alice.plane.request(bob.node, Kind.OPEN, b"", now=world.now)
    world.inject(alice, sealed_to(alice, inner_of(carol.member, alice.node, Kind.ACCEPT, b"", re=token)))
    assert alice.messages() == []
    assert drops_of(alice) == {"late": 1}


def test_own_message_coming_back_is_dropped() -> None:
    world = acquainted()
    alice = world["alice"]
    world.inject(alice, sealed_to(alice, inner_of(alice.member, alice.node, Kind.OPEN, b"")))
    assert drops_of(alice) == {"own-echo": 1}


def test_flood_of_one_neighbour_is_dropped_before_it_is_looked_at_and_others_are_heard() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    flooder = NodeId(b"f" * 16)
    for _ in range(1000):
        world.inject(bob, envelope_of(b"junk", to=None), via=flooder)
    counts = Counter(drops_of(bob))
    assert counts["flood"] == 600
    assert counts["malformed"] == 400
    world.inject(bob, sealed_to(bob, inner_of(alice.member, bob.node, Kind.OPEN, b"x")), via=alice.node)
    assert len(bob.messages()) == 1


def test_flood_in_anothers_name_uses_up_only_the_flooders_share() -> None:
    world = acquainted()
    alice, bob = world["alice"], world["bob"]
    flooder = NodeId(b"f" * 16)
    forged = inner_of(alice.member, bob.node, Kind.OPEN, b"", signer=make_member(make_realm(), "mallory"))
    envelope = sealed_to(bob, forged)
    for _ in range(150):
        world.inject(bob, envelope, via=flooder)
    assert drops_of(bob) == {"bad-signature": 100, "flood": 50}
    world.inject(bob, sealed_to(bob, inner_of(alice.member, bob.node, Kind.OPEN, b"x")), via=alice.node)
    assert len(bob.messages()) == 1


def test_presence_of_a_stranger_costs_nothing_but_a_count() -> None:
    world = acquainted()
    bob = world["bob"]
    carol = make_member(make_realm(), "carol")
    world.inject(
        bob, envelope_of(inner_of(carol, None, Kind.PRESENCE, record.encode([1, 1, bob.plane.lists.digest])), to=None)
    )
    assert drops_of(bob) == {"unknown-sender": 1}
    assert bob.sent == []


@pytest.mark.parametrize("kind", [Kind.WHO, Kind.CARD])
def test_card_with_a_bad_hop_key_is_dropped_and_requests_go_on(kind: Kind) -> None:
    world = World("alice", "bob")
    alice, bob = world["alice"].member, world["bob"]
    hop_public = make_card(alice).hop_public[:-32] + bytes(32)  # X25519 refuses the point
    card = Card.build(alice.keys, alice.chain, boot=boot_id(1), hop_public=hop_public, serial=9)
    bob.plane.request(alice.node_id, Kind.OPEN, b"x", now=world.now)
    body = Question(Who(node=bob.node), card.encode()).encode() if kind is Kind.WHO else card.encode()
    world.inject(bob, envelope_of(inner_of(alice, bob.node, kind, body), to=bob.node))
    assert drops_of(bob) == {"malformed": 1}
    assert bob.plane.card(alice.node_id) is None
    world.run(3)
    assert bob.plane.card(alice.node_id) == world["alice"].plane.own_card


def test_nodes_behind_others_are_remembered_up_to_the_bound_and_the_oldest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plane_module, "BEHIND_COUNT_MAX", 1)
    world = World("alice", "bob", "carol")
    bob = world["bob"]
    for asker in (world["alice"], world["carol"]):
        asker.plane.who(Who(name="bob"), now=world.now)
    world.run(3)
    for number, name in enumerate(("alice", "carol")):
        said = sealed_to(bob, inner_of(world[name].member, bob.node, Kind.OPEN, b"x"), number=number)
        bob.plane.receive_untrusted(Arrival(said, None, "nats", b"key of another node".ljust(32)), now=world.now)
        assert list(bob.plane._behind) == [world[name].node]
