"""Open questions: when each is asked, of which nodes, and when it is given up."""

from __future__ import annotations

import itertools
import random

import pytest

from conflux.control.channel import Handoff
from conflux.control.choice import Handed
from conflux.control.event import Unanswered
from conflux.control.questions import BURST, COUNT_MAX, TIMEOUT_S, Ask, Ended, Questions
from conflux.control.who import Who
from conflux.ids import NodeId

BOB = NodeId(b"b" * 16)
WHO_BOB, WHO_NAME = Who(node=BOB), Who(name="bob")


def questions() -> Questions:
    return Questions(next_seq=itertools.count(1).__next__, rng=random.Random(1))


def asks(machine: Questions) -> list[Ask]:
    return list(iter(machine.next_ask, None))


def ends(machine: Questions) -> list[Ended]:
    return list(iter(machine.next_end, None))


def test_name_is_asked_of_the_whole_area_and_a_node_id_of_the_node_first() -> None:
    machine = questions()
    machine.ask(WHO_NAME, asked=True, quiet=False, now=0.0)
    machine.ask(WHO_BOB, asked=True, quiet=False, now=0.0)
    assert asks(machine) == [Ask(1, None, WHO_NAME), Ask(2, BOB, WHO_BOB)]
    machine.handle_timeout(now=0.4)
    assert Ask(2, None, WHO_BOB, again=True, repeated=True) in asks(machine)


def test_quiet_question_goes_to_the_node_alone_however_often() -> None:
    machine = questions()
    machine.ask(WHO_BOB, asked=False, quiet=True, now=0.0)
    for now in (0.5, 1.5, 2.5):
        machine.handle_timeout(now=now)
    assert {ask.to for ask in asks(machine)} == {BOB}


def test_question_that_is_not_quiet_makes_a_quiet_one_loud() -> None:
    machine = questions()
    machine.ask(WHO_BOB, asked=False, quiet=True, now=0.0)
    machine.ask(WHO_BOB, asked=True, quiet=False, now=0.1)
    machine.handle_timeout(now=0.5)
    assert [ask.to for ask in asks(machine)] == [BOB, BOB]  # the next try was planned as quiet
    machine.handle_timeout(now=1.5)
    assert [ask.to for ask in asks(machine)] == [None]
    machine.handle_timeout(now=TIMEOUT_S)
    assert ends(machine) == [Ended(WHO_BOB, True, Unanswered.NO_ANSWER)]


@pytest.mark.parametrize(
    ("quiet", "handoff", "tries", "ended"),
    [
        (False, Handoff.REFUSED, 1, [Unanswered.REFUSED]),
        (False, Handoff.ABSENT, 1, []),  # the area is asked now
        (True, Handoff.ABSENT, 1, []),  # the node may come back
        (True, Handoff.ABSENT, 2, [Unanswered.ABSENT]),
        (False, Handoff.ACCEPTED, 1, []),
        (False, Handoff.DOWN, 1, []),
    ],
)
def test_question_ends_by_what_became_of_it(quiet: bool, handoff: Handoff, tries: int, ended: list[Unanswered]) -> None:
    machine = questions()
    machine.ask(WHO_BOB, asked=True, quiet=quiet, now=0.0)
    for number in range(tries):
        machine.handle_timeout(now=0.4 * number)
        machine.handed_off(1, Handed(handoff), now=0.4 * number)
    assert [end.reason for end in ends(machine)] == ended
    assert (WHO_BOB in machine) is not bool(ended)


def test_absent_node_is_asked_for_in_the_area_at_once() -> None:
    machine = questions()
    machine.ask(WHO_BOB, asked=True, quiet=False, now=5.0)
    machine.handed_off(1, Handed(Handoff.ABSENT), now=5.0)
    assert machine.next_timeout() == 5.0
    machine.handle_timeout(now=5.0)
    assert [ask.to for ask in asks(machine)] == [BOB, None]


@pytest.mark.parametrize("asked", [True, False])
def test_question_beyond_the_bound_fails_as_busy_if_it_was_asked_for(asked: bool) -> None:
    machine = questions()
    for number in range(COUNT_MAX):
        machine.ask(Who(name=f"n{number}"), asked=True, quiet=False, now=0.0)
    assert len(asks(machine)) == BURST
    machine.ask(WHO_NAME, asked=asked, quiet=False, now=0.0)
    assert ends(machine) == ([Ended(WHO_NAME, True, Unanswered.BUSY, sent=False)] if asked else [])
    assert WHO_NAME not in machine


def test_handoff_of_another_message_changes_nothing() -> None:
    machine = questions()
    assert machine.next_timeout() is None
    machine.handed_off(7, Handed(Handoff.REFUSED), now=0.0)
    assert (asks(machine), ends(machine)) == ([], [])


def test_node_that_moved_is_asked_for_in_the_area_at_once_even_if_it_is_being_asked() -> None:
    machine = questions()
    machine.ask(WHO_BOB, asked=False, quiet=True, now=0.0)
    assert [ask.to for ask in asks(machine)] == [BOB]
    machine.ask(WHO_BOB, asked=False, quiet=False, area=True, now=0.01)
    machine.handle_timeout(now=0.01)
    assert [ask.to for ask in asks(machine)] == [None]
    machine = questions()
    machine.ask(WHO_BOB, asked=False, quiet=False, area=True, now=0.0)
    assert [ask.to for ask in asks(machine)] == [None]


def test_questions_that_others_cause_hold_up_none_of_ours_and_one_that_was_never_sent_says_so() -> None:
    machine = questions()
    for number in range(int(BURST)):
        machine.ask(Who(node=NodeId(bytes([number]) * 16)), asked=False, quiet=True, now=0.0)
    late = Who(node=BOB)
    machine.ask(late, asked=False, quiet=True, now=0.0)
    assert late not in [ask.who for ask in asks(machine)]
    machine.ask(WHO_NAME, asked=True, quiet=False, now=0.0)
    assert WHO_NAME in [ask.who for ask in asks(machine)]
    machine.handle_timeout(now=TIMEOUT_S)
    sent = {ended.who: ended.sent for ended in ends(machine)}
    assert (sent[late], sent[WHO_NAME]) == (False, True)
