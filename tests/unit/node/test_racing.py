"""The race of paths: how many at once, who waits for whom, whose key is asked for, and when a link is let go."""

from __future__ import annotations

import dataclasses

import pytest
from kit.nodes import Built, Sender, card_of, id_of, path_of

from conflux.control.who import Who
from conflux.errors import RemoteProtocolError
from conflux.link.event import DialEnd, DialFailed
from conflux.node.event import EventKind, NodeEnd, Reason
from conflux.node.racing import FORCE_S, SEEK_COUNT_MAX, SEEK_LOST_S, SEEK_S, TRY_COUNT_MAX
from conflux.node.relaying import PUBLIC
from conflux.route.event import RouteEnd

DIRECT, BY_ROD, BY_RUTH = path_of("bravo"), path_of("rod", "bravo"), path_of("ruth", "bravo")
BY_RITA = path_of("rita", "bravo")
BRAVO = id_of("bravo")


def failures(sender: Sender) -> list[tuple[object, object]]:
    return [(event.path, event.reason) for event in sender.heard() if event.kind is EventKind.FAILED]


def test_next_candidate_is_tried_beside_the_first_when_its_patience_is_over():
    sender = Sender(DIRECT, BY_ROD)
    sender.search.patience = 0.3
    sender.packet()
    assert sender.tried() == [DIRECT]
    sender.wait(0.29)
    assert sender.tried() == [DIRECT]
    sender.wait(0.01)
    assert sender.tried() == [DIRECT, BY_ROD]


def test_public_relay_is_asked_for_when_the_direct_path_takes_long_and_tried_when_it_is_found():
    sender = Sender(DIRECT, known=("bravo", "rod"))
    sender.search.patience, sender.search.wants = 0.3, True
    sender.packet()
    sender.wait(0.29)
    assert sender.plane.asked == []
    sender.wait(0.01)
    assert sender.plane.asked == [Who(feature=PUBLIC)]
    sender.search.offered.append(BY_ROD)
    sender.to.relay_found(card_of("bravo"), sender.now)  # relays, but not for every node
    assert sender.tried() == [DIRECT]
    sender.to.relay_found(card_of("rod", public=True), sender.now)
    assert sender.tried() == [DIRECT, BY_ROD]


def test_public_relay_is_asked_for_once_in_a_while_however_many_nodes_are_out_of_reach():
    sender = Sender(DIRECT, path_of("charlie"), known=("bravo", "charlie"))
    sender.search.wants = True
    sender.packet()
    sender.packet("charlie")
    sender.wait(SEEK_S / 2)
    assert sender.plane.asked == [Who(feature=PUBLIC)]


def test_no_public_relay_is_asked_for_where_a_neighbour_leads_or_a_route_carries():
    sender = Sender(DIRECT)
    sender.packet()
    sender.wait(SEEK_S)
    assert sender.plane.asked == []
    sender = Sender(DIRECT)
    sender.flow("bravo")
    sender.search.wants = True
    sender.wait(SEEK_S)
    assert sender.plane.asked == []


# ── what carried is gone ──


def carried(*offered: tuple[str, ...]) -> tuple[Sender, Built]:
    """A stream over the direct path; offered: paths that are known besides."""
    sender = Sender(DIRECT, *(path_of(*names) for names in offered), known=("bravo", "rod", "ruth", "rita"))
    sender.search.patience, sender.search.wants = 0.3, True
    return sender, sender.flow("bravo")


def test_all_that_is_known_is_tried_at_once_when_the_route_that_carried_is_lost():
    sender, built = carried(("rod", "bravo"), ("ruth", "bravo"))
    sender.lose(built, RouteEnd.LINK_DOWN)
    assert sender.tried() == [BY_ROD, BY_RUTH], "the direct one failed just now"
    assert sender.plane.asked == []
    sender.wait(0.3)
    assert sender.plane.asked == [Who(feature=PUBLIC)], "what is known had its time"


def test_public_relay_is_asked_for_at_once_beside_a_direct_dial_when_the_route_that_carried_is_lost():
    sender, built = carried()
    sender.lose(built, RouteEnd.LINK_DOWN)
    assert (sender.tried(), sender.plane.asked) == ([DIRECT], [Who(feature=PUBLIC)])
    sender.wait(SEEK_S)
    assert len(sender.plane.asked) == 2, "again and again while nothing carries"


def test_direct_route_that_is_lost_as_soon_as_it_is_there_is_set_up_again_at_once_only_once_in_a_while():
    sender = Sender(DIRECT)
    built = sender.flow("bravo")
    sender.lose(built)
    assert sender.tried() == [DIRECT]
    sender.lose(sender.confirm("bravo"))
    assert (sender.destination().state, sender.destination().retry_at > sender.now) == ("waiting to retry", True)
    sender.wait(1.0)
    sender.agree()
    built = sender.confirm("bravo")
    sender.wait(FORCE_S)
    sender.lose(built)
    assert sender.tried() == [DIRECT], "it carried for some time"


def test_public_relay_is_asked_for_again_if_what_carried_is_lost_after_the_last_question():
    sender, built = carried()
    sender.lose(built, RouteEnd.LINK_DOWN)
    sender.search.offered.append(BY_ROD)
    sender.to.relay_found(card_of("rod", public=True), sender.now)
    sender.link("rod")
    built = sender.confirm("rod", "bravo")
    sender.lose(built)
    assert len(sender.plane.asked) == 1, "the answer may be on its way"
    sender.wait(SEEK_LOST_S)
    assert len(sender.plane.asked) == 2


def test_public_relay_is_not_asked_for_more_often_in_the_long_run_however_often_it_is_lost():
    sender, built = carried()
    for _ in range(100):
        sender.lose(built)
        sender.search.failing.clear()
        sender.search.offered = [BY_ROD]
        sender.to.relay_found(card_of("rod", public=True), sender.now)
        sender.link("rod")
        built = sender.confirm("rod", "bravo")
        sender.wait(0.4)
    assert len(sender.plane.asked) <= SEEK_COUNT_MAX + 100 * 0.41 / SEEK_S + 1


def test_no_public_relay_is_asked_for_when_the_suspicion_against_a_path_is_wrong():
    sender, _ = carried()
    stream = sender.sending().stream
    sender.to.suspect(stream, sender.now)
    sender.wait(0.1)
    sender.confirm("bravo")
    sender.wait(SEEK_S)
    assert sender.plane.asked == []


def test_public_relay_is_asked_for_when_a_suspected_path_is_not_confirmed():
    sender, _ = carried()
    sender.to.suspect(sender.sending().stream, sender.now)
    sender.wait(0.3)
    assert (sender.tried(), sender.plane.asked) == ([DIRECT], [Who(feature=PUBLIC)])


def test_node_that_came_back_is_tried_at_once_beside_what_runs_but_not_beside_what_carries():
    sender = Sender(DIRECT, known=("bravo", "rod"))
    sender.packet()
    sender.search.offered.append(BY_ROD)
    sender.to.bridge_up(id_of("rita"), sender.now)
    assert sender.tried() == [DIRECT]
    sender.to.bridge_up(id_of("rod"), sender.now)
    assert sender.tried() == [DIRECT, BY_ROD]
    sender = Sender(DIRECT, known=("bravo", "rod"))
    sender.flow("bravo")
    sender.search.offered.append(BY_ROD)
    sender.to.bridge_up(id_of("rod"), sender.now)
    assert sender.tried() == []


def test_node_that_came_back_ends_the_wait_for_the_next_try():
    sender = Sender(DIRECT, known=("bravo", "rod"))
    sender.packet()
    sender.disagree()
    assert sender.destination().sending is None
    sender.search.offered.append(BY_ROD)
    sender.to.bridge_up(id_of("rod"), sender.now)
    assert sender.tried() == [DIRECT, BY_ROD]


def relayed(*, direct_after: float | None = None) -> tuple[Sender, Built]:
    """A stream that a relay carries, while the direct path is dialled; direct_after: what the search says of it."""
    sender = Sender(DIRECT, BY_ROD, known=("bravo", "rod"))
    sender.search.wants, sender.search.direct_after = True, direct_after
    sender.packet()
    sender.agree()
    sender.wait(0.05)
    sender.link("rod")
    return sender, sender.confirm("rod", "bravo")


def learned(sender: Sender, *words: str) -> list[tuple[object, ...]]:
    return [what for what in sender.search.learned if what[0] in words]


def test_direct_path_that_did_not_come_up_beside_a_relayed_one_is_no_failure_but_its_time_is_told():
    sender, built = relayed()
    sender.wait(4.0)
    sender.to.sender_idle(built.stream, sender.now)
    assert learned(sender, "failed", "unanswered") == [("unanswered", DIRECT, 4.06)]


def test_direct_path_that_was_dialled_and_then_set_up_is_not_told_as_unanswered():
    sender, built = relayed()
    sender.link("bravo")
    sender.to.sender_idle(built.stream, sender.now)
    assert learned(sender, "failed", "unanswered") == []


def test_direct_path_that_failed_beside_a_relayed_one_is_tried_again_when_its_pause_is_over():
    sender, _ = relayed(direct_after=2.0)
    sender.to.dial_failed(DialFailed(BRAVO, DialEnd.TIMEOUT, sender.now), sender.now)
    assert learned(sender, "failed") == [("failed", DIRECT, "dial: timeout")]
    sender.wait(1.99)
    assert sender.tried() == []
    sender.wait(0.01)
    assert sender.tried() == [DIRECT]


def test_direct_path_is_not_tried_again_if_the_search_sees_no_sense_in_it():
    sender, _ = relayed(direct_after=None)
    sender.to.dial_failed(DialFailed(BRAVO, DialEnd.TIMEOUT, sender.now), sender.now)
    sender.wait(600.0)
    assert sender.tried() == []


@pytest.mark.parametrize("direct_after", [None, 60.0])
def test_link_that_the_far_end_opened_is_a_direct_path_at_once(direct_after):
    sender, _ = relayed(direct_after=direct_after)
    sender.to.dial_failed(DialFailed(BRAVO, DialEnd.TIMEOUT, sender.now), sender.now)
    sender.link("bravo")
    sender.wait(0.0)
    assert sender.asked("bravo").link == sender.links.up[BRAVO]


def test_direct_path_is_not_tried_against_the_word_of_a_person():
    sender = Sender(DIRECT, BY_ROD, known=("bravo", "rod"))
    sender.flow("bravo")
    sender.search.direct_after = 1.0
    sender.link("rod")
    sender.to.move(BRAVO, (id_of("rod"),), sender.now)
    sender.confirm("rod", "bravo")
    sender.wait(60.0)
    assert (sender.carried_by(), sender.tried()) == (BY_ROD, [])


def test_direct_path_that_is_confirmed_ends_the_race_with_a_public_relay():
    sender = Sender(DIRECT, BY_ROD, known=("bravo", "rod"))
    sender.search.patience, sender.search.wants = 0.3, True
    sender.packet()
    sender.agree()
    sender.wait(0.3)
    sender.link("rod")
    sender.link("bravo")
    sender.confirm("bravo")
    assert (sender.carried_by(), sender.tried(), set(sender.links.users)) == (DIRECT, [], {BRAVO})
    assert learned(sender, "failed", "unanswered") == []


@pytest.mark.parametrize(("open_at_s", "tried"), [(0.2, [DIRECT]), (None, [DIRECT, BY_ROD])], ids=["open", "not open"])
def test_no_relay_is_raced_while_a_direct_link_waits_for_the_handshake_alone(open_at_s, tried):
    sender = Sender(DIRECT, BY_ROD, known=("bravo", "rod"))
    sender.search.patience = 0.3
    sender.packet()
    sender.wait(0.2)
    if open_at_s:
        sender.link("bravo")
    sender.wait(1.0)
    assert sender.tried() == tried


def test_relay_is_raced_when_the_set_up_over_the_direct_link_takes_long():
    sender = Sender(DIRECT, BY_ROD, known=("bravo", "rod"))
    sender.search.patience = 0.3
    sender.packet()
    sender.link("bravo")
    sender.wait(1.0)
    sender.agree()
    sender.wait(0.29)
    assert sender.tried() == [DIRECT]
    sender.wait(0.01)
    assert sender.tried() == [DIRECT, BY_ROD]


@pytest.mark.parametrize("wants", [True, False])
def test_a_public_relay_is_not_raced_beside_the_direct_path_that_carries(wants):
    sender = Sender(DIRECT, BY_ROD, known=("bravo", "rod"))
    sender.search.patience = 0.3
    sender.flow("bravo")
    sender.search.wants = wants  # False: a neighbour leads there too, and may do so better
    sender.wait(1.0)
    assert sender.tried() == ([] if wants else [BY_ROD])


def test_no_more_than_three_paths_are_tried_at_once():
    sender = Sender(DIRECT, BY_ROD, BY_RUTH, BY_RITA)
    sender.packet()
    sender.wait(10.0)
    assert sender.tried() == [DIRECT, BY_ROD, BY_RUTH]
    assert len(sender.tried()) == TRY_COUNT_MAX


def test_failed_path_makes_room_for_the_next_at_once():
    sender = Sender(DIRECT, BY_ROD)
    sender.packet()
    sender.to.dial_failed(DialFailed(BRAVO, DialEnd.REFUSED, 0.0, "busy"), sender.now)
    sender.search.offered.remove(DIRECT)
    assert sender.tried() == [BY_ROD]
    assert failures(sender) == [(DIRECT.hops, Reason(DialEnd.REFUSED, "busy"))]
    assert ("failed", DIRECT, "dial: refused: busy") in sender.search.learned


def test_dial_that_fails_ends_every_path_that_begins_with_it_and_no_other():
    sender = Sender(BY_ROD, path_of("rod", "rita", "bravo"), BY_RUTH)
    sender.packet()
    sender.wait(1.0)
    sender.search.offered = [BY_RUTH]
    sender.to.dial_failed(DialFailed(id_of("rod"), DialEnd.TIMEOUT, 0.0), sender.now)
    assert sender.tried() == [BY_RUTH]
    assert id_of("rod") not in sender.links.users


def test_dial_is_told_once_until_its_link_changes():
    sender = Sender(DIRECT)
    sender.packet()
    for _ in range(3):
        sender.to.card_found(card_of("bravo"), sender.now)
    assert sender.kinds().count(EventKind.DIAL) == 1
    sender.to.link_changed(BRAVO, sender.now)
    assert sender.kinds().count(EventKind.DIAL) == 1


def test_guess_that_the_destination_does_not_confirm_gives_way():
    sender = Sender(BY_ROD, known=("bravo", "rod", "ruth"))
    sender.packet()
    sender.search.offered = [BY_RUTH]
    sender.agree("ruth")
    assert sender.tried() == [BY_RUTH]
    assert set(sender.links.users) == {id_of("ruth")}


def test_link_is_let_go_when_the_last_path_that_begins_with_it_ends():
    sender = Sender(BY_ROD, path_of("rod", "rita", "bravo"), known=("bravo", "rod"))
    sender.packet()
    sender.wait(1.0)
    sender.link("rod")
    sender.agree()  # rita's key is not known: the second path ends, the first goes on
    assert sender.tried() == [BY_ROD]
    assert set(sender.links.users) == {id_of("rod")}
    sender.to.close_all(sender.now)
    assert sender.links.users == {}


# ── keys of the hops ──


def test_neighbours_card_is_asked_for_when_a_path_begins_with_it():
    sender = Sender(BY_ROD)
    sender.packet()
    sender.link("rod")
    sender.agree()
    assert (sender.plane.asked, sender.routes.built) == ([Who(node=id_of("rod"))], [])
    sender.plane.cards[id_of("rod")] = card_of("rod")
    sender.to.card_found(card_of("rod"), sender.now)
    assert sender.asked("rod", "bravo").hops[0].public == card_of("rod").hop_public


def test_far_relay_is_never_asked_for_its_card():
    sender = Sender(path_of("rod", "ruth", "bravo"), known=("bravo", "rod"))
    sender.packet()
    sender.link("rod")
    sender.agree()
    assert sender.plane.asked == []
    assert failures(sender) == [(path_of("rod", "ruth", "bravo").hops, Reason(NodeEnd.NO_KEY, by=id_of("ruth")))]


def test_far_relays_key_comes_from_the_destination():
    sender = Sender(path_of("rod", "ruth", "bravo"), known=("bravo", "rod"))
    sender.packet()
    sender.link("rod")
    sender.agree("ruth")
    assert [hop.key_id for hop in sender.asked("rod", "ruth", "bravo").hops] == [
        card_of(name).hop_key_id for name in ("rod", "ruth", "bravo")
    ]


@pytest.mark.parametrize(("relays", "may"), [(False, True), (True, False)], ids=["does not offer", "may not"])
def test_card_that_does_not_relay_ends_the_path(relays, may):
    sender = Sender(BY_ROD)
    sender.plane.cards[id_of("rod")] = card_of("rod", relays=relays, may=may)
    sender.packet()
    sender.link("rod")
    sender.agree()
    assert failures(sender) == [(BY_ROD.hops, Reason(NodeEnd.NO_RELAY, by=id_of("rod")))]
    assert sender.routes.built == []


@pytest.mark.parametrize("place", ["first", "far"])
def test_node_that_may_not_relay_is_not_used_because_the_destination_names_it(place):
    path = path_of("ruth", "bravo") if place == "first" else path_of("rod", "ruth", "bravo")
    sender = Sender(path, known=("bravo", "rod"))
    sender.plane.cards[id_of("ruth")] = card_of("ruth", may=False)
    sender.packet()
    sender.link("ruth" if place == "first" else "rod")
    sender.agree("ruth")
    assert failures(sender) == [(path.hops, Reason(NodeEnd.NO_RELAY, by=id_of("ruth")))]
    assert sender.routes.built == []


def test_first_relay_is_asked_for_its_card_although_the_destination_names_it():
    sender = Sender(BY_RUTH)
    sender.packet()
    sender.link("ruth")
    sender.agree("ruth")
    assert sender.plane.asked == [Who(node=id_of("ruth"))]
    assert sender.routes.built == []


def test_relay_that_is_permitted_and_offers_itself_since_is_used_if_the_destination_names_it():
    sender = Sender(path_of("rod", "ruth", "bravo"), known=("bravo", "rod"))
    sender.plane.cards[id_of("ruth")] = card_of("ruth", relays=False)
    sender.packet()
    sender.link("rod")
    sender.agree("ruth")
    assert sender.asked("rod", "ruth", "bravo")


def test_card_whose_key_is_none_ends_the_path():
    sender = Sender(DIRECT)

    def build(*arguments: object, **settings: object) -> int:
        raise RemoteProtocolError("malformed", "sealing key")

    sender.routes.build = build
    sender.packet()
    sender.link("bravo")
    sender.agree()
    assert failures(sender) == [(DIRECT.hops, Reason(NodeEnd.BAD_KEY))]
    assert sender.destination().state == "waiting to retry"


def test_newest_card_of_the_destination_is_used_for_the_next_try():
    sender = Sender(DIRECT)
    sender.packet()
    sender.disagree()
    newer = dataclasses.replace(card_of("bravo"), serial=2)
    sender.plane.cards[BRAVO] = newer
    sender.wait(1.0)
    assert sender.destination().card is newer


# ── the same path twice ──


def test_path_that_is_being_tried_is_not_tried_twice_but_may_become_wanted():
    sender = Sender(DIRECT, known=("bravo", "rod"))
    sender.flow("bravo")
    sender.link("rod")
    for _ in range(2):
        sender.to.move(BRAVO, (id_of("rod"),), sender.now)
    assert sender.tried() == [BY_ROD]
    (attempt,) = sender.tries()
    assert attempt.wanted
