"""What a node remembers of its tries: the latest of each path, within bounds that no peer can move."""

from __future__ import annotations

import pytest
from kit.nodes import id_of, path_of

from conflux.control.who import Who
from conflux.ids import NodeId
from conflux.link.event import DialEnd
from conflux.node.event import Event, EventKind, NodeEnd, Reason
from conflux.node.trail import NODE_COUNT_MAX, PATH_COUNT_MAX, QUOTE_CHARS_MAX, Found, Outcome, Trail, Trails, Tried
from conflux.route.event import RouteEnd
from conflux.route.message import RefusalWord
from conflux.stream.event import SenderEnd

BRAVO, ROD = id_of("bravo"), id_of("rod")
DIRECT, BY_ROD = path_of("bravo").hops, path_of("rod", "bravo").hops
SILENT = Reason(DialEnd.NO_ANSWER, "absent")


def failed(hops: tuple[NodeId, ...], reason: Reason) -> Event:
    return Event(EventKind.FAILED, BRAVO, path=hops, reason=reason)


def test_of_each_path_the_latest_try_is_known_with_its_outcome_and_reason() -> None:
    trails, no_relay = Trails(), Reason(RefusalWord.NO_RELAY, "no-relay", ROD)
    trails.note(Event(EventKind.DIAL, BRAVO, path=DIRECT), 1.0)
    trails.note(Event(EventKind.DIAL, BRAVO, path=BY_ROD), 2.0)
    trails.note(failed(BY_ROD, no_relay), 3.0)
    trails.note(failed(DIRECT, SILENT), 4.0)
    assert trails.of(BRAVO).tried == (
        Tried(BY_ROD, Outcome.FAILED, 3.0, no_relay),
        Tried(DIRECT, Outcome.FAILED, 4.0, SILENT),
    )
    trails.note(Event(EventKind.DIAL, BRAVO, path=DIRECT), 4.5)
    assert trails.of(BRAVO).tried[-1] == Tried(DIRECT, Outcome.TRYING, 4.5, SILENT), "what the try before said stays"
    trails.note(Event(EventKind.DIAL, BRAVO, path=DIRECT), 4.8)
    assert trails.of(BRAVO).tried[-1].at == 4.5, "as long as nothing came of it, it is one try"
    trails.note(Event(EventKind.FRAMES, BRAVO, path=BY_ROD), 5.0)
    assert trails.of(BRAVO).tried[-1] == Tried(BY_ROD, Outcome.CARRIED, 5.0)
    lost = Reason(RouteEnd.LINK_DOWN)
    trails.note(Event(EventKind.SUSPECT, BRAVO, path=BY_ROD, reason=lost), 6.0)
    assert trails.of(BRAVO).tried[-1] == Tried(BY_ROD, Outcome.LOST, 6.0, lost)


def test_a_failed_handshake_is_known_until_one_is_agreed_or_the_peer_restarts() -> None:
    trails, refused = Trails(), Reason(SenderEnd.REFUSED, "busy")
    for mending in (Event(EventKind.HANDSHAKE, BRAVO), Event(EventKind.RESTARTED, BRAVO)):
        trails.note(Event(EventKind.FAILED, BRAVO, reason=refused), 1.0)
        assert trails.of(BRAVO).handshake == Found(refused, 1.0)
        trails.note(mending, 2.0)
        assert trails.of(BRAVO).handshake is None


def test_a_try_without_an_end_ends_with_the_stream_that_it_was_for() -> None:
    trails = Trails()
    trails.note(Event(EventKind.DIAL, BRAVO, path=DIRECT), 1.0)
    trails.note(Event(EventKind.IDLE, BRAVO), 11.0)
    assert trails.of(BRAVO).tried == (Tried(DIRECT, Outcome.UNANSWERED, 11.0, waited_s=10.0),)
    trails.note(Event(EventKind.DIAL, BRAVO, path=DIRECT), 12.0)
    trails.note(Event(EventKind.FRAMES, BRAVO, path=BY_ROD), 13.0)
    trails.note(Event(EventKind.IDLE, BRAVO), 14.0)
    assert trails.of(BRAVO).tried == (Tried(DIRECT, Outcome.LEFT, 14.0), Tried(BY_ROD, Outcome.CARRIED, 13.0))
    trails.note(Event(EventKind.DIAL, BRAVO, path=DIRECT), 15.0)
    trails.note(Event(EventKind.UNREACHABLE, BRAVO, reason=Reason(NodeEnd.NO_PATH)), 18.0)
    assert trails.of(BRAVO).tried[-1] == Tried(DIRECT, Outcome.UNANSWERED, 18.0, waited_s=3.0)


def test_a_destination_is_given_up_until_packets_pass() -> None:
    trails, no_path = Trails(), Reason(NodeEnd.NO_PATH)
    trails.note(Event(EventKind.UNREACHABLE, BRAVO, reason=no_path), 1.0)
    assert trails.of(BRAVO).given_up == Found(no_path, 1.0)
    trails.note(Event(EventKind.FRAMES, BRAVO, path=DIRECT), 2.0)
    assert trails.of(BRAVO).given_up is None


def test_a_neighbour_comes_and_goes_and_its_messages_are_dated() -> None:
    trails = Trails()
    trails.neighbour_changed(BRAVO, True, 1.0)
    trails.heard(BRAVO, BRAVO, 2.0)
    trails.neighbour_changed(BRAVO, False, 3.0)
    assert trails.of(BRAVO) == Trail(is_neighbour=False, neighbour_at=3.0, heard_at=2.0, heard_via=BRAVO)


def test_a_revoked_node_is_found_by_the_name_it_had() -> None:
    trails, reason = Trails(), Reason(NodeEnd.REVOKED, "stolen")
    trails.note(Event(EventKind.REVOKED, BRAVO, Who(name="bravo"), reason=reason), 1.0)
    assert trails.revoked("bravo") == BRAVO
    assert trails.revoked("rod") is None
    assert trails.of(BRAVO).revoked == Found(reason, 1.0)


# ── bounds ──


def test_more_nodes_than_are_remembered_push_out_those_of_which_nothing_is_new() -> None:
    trails = Trails()
    trails.note(failed(DIRECT, SILENT), 0.0)
    for number in range(NODE_COUNT_MAX * 3):
        trails.heard(NodeId(number.to_bytes(16, "big")), None, 1.0)
        if number % 100 == 0:
            trails.heard(BRAVO, None, 2.0)
    assert len(trails) == NODE_COUNT_MAX
    assert trails.of(BRAVO).tried == (Tried(DIRECT, Outcome.FAILED, 0.0, SILENT),), "what is in use stays"


def test_a_destination_that_names_relays_without_end_fills_nothing() -> None:
    trails = Trails()
    paths = [(NodeId(number.to_bytes(16, "big")), BRAVO) for number in range(100)]
    for at, path in enumerate(paths):
        trails.note(failed(path, SILENT), float(at))
    tried = trails.of(BRAVO).tried
    assert len(tried) == PATH_COUNT_MAX
    assert [each.hops for each in tried] == paths[-PATH_COUNT_MAX:], "the latest stay"


def test_names_of_revoked_nodes_are_as_many_as_nodes() -> None:
    trails = Trails()
    for number in range(NODE_COUNT_MAX + 10):
        node = NodeId(number.to_bytes(16, "big"))
        reason = Reason(NodeEnd.REVOKED)
        trails.note(Event(EventKind.REVOKED, node, Who(name=f"n{number}"), reason=reason), 0.0)
    assert trails.revoked("n0") is None
    assert trails.revoked(f"n{NODE_COUNT_MAX + 9}") is not None


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("busy", "busy"),
        ("x" * 5000, "x" * QUOTE_CHARS_MAX),
        ("\x1b[2Jgone\n\u202e", "?[2Jgone??"),
    ],
)
def test_a_peers_words_are_kept_short_and_without_what_a_terminal_obeys(said: str, kept: str) -> None:
    trails = Trails()
    trails.note(failed(DIRECT, Reason(DialEnd.REFUSED, said)), 0.0)
    trails.note(Event(EventKind.FAILED, BRAVO, reason=Reason(SenderEnd.REFUSED, said)), 0.0)
    trails.note(Event(EventKind.UNREACHABLE, BRAVO, reason=Reason(SenderEnd.REFUSED, said)), 0.0)
    trail = trails.of(BRAVO)
    assert trail.tried[0].reason == Reason(DialEnd.REFUSED, kept)
    assert trail.handshake is not None
    assert trail.given_up is not None
    assert trail.handshake.reason.said == trail.given_up.reason.said == kept
