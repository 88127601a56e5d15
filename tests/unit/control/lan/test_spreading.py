"""What is for everybody: along a tree, with notices beside it."""

from __future__ import annotations

import random

from conflux.control.lan.spreading import (
    DEAF_S,
    EMPTY_MAX,
    GRAFT_AGAIN_S,
    GRAFT_S,
    ID_COUNT_MAX,
    ID_S,
    KEPT_BYTES_MAX,
    KEPT_S,
    LATE_MAX,
    MISSING_EACH_MAX,
    NOTICE_S,
    REFUSED_COUNT_MAX,
    REPEAT_COUNT,
    Graft,
    Out,
    Prune,
    Push,
    Replace,
    Spreading,
    Tell,
    id_of,
)


def tree(*neighbours: str) -> Spreading:
    made = Spreading(random.Random(1))
    for each in neighbours:
        made.join(each.encode())
    return made


def outs(machine: Spreading) -> list[Out]:
    found: list[Out] = []
    while (out := machine.next_out()) is not None:
        found.append(out)
    return found


def hear(machine: Spreading, text: str, via: str, now: float = 0.0, sender: str = "s") -> bool:
    data = text.encode()
    return machine.spread(id_of(data), data, now=now, via=via.encode(), sender=sender.encode())


def beside(machine: Spreading, *neighbours: str) -> None:
    for each in neighbours:
        machine.pruned(each.encode())


def test_what_is_new_goes_to_the_tree_but_not_back() -> None:
    machine = tree("a", "b", "c")
    assert hear(machine, "hello", "a")
    assert outs(machine) == [Push(b"b", b"hello"), Push(b"c", b"hello")]
    assert not hear(machine, "hello", "b")
    assert outs(machine) == []


def test_third_repeat_from_a_neighbour_prunes_it_and_what_is_new_brings_it_back() -> None:
    machine = tree("a", "b")
    for number in range(REPEAT_COUNT):
        hear(machine, f"m{number}", "a")
        outs(machine)
        hear(machine, f"m{number}", "b")
    assert outs(machine) == [Prune(b"b")]
    assert machine.tree == {b"a"}
    hear(machine, "news", "b")
    assert b"b" in machine.tree


def test_two_beside_the_tree_are_told_one_of_a_question_and_all_of_a_list() -> None:
    for told, count in ((2, 2), (1, 1), (None, 5)):
        machine = tree(*"abcde")
        beside(machine, *"abcde")
        machine.spread(b"12345678", b"data", now=0.0, told=told)
        assert outs(machine) == []
        assert machine.next_timeout() == NOTICE_S
        machine.handle_timeout(now=NOTICE_S)
        tells = outs(machine)
        assert len(tells) == count
        assert all(isinstance(each, Tell) and each.ids == (b"12345678",) for each in tells)


def test_notices_of_one_moment_go_together() -> None:
    machine = tree("a")
    beside(machine, "a")
    for number in range(3):
        machine.spread(number.to_bytes(8, "big"), b"data", now=0.0)
    machine.handle_timeout(now=NOTICE_S)
    (tell,) = outs(machine)
    assert isinstance(tell, Tell)
    assert len(tell.ids) == 3


def test_what_one_was_told_of_and_does_not_come_is_asked_for_one_by_one() -> None:
    machine = tree("a", "b")
    machine.told([b"12345678"], b"a", now=0.0)
    machine.told([b"12345678"], b"b", now=0.01)
    machine.handle_timeout(now=GRAFT_S - 0.001)
    assert outs(machine) == []
    machine.handle_timeout(now=GRAFT_S)
    assert outs(machine) == [Graft(b"a", b"12345678")]
    machine.handle_timeout(now=GRAFT_S + GRAFT_AGAIN_S)
    assert outs(machine) == [Graft(b"b", b"12345678")]
    machine.handle_timeout(now=GRAFT_S + 2 * GRAFT_AGAIN_S)
    assert outs(machine) == []
    assert machine.next_timeout() is None


def test_what_comes_in_time_is_not_asked_for() -> None:
    machine = tree("a", "b")
    machine.told([id_of(b"hello")], b"a", now=0.0)
    hear(machine, "hello", "b", 0.02)
    outs(machine)
    machine.handle_timeout(now=1.0)
    assert outs(machine) == []


def test_who_asks_gets_it_and_belongs_to_the_tree_from_then_on() -> None:
    machine = tree("a", "b")
    beside(machine, "b")
    hear(machine, "hello", "a")
    outs(machine)
    machine.grafted(id_of(b"hello"), b"b", now=0.1)
    assert outs(machine) == [Push(b"b", b"hello")]
    assert b"b" in machine.tree
    machine.grafted(b"unknown!", b"b", now=0.1)
    machine.grafted(id_of(b"hello"), b"stranger", now=0.1)
    assert outs(machine) == []


def swallowed(machine: Spreading, text: str, now: float, by: str = "b") -> None:
    """Let a message of "s" come by GRAFT from another neighbour than the one that brought the last one."""
    machine.told([id_of(text.encode())], by.encode(), now=now)
    machine.handle_timeout(now=now + GRAFT_S)
    hear(machine, text, by, now + 0.1)


def test_neighbour_that_swallows_loses_its_place_in_the_tree_and_the_second_time_altogether() -> None:
    machine = tree("a", "b", "c")
    found: list[Out] = []
    for number in range(2 * LATE_MAX):
        hear(machine, f"before {number}", "a", float(number))  # "a" is expected to bring what "s" says
        swallowed(machine, f"swallowed {number}", number + 0.5, "bc"[number % 2])
        found += [out for out in outs(machine) if isinstance(out, Prune | Replace)]
    assert found == [Prune(b"a"), Replace(b"a")]


def test_one_neighbour_alone_cannot_have_another_thrown_out() -> None:
    """It tells of what it alone has, in the name of a sender whose last message came by the other."""
    machine = tree("a", "b", "c")
    for number in range(40):
        hear(machine, f"before {number}", "a", float(number))
        swallowed(machine, f"made up {number}", number + 0.5, "b")
    assert not [out for out in outs(machine) if isinstance(out, Prune | Replace)]


def test_who_brought_what_is_over_budget_is_not_asked_for_it() -> None:
    machine = tree("a", "b")
    machine.told([id_of(b"too much")], b"b", now=0.0)
    machine.refuse(id_of(b"too much"), b"b")
    machine.handle_timeout(now=1.0)
    assert outs(machine) == []
    machine.told([id_of(b"too much")], b"b", now=1.0)
    assert machine.next_timeout() is None


def test_what_one_brought_over_budget_another_may_bring() -> None:
    """Else a member shuts out a message that it heard first: it brings it itself, behind rubbish that is too much."""
    machine = tree("a", "b")
    machine.refuse(id_of(b"true"), b"b")
    machine.told([id_of(b"true")], b"a", now=0.0)
    machine.handle_timeout(now=GRAFT_S)
    assert Graft(b"a", id_of(b"true")) in outs(machine)
    assert hear(machine, "true", "a", GRAFT_S + 0.01)


def test_who_brought_what_was_over_budget_is_not_late() -> None:
    machine = tree("a", "b", "c")
    for number in range(4 * LATE_MAX):
        hear(machine, f"before {number}", "a", float(number))
        machine.refuse(id_of(f"too much {number}".encode()), b"a")
        swallowed(machine, f"too much {number}", number + 0.5, "bc"[number % 2])
    assert not [out for out in outs(machine) if isinstance(out, Prune | Replace)]


def test_what_is_over_budget_takes_bounded_room() -> None:
    machine = tree("a")
    for number in range(2 * REFUSED_COUNT_MAX):
        machine.refuse(number.to_bytes(8, "big"), b"a")
    assert len(machine._refused) == REFUSED_COUNT_MAX


def test_made_up_notices_of_one_neighbour_leave_those_of_another() -> None:
    machine = tree("a", "b")
    machine.told([b"honestly"], b"a", now=0.0)
    for number in range(100):
        machine.told([(100 * number + each).to_bytes(8, "big") for each in range(100)], b"b", now=0.0)
    assert len(machine._missing) <= 1 + MISSING_EACH_MAX
    assert not machine.told([bytes((each,)) * 8 for each in range(100)], b"b", now=0.0), "over its budget"
    machine.handle_timeout(now=GRAFT_S)
    assert Graft(b"a", b"honestly") in outs(machine)


def test_who_is_asked_in_vain_again_and_again_is_not_heard_for_a_minute() -> None:
    machine = tree("a", "b")
    for number in range(EMPTY_MAX + 1):
        assert machine.told([number.to_bytes(8, "big")], b"b", now=float(number))
        machine.handle_timeout(now=number + GRAFT_S)
    assert not machine.told([b"12345678"], b"b", now=EMPTY_MAX + 1.0)
    assert machine.told([b"12345678"], b"b", now=EMPTY_MAX + 1.0 + DEAF_S)


def test_a_message_is_given_to_each_that_asks_once() -> None:
    machine = tree("a", "b")
    hear(machine, "hello", "a")
    outs(machine)
    for _ in range(3):
        machine.grafted(id_of(b"hello"), b"b", now=0.1)
    assert outs(machine) == [Push(b"b", b"hello")]


def test_who_was_not_expected_to_bring_a_message_is_not_blamed() -> None:
    machine = tree("a", "b", "c")
    hear(machine, "from another", "a", sender="t")
    for number in range(10):
        swallowed(machine, f"m{number}", float(number))
    assert not [out for out in outs(machine) if isinstance(out, Prune | Replace)]


def test_one_late_message_among_many_costs_nobody_its_place() -> None:
    machine = tree("a", "b")
    for number in range(40):
        hear(machine, f"m{number}", "a", float(number))
        if number % 8 == 0:
            swallowed(machine, f"late {number}", number + 0.5)
    assert not [out for out in outs(machine) if isinstance(out, Prune | Replace)]


def test_who_left_is_neither_told_nor_asked() -> None:
    machine = tree("a", "b")
    beside(machine, "b")
    machine.spread(b"12345678", b"data", now=0.0)
    machine.told([b"87654321"], b"b", now=0.0)
    machine.leave(b"b")
    machine.handle_timeout(now=1.0)
    assert outs(machine) == [Push(b"a", b"data")]
    assert machine.next_timeout() is None


def test_room_is_bounded_whatever_comes() -> None:
    machine = tree("a")
    for number in range(ID_COUNT_MAX + 100):
        machine.spread(number.to_bytes(8, "big"), bytes(1000), now=0.0)
        machine.told([(number + 10**9).to_bytes(8, "big")], b"a", now=0.0)
    assert len(machine._seen) <= ID_COUNT_MAX
    assert machine._kept_bytes <= KEPT_BYTES_MAX
    assert len(machine._missing) <= MISSING_EACH_MAX
    for number in range(ID_COUNT_MAX + 100):
        machine.spread(number.to_bytes(8, "big"), bytes(1000), now=0.0)  # forgotten, and here again
    assert machine._kept_bytes == sum(len(kept.data) for kept in machine._kept.values())


def test_ids_are_forgotten_after_a_minute_and_the_messages_after_ten_seconds() -> None:
    machine = tree("a", "b")
    hear(machine, "hello", "a")
    outs(machine)
    hear(machine, "other", "a", KEPT_S)
    outs(machine)
    machine.grafted(id_of(b"hello"), b"b", now=KEPT_S)
    assert outs(machine) == []
    assert machine.has(id_of(b"hello"))
    hear(machine, "third", "a", ID_S)
    assert not machine.has(id_of(b"hello"))
