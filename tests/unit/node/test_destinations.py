"""A destination's life, from its first packet to its pause, among fakes."""

from __future__ import annotations

import pytest
from kit.nodes import Sender, card_of, id_of, path_of

from conflux.control.who import Who
from conflux.datapath.interface import Feedback
from conflux.errors import UserError
from conflux.ids import StreamId
from conflux.link.event import DialEnd, DialFailed
from conflux.node.destination import RETRY_S_MAX, RETRY_S_MIN, retry_delay_s
from conflux.node.destinations import BRIDGE_BURST, BRIDGE_RATE
from conflux.node.event import EventKind, NodeEnd, Reason
from conflux.node.lives import GIVE_UP_COUNT, IMPATIENT_S
from conflux.node.patience import FIRST_S, Bounds, Patience
from conflux.node.pauses import PAUSE_S_MIN
from conflux.route.event import RouteEnd, RouteFailed
from conflux.stream.event import SenderEnd, SenderFailed

DIRECT = path_of("bravo")
BRAVO, ADDRESS = id_of("bravo"), card_of("bravo").addresses[0]


def dial_failed(sender: Sender, name: str = "bravo") -> None:
    sender.to.dial_failed(DialFailed(id_of(name), DialEnd.TIMEOUT, sender.now + 1.0), sender.now)


def give_up(sender: Sender) -> None:
    """Let every try for bravo fail until the destination is given up."""
    for _ in range(GIVE_UP_COUNT):
        dial_failed(sender)
        sender.wait(2 * RETRY_S_MAX if sender.to.nodes() else 0.0)
    sender.search.failing.clear()  # as if the search had shorter pauses


# ── search, handshake, dial, route ──


def test_first_packet_for_a_known_card_opens_a_stream_and_dials_at_once():
    sender = Sender(DIRECT)
    sender.packet()
    assert sender.datapath.egresses == {BRAVO: card_of("bravo").addresses}
    assert [peer for _, peer in sender.streams.opened] == [BRAVO]
    assert list(sender.links.users) == [BRAVO]
    assert sender.kinds() == [EventKind.QUEUE, EventKind.DIAL]
    assert sender.destination().state == "handshake"


def test_unknown_address_is_asked_for_once_and_served_when_its_card_comes():
    sender = Sender(DIRECT, known=())
    sender.packet()
    sender.packet()
    assert sender.plane.asked == [Who(address=ADDRESS)]
    sender.plane.cards[BRAVO] = card_of("bravo")
    sender.now += 0.25
    sender.to.card_found(card_of("bravo"), sender.now)
    events = sender.heard()
    assert [event.kind for event in events][:3] == [EventKind.QUEUE, EventKind.WHO, EventKind.CARD]
    assert (events[2].node, events[2].took_s) == (BRAVO, 0.25)
    assert sender.to.nodes() == (BRAVO,)


def test_address_without_an_owner_is_refused_and_rests():
    sender = Sender(known=())
    sender.packet()
    sender.to.who_failed(Who(address=ADDRESS), sender.now)
    assert sender.datapath.refused == [(ADDRESS, "unknown-destination")]
    sender.packet()
    assert sender.datapath.refused[1:] == [(ADDRESS, "unknown-destination")]
    sender.now += PAUSE_S_MIN
    sender.packet()
    assert len(sender.plane.asked) == 2


@pytest.mark.parametrize("link_first", [True, False])
def test_route_is_asked_for_when_both_stream_and_link_are_there(link_first):
    sender = Sender(DIRECT)
    sender.packet()
    steps = [lambda: sender.link("bravo"), sender.agree]
    for step in steps if link_first else reversed(steps):
        assert sender.routes.built == []
        step()
    assert [built.nodes for built in sender.routes.built] == [DIRECT.hops]
    assert sender.destination().state == "route"


def test_first_route_confirmed_carries_the_stream():
    sender = Sender(DIRECT)
    built = sender.flow("bravo")
    assert sender.datapath.routes == {built.stream: built.hop}
    assert sender.destination().state == "flowing"
    last = sender.heard()[-1]
    assert (last.kind, last.path) == (EventKind.FRAMES, DIRECT.hops)
    assert last.took_s == pytest.approx(0.01)


def test_stream_agreed_after_it_was_given_up_is_closed():
    sender = Sender(DIRECT)
    sender.packet()
    sender.to.close_all(sender.now)
    (stream,) = sender.streams.closed
    sender.agree()
    assert sender.streams.closed == [stream] * 2
    assert sender.datapath.senders == []


def test_route_confirmed_after_its_stream_ended_is_closed():
    sender = Sender(DIRECT)
    built = sender.flow("bravo")
    sender.to.close_all(sender.now)
    sender.routes.open[built.number] = built
    sender.confirm("bravo")
    assert sender.routes.open == {}


# ── idle ──


def test_idle_ends_the_stream_with_its_last_frame_and_leaves_nothing():
    sender = Sender(DIRECT)
    built = sender.flow("bravo")
    sender.to.sender_idle(built.stream, sender.now)
    assert sender.routes.last == {built.number: b"last of " + built.stream}
    assert sender.datapath.removed == [(BRAVO, "closed")]
    assert sender.streams.closed == [built.stream]
    assert (sender.to.nodes(), sender.links.users, sender.to.next_timeout()) == ((), {}, None)
    assert sender.kinds()[-1] == EventKind.IDLE


# ── failing ──


def test_failed_dial_is_retried_after_a_delay_that_doubles():
    sender = Sender(DIRECT)
    sender.packet()
    dial_failed(sender)
    assert sender.destination().state == "waiting to retry"
    assert sender.links.users == {}
    first = sender.to.next_timeout() - sender.now
    assert 0.75 * RETRY_S_MIN <= first <= 1.25 * RETRY_S_MIN
    sender.wait(first)
    assert len(sender.streams.opened) == 2
    dial_failed(sender)
    second = sender.to.next_timeout() - sender.now
    assert 0.75 * 2 * RETRY_S_MIN <= second <= 1.25 * 2 * RETRY_S_MIN


@pytest.mark.parametrize(("count", "delay_s"), [(1, 0.5), (2, 1.0), (4, 4.0), (7, 30.0), (50, 30.0)])
def test_retry_delay_doubles_up_to_its_limit(count, delay_s):
    assert retry_delay_s(count, 0.5) == delay_s
    assert (retry_delay_s(count, 0.0), retry_delay_s(count, 1.0)) == (0.75 * delay_s, 1.25 * delay_s)


def test_destination_that_fails_three_times_in_a_row_is_given_up():
    sender = Sender(DIRECT)
    sender.packet()
    give_up(sender)
    assert sender.datapath.removed == [(BRAVO, "unreachable")]
    last = sender.heard()[-1]
    assert (last.kind, last.node, last.reason) == (EventKind.UNREACHABLE, BRAVO, Reason(DialEnd.TIMEOUT))
    assert (sender.to.nodes(), sender.to.next_timeout()) == ((), None)


def test_word_of_one_neighbour_that_it_joins_lans_ends_pauses_only_so_often():
    sender = Sender(DIRECT, known=())

    def is_asked_again(neighbour: str) -> bool:
        sender.to.who_failed(Who(address=ADDRESS), sender.now)
        sender.to.bridge_up(id_of(neighbour), sender.now)
        before = len(sender.plane.asked)
        sender.packet()
        return len(sender.plane.asked) > before

    sender.packet()
    heeded = [is_asked_again("rod") for _ in range(20)]
    assert heeded == [number < BRIDGE_BURST for number in range(20)]
    assert is_asked_again("ruth")
    sender.now += 1 / BRIDGE_RATE
    assert is_asked_again("rod")


def test_pause_of_a_destination_doubles_and_ends_when_a_route_opens():
    sender = Sender(DIRECT)
    sender.packet()
    for pause_s in (PAUSE_S_MIN, 2 * PAUSE_S_MIN, 4 * PAUSE_S_MIN):
        give_up(sender)
        sender.now += pause_s - 0.01
        sender.packet()
        assert sender.to.nodes() == ()
        assert sender.datapath.refused[-1] == (ADDRESS, "unreachable")
        sender.now += 0.01
        sender.packet()
        assert sender.to.nodes() == (BRAVO,)
    sender.link("bravo")
    sender.agree()
    sender.confirm("bravo")
    sender.to.close_all(sender.now)
    sender.links.up.clear()
    sender.packet()
    give_up(sender)
    sender.now += PAUSE_S_MIN
    sender.packet()
    assert sender.to.nodes() == (BRAVO,), "the pauses began anew"


def test_confirmed_route_clears_the_failures_before_it():
    sender = Sender(DIRECT)
    sender.packet()
    dial_failed(sender)
    sender.wait(RETRY_S_MAX)
    sender.link("bravo")
    sender.agree()
    assert sender.destination().failure_count == 1
    sender.confirm("bravo")
    assert sender.destination().failure_count == 0


def test_failed_handshake_is_told_with_its_reason():
    sender = Sender(DIRECT)
    sender.packet()
    for _ in range(GIVE_UP_COUNT):
        sender.disagree(SenderEnd.REFUSED, "busy")
        sender.wait(RETRY_S_MAX if sender.to.nodes() else 0.0)
    last = sender.heard()[-1]
    assert (last.kind, str(last.reason)) == (EventKind.UNREACHABLE, "handshake: refused: busy")


def test_agreed_stream_without_any_path_fails():
    sender = Sender()
    sender.packet()
    assert sender.destination().state == "handshake", "the destination may name relays"
    sender.agree()
    assert sender.destination().state == "waiting to retry"
    assert sender.datapath.senders == []


def test_vantage_of_the_destination_opens_a_path_when_none_was_known():
    sender = Sender(known=("bravo", "rod"))
    sender.packet()
    sender.search.offered = [path_of("rod", "bravo")]
    sender.link("rod")
    sender.agree("rod")
    assert ("vantage", BRAVO, (id_of("rod"),)) in sender.search.learned
    assert sender.asked("rod", "bravo").hops[0].key_id == card_of("rod").hop_key_id


def test_stream_whose_keys_ran_out_is_opened_anew_and_its_queue_stays():
    sender = Sender(DIRECT)
    built = sender.flow("bravo")
    sender.to.sender_failed(SenderFailed(built.stream, BRAVO, SenderEnd.REKEY), sender.now)
    assert len(sender.streams.opened) == 2
    assert sender.destination().failure_count == 0
    assert sender.datapath.removed == []
    assert built.stream not in sender.datapath.senders


# ── the control plane ──


def test_channel_to_the_destination_ends_the_wait_for_the_next_try():
    sender = Sender(DIRECT)
    sender.packet()
    dial_failed(sender)
    sender.to.channel_up(BRAVO, sender.now)
    assert sender.destination().state == "handshake"
    assert ("returned", BRAVO) in sender.search.learned


def test_restart_of_the_destination_drops_the_stream_and_opens_one_to_the_new_process():
    sender = Sender(DIRECT)
    built = sender.flow("bravo")
    sender.to.restarted(card_of("bravo"), sender.now)
    assert built.stream in sender.streams.closed
    assert sender.sending().stream == sender.streams.opened[-1][0] != built.stream
    assert built.number not in sender.routes.open


def test_state_of_a_stream_is_gone_with_it():
    sender = Sender(DIRECT, path_of("rod", "bravo"), known=("bravo", "rod"))
    built = sender.flow("bravo")
    sender.report(built.stream, 10, 2)
    sender.to.suspect(built.stream, sender.now)
    before = sender.sending()
    sender.to.restarted(card_of("bravo"), sender.now)
    after = sender.sending()
    assert after is not before
    assert (after.active, after.retiring, after.epoch, tuple(after.counts)) == (None, [], 0, (0, 0, 0))
    assert after.race.beaten == set()
    assert not after.suspect


def test_unknown_relay_ends_the_paths_through_it_alone():
    sender = Sender(path_of("rod", "bravo"), path_of("ruth", "bravo"))
    sender.packet()
    sender.wait(0.06)
    assert sender.tried() == [path_of("rod", "bravo"), path_of("ruth", "bravo")]
    sender.heard()
    sender.to.who_failed(Who(node=id_of("rod")), sender.now)
    (failed,) = [event for event in sender.heard() if event.kind is EventKind.FAILED]
    assert (failed.path, failed.reason) == (
        path_of("rod", "bravo").hops,
        Reason(NodeEnd.UNKNOWN_RELAY, by=id_of("rod")),
    )
    assert path_of("ruth", "bravo") in sender.tried()


# ── an answer's stream ──


def test_revoked_destination_loses_stream_and_queue_and_its_packets():
    sender = Sender(DIRECT)
    built = sender.flow("bravo")
    sender.heard()
    sender.to.revoked(BRAVO, sender.now)
    assert sender.to.nodes() == ()
    assert built.number not in sender.routes.open
    assert sender.datapath.removed == [(BRAVO, "unreachable")]
    assert sender.kinds() == [EventKind.UNREACHABLE]


def test_revoked_relay_far_down_the_path_is_left_and_another_path_carries():
    by_two, by_rod = path_of("rod", "ruth", "bravo"), path_of("rod", "bravo")
    sender = Sender(by_two, by_rod, known=("bravo", "rod", "ruth"))
    built = sender.flow("rod", "ruth", "bravo")
    sender.to.revoked(id_of("ruth"), sender.now)
    assert built.number not in sender.routes.open
    assert sender.datapath.routes == {built.stream: None}
    sender.confirm("rod", "bravo")
    assert sender.carried_by() == by_rod


def test_relay_that_is_revoked_is_not_taken_from_a_destination_that_does_not_know():
    sender = Sender(path_of("rod", "ruth", "bravo"), known=("bravo", "rod"))
    sender.plane.denied = {id_of("ruth")}
    sender.packet()
    sender.link("rod")
    sender.agree("ruth")
    assert sender.routes.built == []


def test_stream_of_an_answer_is_agreed_before_the_first_packet_and_used_by_it():
    sender = Sender(DIRECT)
    sender.to.opened_to_us(card_of("bravo"), sender.now)
    stream = sender.agree()
    assert sender.to.nodes() == ()
    sender.packet()
    assert [each for each, _ in sender.streams.opened] == [stream]
    assert sender.sending().agreed
    assert sender.datapath.senders == [stream]


def test_destination_that_rests_gets_no_stream_beforehand():
    sender = Sender(DIRECT)
    sender.packet()
    give_up(sender)
    count = len(sender.streams.opened)
    sender.to.opened_to_us(card_of("bravo"), sender.now)
    assert len(sender.streams.opened) == count


# ── what does not belong to a stream ──


def test_reports_about_unknown_streams_change_nothing():
    sender = Sender(DIRECT)
    unknown = StreamId(bytes(16))
    sender.to.sender_idle(unknown, sender.now)
    sender.to.suspect(unknown, sender.now)
    sender.report(unknown, 1)
    sender.to.route_failed(RouteFailed(1, unknown, RouteEnd.TIMEOUT), sender.now)
    assert (sender.heard(), sender.to.nodes()) == ([], ())


# ── commands ──


def test_move_without_a_stream_is_refused():
    sender = Sender(DIRECT)
    with pytest.raises(UserError, match="no stream flows there"):
        sender.to.move(BRAVO, None, sender.now)
    sender.packet()
    with pytest.raises(UserError, match="no stream flows there"):
        sender.to.move(BRAVO, None, sender.now)


def test_status_names_nodes_by_their_ids():
    sender = Sender(DIRECT)
    built = sender.flow("bravo")
    (status,) = sender.to.status(sender.now)
    assert (status.node, status.name, status.state) == (BRAVO, "bravo", "flowing")
    assert (status.stream, status.path, status.failure_count) == (built.stream, DIRECT.hops, 0)


# ── the way back ──


def test_route_for_the_answer_is_set_up_when_the_others_route_comes_not_when_the_packet_does():
    sender = Sender(DIRECT)
    sender.to.opened_to_us(card_of("bravo"), sender.now)
    stream = sender.agree()
    sender.link("bravo")
    assert sender.routes.built == []
    sender.to.reached_by(BRAVO, BRAVO, sender.now)
    assert sender.asked("bravo").stream == stream
    assert EventKind.QUEUE not in sender.kinds(), "no packet waits yet"
    sender.to.reached_by(BRAVO, BRAVO, sender.now)
    assert len(sender.routes.built) == 1


def test_no_route_back_is_made_for_a_node_whose_stream_was_of_no_use():
    sender = Sender(DIRECT)
    sender.to.opened_to_us(card_of("bravo"), sender.now)
    stream = sender.agree()
    sender.link("bravo")
    sender.to.reached_by(BRAVO, BRAVO, sender.now)
    sender.confirm("bravo")
    sender.to.sender_idle(stream, sender.now)  # and the far end reported no frame of it
    sender.to.opened_to_us(card_of("bravo"), sender.now)
    sender.to.reached_by(BRAVO, BRAVO, sender.now)
    assert len(sender.streams.opened) == 1
    assert len(sender.routes.built) == 1


def test_way_back_that_no_packet_has_taken_is_given_up_without_a_pause():
    sender = Sender(DIRECT)
    sender.to.opened_to_us(card_of("bravo"), sender.now)
    sender.agree()
    sender.to.reached_by(BRAVO, BRAVO, sender.now)
    dial_failed(sender)
    assert sender.to.nodes() == ()
    assert EventKind.UNREACHABLE not in sender.kinds()
    sender.packet()
    assert sender.to.nodes() == (BRAVO,)


def test_way_back_leads_by_the_public_relay_that_the_others_route_came_through():
    sender = Sender(DIRECT, known=("bravo",))
    sender.search.wants = True
    sender.plane.cards[id_of("rod")] = card_of("rod", public=True)
    sender.to.reached_by(BRAVO, id_of("rod"), sender.now)
    assert sender.search.learned == [("heard", BRAVO, id_of("rod")), ("relay", id_of("rod"))]


# ── how long a stream stays ──


def patient_sender(*, patient: bool = True, bounds: Bounds | None = None) -> Sender:
    sender = Sender(DIRECT, patience=Patience(bounds or Bounds()))
    sender.plane.cards[BRAVO] = card_of("bravo", patient=patient)
    return sender


def carried(sender: Sender) -> StreamId:
    """Open a stream to bravo and have it carried."""
    sender.packet()
    stream = sender.agree()
    sender.link("bravo")
    sender.confirm("bravo")
    return stream


def test_a_stream_to_a_node_whose_pauses_are_known_stays_for_as_long_as_pays():
    sender = patient_sender()
    first = carried(sender)
    assert sender.datapath.timeouts[first] == FIRST_S
    sender.now += FIRST_S
    sender.to.sender_idle(first, sender.now)
    sender.now += 60.0 - FIRST_S
    assert sender.datapath.timeouts[carried(sender)] > 60.0


def test_a_pause_that_ends_while_the_stream_is_open_counts_too():
    sender = patient_sender()
    stream = carried(sender)
    for _ in range(2):
        sender.now += 25.0
        report = Feedback(stream, 0, 1, 2, 0, 0, 200, None, None)
        sender.to.feedback(report, sender.now)
    assert 25.0 < sender.datapath.timeouts[stream] != FIRST_S


def test_a_stream_to_an_earlier_build_ends_before_its_receiver_gives_it_up():
    stream = carried(sender := patient_sender(patient=False))
    assert sender.datapath.timeouts[stream] == IMPATIENT_S


def test_other_bounds_count_at_once_for_open_streams():
    stream = carried(sender := patient_sender())
    sender.to.set_patience(Bounds(fixed_s=3.0))
    assert sender.datapath.timeouts[stream] == 3.0
