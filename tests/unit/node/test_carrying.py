"""Which route carries a stream: the first, a better one, the one that was asked for; and what each failure leads to."""

from __future__ import annotations

import pytest
from kit.nodes import Built, Sender, id_of, path_of

from conflux.errors import UserError
from conflux.node.carrying import MEASURE_COUNT_MAX, REFRESH_S, RENEW_S_MIN, RETIRE_S
from conflux.node.event import EventKind, Reason
from conflux.route.event import RouteEnd
from conflux.route.message import RefusalWord
from conflux.route.routes import HOP_COUNT_MAX, RELAYED_TIMEOUT_S

DIRECT, BY_ROD = path_of("bravo"), path_of("rod", "bravo")
BY_TWO = path_of("rod", "ruth", "bravo")
BRAVO = id_of("bravo")


def flowing(*paths: tuple[str, ...], over: tuple[str, ...] = ("bravo",)) -> tuple[Sender, Built]:
    """A stream that flows over its first path; the others are known, and every relay's link is up."""
    sender = Sender(*(path_of(*path) for path in paths), known=("bravo", "rod", "ruth"))
    built = sender.flow(*over)
    for name in ("rod", "ruth"):
        sender.link(name)
    sender.heard()
    return sender, built


# ── a better route ──


def test_better_route_takes_over_and_the_one_before_retires():
    sender, old = flowing(("bravo",), ("rod", "bravo"))
    sender.search.better = True
    sender.wait(0.06)
    sender.confirm("rod", "bravo")  # cold: measured once more, over links that are open now
    new = sender.confirm("rod", "bravo")
    assert sender.datapath.routes == {new.stream: new.hop}
    moved = sender.heard()[-1]
    assert (moved.kind, moved.path) == (EventKind.MOVED, BY_ROD.hops)
    assert old.number in sender.routes.open, "frames are under way on it"
    sender.wait(RETIRE_S)
    assert set(sender.routes.open) == {new.number}
    assert id_of("bravo") not in sender.links.users


def test_route_that_is_no_better_is_torn_down_and_not_tried_again():
    sender, old = flowing(("bravo",), ("rod", "bravo"))
    sender.wait(0.06)
    sender.confirm("rod", "bravo")
    sender.confirm("rod", "bravo")
    assert set(sender.routes.open) == {old.number}
    assert sender.sending().race.beaten == {BY_ROD}
    assert id_of("rod") not in sender.links.users
    sender.wait(10.0)
    assert len(sender.routes.built) == 3


def test_time_to_a_cold_routes_confirmation_is_not_taken_for_its_round_trip():
    sender, _ = flowing(("bravo",), ("rod", "bravo"))
    sender.wait(0.06)
    sender.search.learned.clear()
    sender.confirm("rod", "bravo", after_s=0.2)
    assert [what[0] for what in sender.search.learned] == ["opened"]
    sender.confirm("rod", "bravo", after_s=0.003)
    (measured,) = [what for what in sender.search.learned if what[0] == "measured"]
    assert measured[2].rtt_s == pytest.approx(0.003)


def test_direct_path_that_seems_worse_is_measured_again_before_a_relay_keeps_the_stream():
    sender, relayed = flowing(("rod", "bravo"), ("bravo",), over=("rod", "bravo"))
    sender.wait(0.06)
    sender.link("bravo")
    for _ in range(MEASURE_COUNT_MAX - 1):
        sender.confirm("bravo")
        assert (sender.carried_by(), sender.tried()) == (BY_ROD, [DIRECT])
    assert set(sender.routes.open) == {relayed.number, len(sender.routes.built)}, "one route at a time"
    sender.search.better = True
    sender.confirm("bravo")
    assert sender.carried_by() == DIRECT


def test_direct_path_that_is_worse_each_time_is_left_alone():
    sender, relayed = flowing(("rod", "bravo"), ("bravo",), over=("rod", "bravo"))
    sender.wait(0.06)
    sender.link("bravo")
    for _ in range(MEASURE_COUNT_MAX):
        sender.confirm("bravo")
    sender.wait(60.0)
    assert (sender.carried_by(), sender.tried(), set(sender.routes.open)) == (BY_ROD, [], {relayed.number})
    assert len(sender.routes.built) == 1 + MEASURE_COUNT_MAX


# ── packets before the confirmation ──


def asking(*, early: bool = True) -> Sender:
    """A stream whose direct route is being set up."""
    sender = Sender(DIRECT, BY_ROD, known=("bravo", "rod"), early=early)
    sender.packet()
    sender.link("bravo")
    sender.agree()
    return sender


def test_packets_go_by_a_direct_route_before_it_is_confirmed():
    sender = asking()
    hop = sender.ask("bravo")
    assert list(sender.datapath.routes.values()) == [hop]
    assert sender.kinds()[-1] is EventKind.FRAMES
    sender.confirm("bravo")
    assert list(sender.datapath.routes.values()) == [hop]
    assert EventKind.FRAMES not in sender.kinds(), "they flowed before"
    assert sender.carried_by() == DIRECT


def test_node_whose_datapath_cannot_wait_for_a_tether_sends_nothing_before_the_confirmation():
    sender = asking(early=False)
    sender.ask("bravo")
    assert not any(sender.datapath.routes.values())
    sender.confirm("bravo")
    assert sender.kinds()[-1] is EventKind.FRAMES


def test_packets_wait_again_when_the_route_that_they_went_by_is_refused():
    sender = asking()
    sender.ask("bravo")
    sender.refuse(RefusalWord.BUSY, "bravo")
    assert not any(sender.datapath.routes.values())
    assert sender.sending().race.tries[0].path == BY_ROD
    sender.link("rod")
    sender.confirm("rod", "bravo")
    assert sender.carried_by() == BY_ROD
    assert sender.kinds()[-1] is EventKind.FRAMES


def test_packets_wait_for_the_confirmation_when_nothing_comes_back_for_those_that_went_before():
    sender = asking()
    hop = sender.ask("bravo")
    (stream,) = sender.datapath.routes
    sender.to.suspect(stream, sender.now)
    assert sender.datapath.routes == {stream: None}
    sender.confirm("bravo")
    assert sender.datapath.routes == {stream: hop}


def test_route_that_carries_is_not_left_for_one_that_is_not_confirmed():
    sender, old = flowing(("bravo",), ("rod", "bravo"))
    sender.to._early = lambda node: True
    sender.to.move(BRAVO, (id_of("rod"),), sender.now)
    sender.ask("rod", "bravo")
    assert sender.datapath.routes == {old.stream: old.hop}


def test_another_route_that_is_confirmed_first_carries_and_the_early_one_may_still_fail():
    sender = asking()
    sender.ask("bravo")
    sender.link("rod")
    sender.wait(0.06)
    built = sender.confirm("rod", "bravo")
    sender.fail(RouteEnd.TIMEOUT, "bravo")
    assert sender.datapath.routes == {built.stream: built.hop}


# ── a move ──


def test_move_through_named_relays_carries_even_if_it_is_no_better():
    sender, _ = flowing(("bravo",))
    assert sender.to.move(BRAVO, (id_of("rod"),), sender.now) == BY_ROD
    sender.confirm("rod", "bravo")
    assert sender.carried_by() == BY_ROD
    assert sender.kinds() == [EventKind.MOVED]


def test_move_without_a_named_path_takes_the_best_one_it_is_not_on():
    sender, _ = flowing(("bravo",), ("rod", "bravo"))
    assert sender.to.move(BRAVO, None, sender.now) == BY_ROD
    sender.search.offered = [DIRECT]
    with pytest.raises(UserError, match="no other path is known"):
        sender.to.move(BRAVO, None, sender.now)


@pytest.mark.parametrize(
    "via",
    [("rod", "rod"), ("alpha",), ("bravo",), ("rod", "ruth", "rita", "rosa")],
    ids=["twice", "itself", "destination", "too long"],
)
def test_move_over_a_path_that_cannot_be_is_refused(via):
    sender, built = flowing(("bravo",))
    with pytest.raises(UserError, match=f"at most {HOP_COUNT_MAX} hops"):
        sender.to.move(BRAVO, tuple(id_of(name) for name in via), sender.now)
    assert set(sender.routes.open) == {built.number}


def test_move_that_fails_leaves_the_stream_where_it_is():
    sender, built = flowing(("bravo",))
    sender.to.move(BRAVO, (id_of("rod"),), sender.now)
    sender.refuse(RefusalWord.BUSY, "rod", "bravo")
    (failed,) = sender.heard()
    assert (failed.kind, failed.path, failed.reason) == (
        EventKind.FAILED,
        BY_ROD.hops,
        Reason(RefusalWord.BUSY, "busy", id_of("rod")),
    )
    assert sender.datapath.routes == {built.stream: built.hop}


# ── suspicion ──


def test_suspicion_asks_for_the_same_route_and_tries_another_path_beside_it():
    sender, built = flowing(("bravo",), ("rod", "bravo"))
    sender.to.suspect(built.stream, sender.now)
    assert sender.destination().state == "suspect"
    assert sender.tried() == [DIRECT, BY_ROD]


def test_first_route_confirmed_under_suspicion_takes_over_better_or_not():
    sender, built = flowing(("bravo",), ("rod", "bravo"))
    sender.to.suspect(built.stream, sender.now)
    sender.confirm("rod", "bravo")
    assert sender.carried_by() == BY_ROD
    assert sender.destination().state == "flowing"


def test_feedback_ends_the_suspicion_and_the_probe_changes_nothing():
    sender, built = flowing(("bravo",))
    sender.to.suspect(built.stream, sender.now)
    sender.report(built.stream, 10)
    assert sender.destination().state == "flowing"
    sender.confirm("bravo")
    assert sender.datapath.routes == {built.stream: built.hop}
    assert set(sender.routes.open) == {built.number}


def test_failed_probe_under_suspicion_ends_the_route():
    sender, built = flowing(("bravo",))
    sender.to.suspect(built.stream, sender.now)
    sender.fail(RouteEnd.TIMEOUT, "bravo")
    assert built.number not in sender.routes.open
    assert sender.links.lost == [BRAVO], "the far end of the link does not answer"


def test_stream_whose_direct_path_failed_its_probe_stays_and_dials_anew_at_once():
    sender, built = flowing(("bravo",))
    sender.to.suspect(built.stream, sender.now)
    del sender.links.up[BRAVO]  # what peer_lost() does
    sender.fail(RouteEnd.TIMEOUT, "bravo")
    assert sender.sending().stream == built.stream
    assert (sender.tried(), sender.links.users.keys()) == ([DIRECT], {BRAVO})
    sender.link("bravo")
    sender.confirm("bravo")
    assert sender.carried_by() == DIRECT


def test_suspicion_of_the_control_channel_is_about_streams_that_begin_with_it():
    sender, _ = flowing(("bravo",))
    sender.to.channel_down(id_of("rod"), sender.now)
    assert sender.destination().state == "flowing"
    sender.to.channel_down(BRAVO, sender.now)
    assert sender.destination().state == "suspect"


# ── feedback ──


def test_search_learns_what_is_new_in_each_report():
    sender, built = flowing(("bravo",))
    sender.report(built.stream, 10, 2)
    sender.report(built.stream, 25, 1)
    reports = [what[2] for what in sender.search.learned if what[0] == "measured"][-2:]
    assert [(each.received_count, each.lost_count) for each in reports] == [(10, 2), (15, 0)]


def test_late_report_of_the_epoch_before_teaches_nothing():
    sender, built = flowing(("bravo",))
    sender.sending().epoch = 1
    sender.search.learned.clear()
    sender.report(built.stream, 10, epoch=0)
    assert sender.search.learned == []


# ── a route that is lost ──


def test_lost_route_leaves_the_stream_and_its_queue_and_the_next_path_carries():
    sender, built = flowing(("bravo",), ("rod", "bravo"))
    sender.lose(built)
    first = sender.heard()[0]
    assert (first.kind, first.reason) == (EventKind.SUSPECT, Reason(RouteEnd.TORN_DOWN))
    assert sender.datapath.routes == {built.stream: None}
    assert sender.sending().stream == built.stream
    sender.confirm(*("bravo",)) if DIRECT in sender.tried() else sender.confirm("rod", "bravo")
    assert sender.datapath.routes[built.stream] is not None


def test_lost_route_that_had_retired_changes_nothing():
    sender, old = flowing(("bravo",))
    sender.to.move(BRAVO, (id_of("rod"),), sender.now)
    new = sender.confirm("rod", "bravo")
    sender.lose(old)
    assert sender.datapath.routes == {new.stream: new.hop}
    assert sender.sending().retiring == []


# ── a refresh ──


def test_route_is_replaced_over_the_same_path_before_it_expires():
    sender, old = flowing(("bravo",))
    sender.wait(REFRESH_S)
    assert sender.tried() == [DIRECT]
    new = sender.confirm("bravo")
    assert sender.datapath.routes == {new.stream: new.hop}
    assert EventKind.MOVED not in sender.kinds(), "it goes the same way"
    sender.wait(RETIRE_S)
    assert old.number not in sender.routes.open


def test_refused_refresh_is_tried_again_and_the_route_carries_on():
    sender, old = flowing(("bravo",))
    sender.wait(REFRESH_S)
    sender.refuse(RefusalWord.BUSY, "bravo")
    assert sender.datapath.routes == {old.stream: old.hop}
    sender.wait(RELAYED_TIMEOUT_S)
    assert sender.tried() == [DIRECT]


# ── failures and what hops say ──


def test_neighbour_that_answers_no_set_up_is_taken_for_gone():
    sender = Sender(DIRECT)
    sender.packet()
    sender.link("bravo")
    sender.agree()
    sender.fail(RouteEnd.TIMEOUT, "bravo")
    assert sender.links.lost == [BRAVO]


def test_neighbour_that_says_timeout_is_not_taken_for_gone():
    sender = Sender(DIRECT)
    sender.packet()
    sender.link("bravo")
    sender.agree()
    sender.refuse(RefusalWord.TIMEOUT, "bravo")
    assert sender.links.lost == []


def test_link_let_go_under_the_set_up_costs_a_second_one_and_no_third():
    sender = Sender(DIRECT)
    sender.packet()
    sender.link("bravo")
    sender.agree()
    sender.heard()
    sender.fail(RouteEnd.LINK_CLOSED, "bravo")
    assert (len(sender.routes.built), sender.heard()) == (2, [])
    sender.fail(RouteEnd.LINK_CLOSED, "bravo")
    (failed,) = sender.heard()
    assert (failed.kind, failed.reason) == (EventKind.FAILED, Reason(RouteEnd.LINK_CLOSED))


@pytest.mark.parametrize(
    ("names", "hop", "of_next", "again"),
    [
        (("rod", "bravo"), 0, False, True),  # the relay speaks of its own link
        (("rod", "bravo"), 0, True, False),  # it quotes the next hop
        (("rod", "bravo"), 1, False, False),  # the destination passes nothing on
        (("bravo",), 0, False, False),
    ],
)
def test_only_a_relay_may_say_that_a_link_was_let_go(names, hop, of_next, again):
    sender = Sender(path_of(*names), known=("bravo", "rod"))
    sender.packet()
    sender.link(names[0])
    sender.agree()
    sender.refuse(RefusalWord.LINK_CLOSED, *names, hop=hop, of_next=of_next)
    assert (len(sender.routes.built) == 2) == again


@pytest.mark.parametrize(("hop", "anew"), [(1, True), (0, False)])
def test_only_the_destination_may_say_that_it_does_not_know_the_stream(hop, anew):
    sender = Sender(BY_ROD, known=("bravo", "rod"))
    sender.packet()
    sender.link("rod")
    sender.agree()
    sender.refuse(RefusalWord.UNKNOWN_STREAM, "rod", "bravo", hop=hop)
    assert (len(sender.streams.opened) == 2) == anew
    assert (sender.destination().failure_count == 0) == anew


def test_a_stream_that_the_far_end_ended_is_not_replaced_if_nothing_is_to_be_sent():
    sender = Sender(BY_ROD, known=("bravo", "rod"))
    sender.packet()
    sender.link("rod")
    sender.agree()
    sender.datapath.waiting = 0
    sender.refuse(RefusalWord.UNKNOWN_STREAM, "rod", "bravo", hop=1)
    assert len(sender.streams.opened) == 1
    assert sender.datapath.removed == [(id_of("bravo"), "closed")]


def test_relay_cannot_end_a_stream_by_quoting_the_destination():
    sender = Sender(BY_ROD, known=("bravo", "rod"))
    sender.packet()
    sender.link("rod")
    sender.agree()
    sender.refuse(RefusalWord.UNKNOWN_STREAM, "rod", "bravo", hop=0, of_next=True)
    assert len(sender.streams.opened) == 1


def test_far_end_that_never_knows_the_stream_gets_a_new_one_at_once_but_not_again_and_again():
    sender = Sender(BY_ROD, known=("bravo", "rod"))
    sender.packet()
    sender.link("rod")
    for _ in range(2):
        sender.agree()
        sender.refuse(RefusalWord.UNKNOWN_STREAM, "rod", "bravo", hop=1)
    assert len(sender.streams.opened) == 2
    assert sender.destination().state == "waiting to retry"


@pytest.mark.parametrize(("hop", "refreshed"), [(0, "rod"), (2, "bravo")])
def test_stale_key_of_the_neighbour_or_the_destination_is_asked_for(hop, refreshed):
    sender = Sender(BY_TWO, known=("bravo", "rod", "ruth"))
    sender.packet()
    sender.link("rod")
    sender.agree()
    sender.refuse(RefusalWord.STALE_KEY, "rod", "ruth", "bravo", hop=hop)
    assert sender.plane.refreshed == [id_of(refreshed)]


def test_stale_key_of_a_far_relay_brings_a_new_stream_with_a_new_vantage_but_not_often():
    sender = Sender(BY_TWO, known=("bravo", "rod"))
    sender.packet()
    sender.link("rod")
    sender.agree("ruth")
    sender.refuse(RefusalWord.STALE_KEY, "rod", "ruth", "bravo", hop=0, of_next=True)
    assert (len(sender.streams.opened), sender.plane.refreshed, sender.plane.asked) == (2, [], [])
    sender.now += RENEW_S_MIN - 1.0
    sender.agree("ruth")
    sender.refuse(RefusalWord.STALE_KEY, "rod", "ruth", "bravo", hop=0, of_next=True)
    assert sender.destination().state == "waiting to retry"
    assert sender.plane.refreshed == []


def test_stale_key_of_a_far_relay_does_not_end_the_route_that_carries():
    sender = Sender(BY_TWO, known=("bravo", "rod"))
    built = sender.flow("rod", "ruth", "bravo")
    sender.wait(REFRESH_S)
    sender.refuse(RefusalWord.STALE_KEY, "rod", "ruth", "bravo", hop=0, of_next=True)
    assert sender.datapath.routes == {built.stream: built.hop}
    assert len(sender.streams.opened) == 1
    assert sender.to.next_timeout() is None, "the next stream brings the key"


def test_hop_beyond_the_path_has_no_key_to_ask_for():
    sender = Sender(BY_ROD, known=("bravo", "rod"))
    sender.packet()
    sender.link("rod")
    sender.agree()
    sender.refuse(RefusalWord.STALE_KEY, "rod", "bravo", hop=1, of_next=True)
    assert sender.plane.refreshed == []
