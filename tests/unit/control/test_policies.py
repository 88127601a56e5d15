"""How the policy spreads: who is told, who is asked, and what nobody can make a node do."""

import random
from collections import Counter

import pytest
from kit.builders import NOW_UNIX, make_realm
from kit.control import Station, World
from kit.lists import ROOT, deny_list
from kit.published import CLOSED_TEXT, OPEN_TEXT, large_text, published, publisher

from conflux.control.channel import Arrival
from conflux.control.envelope import POLICY_KINDS, Envelope, Inner, Kind, Reach
from conflux.control.lists import Send
from conflux.control.policies import (
    ANSWERS_EACH,
    ASK_RETRY_S,
    FETCH_COUNT_MAX,
    FORGET_S,
    LEARN_EACH,
    OWED_SPREAD_S,
    OWED_WAIT_S,
    Policies,
    PolicyAsked,
    PolicyPiece,
    PolicyTold,
)
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.credential import SKEW_S
from conflux.realm.listbook import ListBook
from conflux.realm.policy import SignedPolicy
from conflux.realm.policybook import PolicyBook
from conflux.sim.flights import Weather

REALM = make_realm()
ME, PEER, OTHER = (NodeId(bytes((number,)) * 16) for number in (1, 2, 3))
OLD, NEW, LARGE = published(OPEN_TEXT, NOW_UNIX - 1), published(CLOSED_TEXT), published(large_text())


def policies_of(*held: SignedPolicy) -> Policies:
    book = PolicyBook(ListBook(REALM.anchor, lambda: NOW_UNIX), lambda: NOW_UNIX)
    book.load(held)
    return Policies(book, me=ME, rng=random.Random(1), clock=lambda: NOW_UNIX)


def sends(policies: Policies) -> list[Send]:
    return list(iter(policies.next_send, None))


def asked(policies: Policies) -> list[tuple[NodeId | None, int]]:
    return [(each.to, PolicyAsked.decode_untrusted(each.body).place) for each in sends(policies)]


def told(policy: SignedPolicy) -> bytes:
    return PolicyTold(*policy.head.rank).encode()


def hear(policies: Policies, policy: SignedPolicy, peer: NodeId = PEER, source: object = "via", now: float = 0.0):
    policies.receive_untrusted(peer, Kind.POLICY_TELL, told(policy), source, to_all=False, now=now)
    policies.handle_timeout(now=now)


def take(policies: Policies, kind: Kind, body: bytes, now: float = 0.0, source: object = "via") -> None:
    policies.receive_untrusted(PEER, kind, body, source, to_all=False, now=now)


def piece(policy: SignedPolicy, place: int) -> bytes:
    return PolicyPiece(policy.head.rank.digest, place, policy.pieces[place - 1]).encode()


# ── one machine ──


def test_node_without_a_policy_says_nothing_of_it():
    policies = policies_of()
    policies.tell(None, Reach.ALL)
    policies.there(PEER, Reach.ALL, now=0.0)
    assert sends(policies) == []
    assert policies.next_timeout() is None


def test_newer_policy_is_asked_for_head_first_then_its_pieces():
    policies, learnt = policies_of(OLD), []
    policies.learnt = learnt.append
    hear(policies, LARGE)
    assert asked(policies) == [(PEER, 0)]
    take(policies, Kind.POLICY_HEAD, LARGE.head.encode())
    policies.handle_timeout(now=0.0)
    assert asked(policies) == [(PEER, place) for place in range(1, len(LARGE.pieces) + 1)]
    for place in range(len(LARGE.pieces), 0, -1):  # in any order
        take(policies, Kind.POLICY_PIECE, piece(LARGE, place))
    assert learnt == [LARGE]
    assert policies.book.current == LARGE
    assert policies.next_timeout() is None


def test_equal_policy_costs_nothing_and_an_older_one_is_answered():
    policies = policies_of(NEW)
    hear(policies, NEW)
    assert sends(policies) == []
    hear(policies, OLD)
    (answer,) = sends(policies)
    assert (answer.to, answer.kind, answer.body) == (PEER, Kind.POLICY_TELL, told(NEW))


def test_what_nobody_gives_is_asked_of_each_holder_and_given_up():
    policies = policies_of()
    hear(policies, NEW)
    hear(policies, NEW, OTHER)
    now, asks = 0.0, asked(policies)
    while (at := policies.next_timeout()) is not None:
        now = at
        policies.handle_timeout(now=now)
        asks += asked(policies)
    assert {to for to, _ in asks} == {PEER, OTHER}
    assert len(asks) == len(ASK_RETRY_S)
    hear(policies, NEW, now=now)
    assert asked(policies) == []
    hear(policies, NEW, now=now + FORGET_S)
    assert asked(policies) == [(PEER, 0)]


def test_policy_of_the_future_is_not_asked_for():
    policies = policies_of()
    body = PolicyTold(NOW_UNIX + SKEW_S + 1, bytes(32)).encode()
    policies.receive_untrusted(PEER, Kind.POLICY_TELL, body, "via", to_all=False, now=0.0)
    assert policies.next_timeout() is None


def test_forged_head_is_refused_by_name_and_not_verified_again():
    policies = policies_of()
    bad = published(by=publisher(granted=False))
    with pytest.raises(RemoteProtocolError, match="not-granted"):
        take(policies, Kind.POLICY_HEAD, bad.head.encode())
    take(policies, Kind.POLICY_HEAD, bad.head.encode())  # costs a hash
    hear(policies, bad, now=1.0)
    assert asked(policies) == []


def test_older_policy_is_refused_by_name():
    with pytest.raises(RemoteProtocolError, match="old-policy"):
        take(policies_of(NEW), Kind.POLICY_HEAD, OLD.head.encode())


def test_wrong_piece_is_refused_and_the_right_one_still_counts():
    policies = policies_of()
    take(policies, Kind.POLICY_HEAD, NEW.head.encode())
    for wrong in (PolicyPiece(NEW.head.rank.digest, 1, b"x"), PolicyPiece(NEW.head.rank.digest, 2, NEW.pieces[0])):
        with pytest.raises(RemoteProtocolError, match="malformed"):
            take(policies, Kind.POLICY_PIECE, wrong.encode())
    take(policies, Kind.POLICY_PIECE, piece(NEW, 1))
    assert policies.book.current == NEW


def test_piece_zero_is_none():
    policies = policies_of()
    take(policies, Kind.POLICY_HEAD, LARGE.head.encode())
    with pytest.raises(RemoteProtocolError, match="malformed"):
        take(policies, Kind.POLICY_PIECE, PolicyPiece(LARGE.head.rank.digest, 0, LARGE.pieces[-1]).encode())


def test_rumours_of_liars_do_not_keep_a_proven_policy_out():
    policies = policies_of()
    for liar in range(2 * FETCH_COUNT_MAX):
        body = PolicyTold(NOW_UNIX + 100 + liar, bytes((liar,)) * 32).encode()
        policies.receive_untrusted(PEER, Kind.POLICY_TELL, body, ("lan", liar), to_all=False, now=0.0)
    assert policies.drops == {"flood": FETCH_COUNT_MAX}
    take(policies, Kind.POLICY_HEAD, NEW.head.encode())
    take(policies, Kind.POLICY_PIECE, piece(NEW, 1))
    assert policies.book.current == NEW


def test_heads_of_one_source_are_verified_within_a_budget():
    policies, refused = policies_of(), Counter()
    for step in range(int(LEARN_EACH.burst) + 3):
        bad = published(number=NOW_UNIX + step, by=publisher(granted=False))
        try:
            take(policies, Kind.POLICY_HEAD, bad.head.encode(), source=("lan", "via"))
        except RemoteProtocolError as error:
            refused[error.reason] += 1
    assert refused == {"not-granted": int(LEARN_EACH.burst), "flood": 3}


def test_answers_to_one_source_have_a_budget():
    policies, body = policies_of(NEW), PolicyAsked(NEW.head.rank.digest, 1).encode()
    for _ in range(int(ANSWERS_EACH.burst)):
        take(policies, Kind.POLICY_ASK, body, source=("lan", "via"))
    with pytest.raises(RemoteProtocolError, match="flood"):
        take(policies, Kind.POLICY_ASK, body, source=("lan", "via"))


def test_what_many_want_at_once_goes_to_all():
    policies = policies_of(NEW)
    for number in range(8):
        body = PolicyAsked(NEW.head.rank.digest, 1).encode()
        policies.receive_untrusted(
            NodeId(bytes((9, number)) * 8), Kind.POLICY_ASK, body, ("lan", number), to_all=False, now=0.01 * number
        )
    assert [each.to is None for each in sends(policies)] == [False, False, False, True]


def test_node_that_says_only_that_it_is_there_is_told_once_for_all():
    policies = policies_of(NEW)
    for peer in (PEER, OTHER):
        policies.there(peer, Reach.ALL, now=0.0)
    policies.handle_timeout(now=OWED_WAIT_S + OWED_SPREAD_S)
    assert [(each.to, each.kind, each.reach) for each in sends(policies)] == [(None, Kind.POLICY_TELL, Reach.ALL)]


def test_what_another_node_told_all_is_not_told_again():
    policies = policies_of(NEW)
    policies.there(PEER, Reach.ALL, now=0.0)
    policies.receive_untrusted(OTHER, Kind.POLICY_TELL, told(NEW), "via", to_all=True, now=0.1)
    assert policies.next_timeout() is None


# ── planes on a network ──


def office_of(world: World) -> Station:
    return world.start("office", member=publisher())


def holds(world: World, policy: SignedPolicy | None) -> set[str]:
    return {name for name, each in world.by_name.items() if each.plane.policies.book.current == policy}


@pytest.mark.parametrize("policy", [NEW, LARGE], ids=["small", "large"])
def test_published_policy_is_everywhere_within_two_seconds(policy):
    world = World("alpha", "bravo", "carol")
    office = office_of(world)
    world.run(5.0)
    office.plane.publish(policy, now=world.now)
    world.run(2.0)
    assert holds(world, policy) == {"alpha", "bravo", "carol", "office"}


def test_published_policy_gets_through_a_network_that_loses_a_third():
    world = World("alpha", "bravo", "carol", weather=Weather(control_loss=0.33), seed=3)
    office = office_of(world)
    world.run(5.0)
    office.plane.publish(LARGE, now=world.now)
    world.run(10.0)
    assert holds(world, LARGE) == {"alpha", "bravo", "carol", "office"}


def test_node_that_comes_later_gets_the_policy_though_its_author_is_gone():
    world = World("alpha", "bravo")
    office = office_of(world)
    world.run(5.0)
    office.plane.publish(NEW, now=world.now)
    world.run(5.0)
    del world.by_name["office"], world.stations[office.node]
    world.hub.detach(office.node)
    world.start("carol")
    world.run(10.0)
    assert holds(world, NEW) == {"alpha", "bravo", "carol"}


def test_realm_without_a_policy_sends_no_message_about_it():
    world = World("alpha", "bravo", "carol")
    world.run(4000.0)
    kinds = {
        Inner.decode_untrusted(each.payload).kind
        for station in world.stations.values()
        for each in station.sent
        if each.key_id is None
    }
    assert kinds
    assert not kinds & POLICY_KINDS


def test_settled_realm_says_no_more_than_a_line_with_each_presence():
    world = World("alpha", "bravo", "carol")
    office = office_of(world)
    world.run(5.0)
    office.plane.publish(NEW, now=world.now)
    world.run(60.0)
    before = {name: len(each.sent) for name, each in world.by_name.items()}
    world.run(7200.0)
    for name, station in world.by_name.items():
        kinds = Counter(
            Inner.decode_untrusted(each.payload).kind for each in station.sent[before[name] :] if each.key_id is None
        )
        assert kinds[Kind.POLICY_TELL] <= kinds[Kind.PRESENCE]
        assert kinds.keys() <= {Kind.POLICY_TELL, Kind.PRESENCE}


def test_policy_of_a_revoked_node_is_dropped_by_name_and_counted():
    world = World("alpha")
    alpha, office = world["alpha"], office_of(world)
    world.run(3.0)
    alpha.plane.publish(deny_list(office.node, signer=ROOT), now=world.now)
    office.plane.policies.book.load([published(number=NOW_UNIX + 1)])
    office.plane.policies.tell(None, Reach.ALL)
    world.run(5.0)
    assert alpha.plane.policies.book.current is None
    assert alpha.plane.status().drops["revoked"] >= 1


def test_question_in_the_name_of_a_known_node_is_refused():
    world = World("alpha", "bravo", "carol")
    alpha, bravo = world["alpha"], world["bravo"]
    alpha.plane.policies.book.load([NEW])
    bravo.plane.who(query=_whois(alpha), now=world.now)
    world.run(5.0)
    assert alpha.plane.card(bravo.node) is not None
    body = PolicyAsked(NEW.head.rank.digest, 0).encode()
    inner = Inner(bravo.node, bravo.plane.boot, 999, Kind.POLICY_ASK, 0, body, bytes(64))
    sent = len(alpha.sent)
    envelope = Envelope(alpha.node, bytes(16), 3, None, inner.encode())
    alpha.plane.receive_untrusted(Arrival(envelope, None, "sim"), now=world.now)
    world.drain()
    assert alpha.plane.status().drops["bad-signature"] == 1
    assert len(alpha.sent) == sent


def _whois(station: Station):
    from conflux.control.who import Who

    return Who(node=station.node)
