from __future__ import annotations

from kit.ear import node_of

from conflux.control.nats.config import EXCLUDED_COUNT_MAX, PATH_COUNT_MAX, SENT_COUNT_MAX, SENT_S_MAX
from conflux.control.nats.paths import Errand, Parcel, Paths, Sent
from conflux.ids import NodeId

A, B = b"a" * 32, b"b" * 32
BOB, CAROL = node_of("bob"), node_of("carol")


def parcel(key: bytes = A, node: NodeId = BOB, data: bytes = b"x", *, own: bool = True) -> Parcel:
    return Parcel(key, data, Errand(node, own, 1))


def test_node_is_reached_by_the_key_that_was_learnt_last():
    paths = Paths()
    assert paths.find(BOB) is None
    paths.learn(BOB, A)
    paths.learn(BOB, B)
    assert paths.find(BOB) == B


def test_path_is_forgotten_only_if_it_is_still_that_one():
    paths = Paths()
    paths.learn(BOB, B)
    paths.forget(BOB, A)
    assert paths.find(BOB) == B
    paths.forget(BOB, B)
    assert paths.find(BOB) is None
    paths.forget(BOB)


def test_path_not_used_for_longest_gives_way():
    paths = Paths()
    nodes = [NodeId(number.to_bytes(16)) for number in range(PATH_COUNT_MAX)]
    for node in nodes:
        paths.learn(node, A)
    paths.find(nodes[0])
    paths.learn(BOB, A)
    assert (paths.find(nodes[0]), paths.find(nodes[1]), paths.find(BOB)) == (A, None, A)


def test_message_that_nobody_took_is_lost_and_its_bytes_were_not_kept():
    sent = Sent()
    sent.add(parcel(), again=False, now=0.0)
    assert sent.nobody(A, now=0.1) == ([], [parcel(data=b"")])
    assert sent.nobody(A, now=0.1) == ([], [])  # said once


def test_message_soon_after_a_connection_was_made_goes_out_once_more():
    sent = Sent()
    sent.add(parcel(), again=True, now=0.0)
    assert sent.nobody(A, now=0.1) == ([parcel()], [])


def test_word_about_another_key_changes_nothing():
    sent = Sent()
    sent.add(parcel(A), again=False, now=0.0)
    assert sent.nobody(B, now=0.1) == ([], [])
    assert sent.nobody(A, now=0.1) == ([], [parcel(data=b"")])


def test_word_about_the_one_connection_of_a_key_says_nothing_of_the_other():
    sent = Sent()
    copy = parcel()._replace(again=True)
    for each in (parcel(), copy):
        sent.add(each, again=False, now=0.0)
    assert sent.nobody(A, again=True, now=0.1) == ([], [copy._replace(data=b"")])
    assert sent.nobody(A, now=0.1) == ([], [parcel(data=b"")])


def test_every_node_behind_a_key_is_lost_with_it():
    sent = Sent()
    sent.add(parcel(A, BOB), again=False, now=0.0)
    sent.add(parcel(A, CAROL, own=False), again=False, now=0.0)
    _, lost = sent.nobody(A, now=0.1)
    assert [(each.errand.node, each.errand.own) for each in lost] == [(BOB, True), (CAROL, False)]


def test_late_word_is_about_nothing():
    sent = Sent()
    sent.add(parcel(), again=True, now=0.0)
    assert sent.nobody(A, now=SENT_S_MAX) == ([], [])


def test_messages_on_their_way_are_bounded():
    sent = Sent()
    for _ in range(2 * SENT_COUNT_MAX):
        sent.add(parcel(), again=True, now=0.0)
    assert len(sent.nobody(A, now=0.1)[0]) == SENT_COUNT_MAX


def test_key_of_a_member_no_more_is_kept_in_mind_until_it_is_a_member_again():
    paths = Paths()
    paths.learn(BOB, A, own=True)
    paths.exclude(BOB)
    assert (paths.find(BOB), paths.excludes(A), paths.excludes(B), paths.excludes(None)) == (None, True, False, False)
    paths.learn(BOB, A, own=True)
    assert not paths.excludes(A)


def test_key_of_a_bridge_is_not_excluded_with_the_node_behind_it():
    paths = Paths()
    paths.learn(BOB, A, own=True)
    paths.learn(BOB, B)
    paths.exclude(BOB)
    assert not paths.excludes(A)
    assert not paths.excludes(B)


def test_so_many_keys_of_excluded_nodes_are_kept_and_no_more():
    paths = Paths()
    for number in range(EXCLUDED_COUNT_MAX + 1):
        node = NodeId(number.to_bytes(16))
        paths.learn(node, number.to_bytes(32), own=True)
        paths.exclude(node)
    kept = [paths.excludes(number.to_bytes(32)) for number in range(EXCLUDED_COUNT_MAX + 1)]
    assert kept == [False, *[True] * EXCLUDED_COUNT_MAX]
