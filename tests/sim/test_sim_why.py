"""Why a node is reached or not, as another one knows it: what was tried, what each said, what comes next.

alpha ──a── rod ──b── bravo
"""

from __future__ import annotations

import pytest
from kit.builders import NOW_UNIX, make_credential, node_keys
from kit.revoking import flow, revoke
from kit.world import REALM, World, relay

from conflux.api.why import Explainer, KnownBy, NextKind, Verdict, Why
from conflux.ids import format_node_id
from conflux.node.naming import who_of
from conflux.node.trail import Outcome
from conflux.realm.credential import Chain
from conflux.realm.member import Member
from conflux.sim import world as sim
from conflux.sim.world import Host

GIVEN_UP_S = 60.0  # until three tries came to nothing
ENDS_AT = NOW_UNIX + 86400


def why(host: Host, name: str) -> Why:
    """Return what a host's daemon would answer: the simulator has no channels of the daemon's kind."""
    assert host.node is not None
    node, now = host.node, host.world.now
    explainer = Explainer(node, (), now)
    card = node.plane.card_by_name(name)
    return explainer.known(name, card) if card is not None else explainer.unknown(name, who_of(name), None)


def street() -> tuple[World, Host, Host, Host]:
    world = World(1)
    alpha, rod, bravo = world.host("alpha", "a"), world.host("rod", "a", "b"), world.host("bravo", "b")
    world.run(3.0)
    return world, alpha, rod, bravo


def outcomes(got: Why) -> dict[tuple[str, ...], Outcome]:
    return {row.path: row.outcome for row in got.tried}


def test_a_stream_by_a_relay_says_so_and_whence_its_node_is_known() -> None:
    world, alpha, _, bravo = street()
    flow(world, alpha, bravo)
    world.run(2.0)
    got = why(alpha, "bravo")
    assert (got.verdict, got.path) == (Verdict.FLOWING, ("rod", "bravo"))
    assert [(source.by, source.via) for source in got.sources] == [(KnownBy.BEHIND, "rod")]
    assert outcomes(got)[("rod", "bravo")] is Outcome.CARRIED
    assert got.handshake is None
    near = why(alpha, "rod")
    assert (near.verdict, near.left_at) == (Verdict.IDLE, None)
    assert near.next is not None
    assert near.next.kind is NextKind.PACKET


def test_a_relay_that_loses_its_power_leaves_what_was_tried_and_when_the_next_try_is() -> None:
    world, alpha, rod, bravo = street()
    flow(world, alpha, bravo, for_s=GIVEN_UP_S)
    world.run(2.0)
    rod.power_off()
    world.run(0.5)
    left = why(alpha, "rod")
    assert left.left_at is not None
    seen: set[Verdict] = set()
    for _ in range(int(GIVEN_UP_S * 2)):
        world.run(0.5)
        got = why(alpha, "bravo")
        seen.add(got.verdict)
        if got.verdict is Verdict.RETRYING:
            assert got.next is not None
            assert got.next.kind is NextKind.RETRY
        if got.verdict is Verdict.GIVEN_UP:
            break
    assert seen >= {Verdict.RETRYING, Verdict.GIVEN_UP}
    assert got.next is not None
    assert (got.next.kind, got.next.at is not None) == (NextKind.PACKET, True)
    # "left": its last try was under way when the stream was given up.
    assert outcomes(got)[("bravo",)] in (Outcome.FAILED, Outcome.UNANSWERED, Outcome.LEFT)
    assert got.handshake is not None
    assert (got.handshake.step, got.handshake.who) == ("handshake", "bravo")
    rod.power_on()
    world.run(3.0)
    assert why(alpha, "rod").left_at is None


@pytest.mark.parametrize("word", ["bravo", "{id}"])
def test_a_node_that_was_revoked_is_said_so_with_the_reason(word: str) -> None:
    world, alpha, rod, bravo = street()
    assert alpha.node is not None
    flow(world, alpha, bravo)
    world.run(1.0)
    revoke(rod, bravo)
    world.run(3.0)
    if word == "bravo":
        got = why(alpha, word)
    else:
        explainer = Explainer(alpha.node, (), world.now)
        who = who_of(format_node_id(bravo.node_id))
        got = explainer.unknown(word, who, bravo.node_id)
    assert (got.verdict, got.because, got.revoked_at) == (Verdict.REVOKED, "stolen", NOW_UNIX)
    assert why(bravo, "alpha").verdict is Verdict.OWN_REVOKED


def test_a_node_whose_credential_ends_is_said_so_with_the_date_and_it_knows_itself() -> None:
    def member(name: str) -> Member:
        if name != "bravo":
            return relay(name)
        return Member(node_keys(name), REALM.anchor, Chain(make_credential(REALM, name, not_after=ENDS_AT), None))

    world = sim.World(1, members=member, now_unix=NOW_UNIX)
    alpha, bravo = world.host("alpha"), world.host("bravo")
    world.run(3.0)
    flow(world, alpha, bravo)
    world.run(1.0)
    assert why(alpha, "bravo").verdict is Verdict.FLOWING
    world.now_unix = ENDS_AT + 2 * 86400
    got = why(alpha, "bravo")
    assert (got.verdict, got.name, got.expires_at) == (Verdict.EXPIRED, "bravo", ENDS_AT)
    own = why(bravo, "alpha")
    assert (own.verdict, own.expires_at) == (Verdict.OWN_EXPIRED, ENDS_AT)


def test_a_name_of_no_node_is_unknown() -> None:
    _, alpha, _, _ = street()
    got = why(alpha, "nobody")
    assert (got.verdict, got.name, got.node, got.neighbours) == (Verdict.UNKNOWN, "nobody", None, 0)
