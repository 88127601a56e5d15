"""No answer causes a question that causes the same answer: what an unhappy pair says has a small number."""

from __future__ import annotations

import contextlib
import random
from collections import Counter, deque

from kit.builders import NOW_UNIX, make_grant, make_member, node_keys
from kit.control import World
from kit.lists import REALM, deny_list

from conflux.control.channel import Arrival, Handoff
from conflux.control.choice import Handed
from conflux.control.envelope import Inner, Kind
from conflux.control.event import RequestFailed
from conflux.control.lists import Lists, Send
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.denying import Signer
from conflux.realm.listbook import ListBook

LATENCY_S = 0.01
WATCHED_S = 300.0
ALICE, BOB = (NodeId(bytes((number,)) * 16) for number in (1, 2))
BRIDGE_KEY = bytes(32)  # of a third node, which is heard and does not hear


def test_node_that_answers_questions_and_hears_no_request_is_given_up_and_hardly_asked() -> None:
    world = World("alice", "bob")
    world.run(3.0)
    alice, bob = world["alice"].plane, world["bob"].plane
    alice.request(world["bob"].node, Kind.OPEN, b"hello", now=world.now)
    sent: Counter[str] = Counter()
    failed: list[str] = []
    end = world.now + 15.0
    while world.now < end:
        lost = False
        while (transmit := alice.next_transmit()) is not None:
            envelope = transmit.envelope
            alice.handoff(transmit.token, Handed(Handoff.ACCEPTED, frozenset({"nats"})), now=world.now)
            if envelope.key_id is not None:
                sent["request"] += 1
                lost = True
            elif Inner.decode_untrusted(envelope.payload).kind == Kind.WHO:
                sent["question"] += 1
                bob.receive_untrusted(Arrival(envelope, None, "nats", bytes(32)), now=world.now + LATENCY_S)
        world.now += LATENCY_S
        if lost:
            alice.absent(world["bob"].node, "nats", now=world.now)
        while (transmit := bob.next_transmit()) is not None:
            alice.receive_untrusted(Arrival(transmit.envelope, None, "nats", BRIDGE_KEY), now=world.now + LATENCY_S)
        world.now += LATENCY_S
        alice.handle_timeout(now=world.now)
        bob.handle_timeout(now=world.now)
        failed += [event.reason for event in iter(alice.next_event, None) if isinstance(event, RequestFailed)]
    assert failed == ["absent"]
    assert sent["request"] <= 4
    assert sent["question"] <= 4


def lists_with(me: NodeId, signer: str, *, ahead_s: int) -> Lists:
    """Return the lists of a node that holds one of a signer.  ahead_s: of the end of its grant, by the node's clock."""
    key = node_keys(signer).signing
    grant = make_grant(REALM, key)
    clock_unix = NOW_UNIX
    book = ListBook(REALM.anchor, lambda: clock_unix)
    book.load([deny_list(make_member(REALM, "alpha").node_id, signer=Signer(key, grant))])
    clock_unix = grant.not_after + ahead_s
    return Lists(book, me=me, rng=random.Random(1))


def test_nodes_whose_lists_have_ended_are_alike_and_ask_nothing() -> None:
    nodes = {ALICE: lists_with(ALICE, "gate", ahead_s=0), BOB: lists_with(BOB, "office", ahead_s=3600)}
    assert nodes[ALICE].digest == nodes[BOB].digest
    nodes[ALICE].hear(BOB, nodes[BOB].digest, now=0.0, direct=True)
    assert nodes[ALICE].next_send() is None


def test_nodes_of_which_one_cannot_take_the_others_list_soon_stop_asking() -> None:
    """By bob's clock the grant of alice's list has ended, by hers it has not."""
    nodes = {ALICE: lists_with(ALICE, "gate", ahead_s=-1), BOB: lists_with(BOB, "office", ahead_s=0)}
    now, lost_count = 0.0, 2  # the first messages are lost, so one of them begins to ask as the other gives up
    flying: deque[tuple[float, NodeId, Send]] = deque()
    sent: Counter[Kind] = Counter()
    nodes[ALICE].hear(BOB, nodes[BOB].digest, now=now, direct=True)
    while now < WATCHED_S:
        for me, lists in nodes.items():
            while (send := lists.next_send()) is not None:
                sent[send.kind] += 1
                flying.append((now + LATENCY_S, me, send))
        dues = [due for lists in nodes.values() if (due := lists.next_timeout()) is not None]
        now = min([*dues, *(at for at, _, _ in list(flying)[:1])], default=WATCHED_S)
        while flying and flying[0][0] <= now:
            _, src, send = flying.popleft()
            lost_count -= 1
            if lost_count < 0:
                with contextlib.suppress(RemoteProtocolError):
                    nodes[BOB if src == ALICE else ALICE].receive_untrusted(src, send.kind, send.body, src, now=now)
        for lists in nodes.values():
            lists.handle_timeout(now=now)
    assert nodes[ALICE].digest != nodes[BOB].digest
    assert sent[Kind.LISTS_ASK] <= 20
    assert sent[Kind.LIST] <= 20
