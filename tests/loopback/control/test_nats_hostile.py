"""What a node does at a server that lies, floods, hangs or breaks the protocol: it says why, and goes on.

Every test ends with no exception and no connection left: kit/liar.py and the fixture of asynchronous tests see to it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
from contextlib import asynccontextmanager

import pytest
from kit.broker import Operator
from kit.builders import node_keys
from kit.cluster import Broker, NatsNode, broker, certificates, far_nodes
from kit.ear import envelope, node_of
from kit.liar import NONCE, Session, lying

from conflux.control.channel import Handoff
from conflux.control.drop import Drop
from conflux.control.nats.channel import ed25519_of
from conflux.control.nats.config import INFO_BYTES_MAX, LINE_BYTES_MAX, MESSAGE_BYTES_MAX, NOTICE_BURST
from conflux.realm.broker import subjects

ALICE, BOB = (ed25519_of(node_keys(name).public.encode()) for name in ("alice", "bob"))


def msg(subject: str, payload: bytes, sid: int = 1) -> bytes:
    return b"MSG %s %d %d\r\n%s\r\n" % (subject.encode(), sid, len(payload), payload)


def nobody(key: bytes, *, again: bool = False) -> bytes:
    return b"HMSG %s 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n" % subjects.no_responders(ALICE, key, again=again).encode()


@asynccontextmanager
async def alice_at(at: Broker):
    async with NatsNode(at.member("alice"), at.config(), knows=("bob",)) as node:
        yield node


def raised() -> list[str]:
    """Return what is not caught in tasks of this loop from now on: a list that grows."""
    found: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: found.append(str(context)))
    return found


# ── before a connection ───────────────────────────────────────────────────────────────────────────────────────────────


async def closes(session: Session) -> None:
    """Say nothing, and go."""


async def endless_line(session: Session) -> None:
    await session.say(b"INFO " + b"x" * 4 * INFO_BYTES_MAX)
    await session.until_the_end()


async def no_protocol(session: Session) -> None:
    await session.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await session.until_the_end()


async def no_json(session: Session) -> None:
    await session.say(b"INFO {{{\r\n")
    await session.until_the_end()


async def a_list(session: Session) -> None:
    await session.say(b"INFO [1, 2]\r\n")
    await session.until_the_end()


async def deep_json(session: Session) -> None:
    await session.say(b"INFO " + b"[" * 20000 + b"\r\n")
    await session.until_the_end()


async def plain(session: Session) -> None:
    await session.say(b'INFO {"auth_required":true,"nonce":"%s"}\r\n' % NONCE.encode())
    assert await session.reader.read() == b""  # not a byte, least of all a credential


async def open_to_all(session: Session) -> None:
    await session.say(b'INFO {"tls_required":true}\r\n')
    assert await session.reader.read() == b""


async def wrong_nonce(session: Session) -> None:
    await session.introduce(nonce="conflux/1/envelope")
    assert await session.reader.read() == b""


async def nonce_of_a_number(session: Session) -> None:
    await session.say(b'INFO {"tls_required":true,"nonce":17}\r\n')
    assert await session.reader.read() == b""


async def refuses(session: Session) -> None:
    await session.introduce()
    await session.hear(b"CONNECT")
    await session.say(b"-ERR 'Authorization Violation'\r\n")


async def goes_after_connect(session: Session) -> None:
    await session.introduce()
    await session.hear(b"PING")


async def ok_for_pong(session: Session) -> None:
    await session.introduce()
    await session.hear(b"PING")
    await session.say(b"+OK\r\n")
    await session.until_the_end()


async def endless_pong(session: Session) -> None:
    await session.introduce()
    await session.hear(b"PING")
    await session.say(b"P" * 1_000_000)
    await session.until_the_end()


FIRST_WORDS = {
    closes: "is no NATS server",
    endless_line: "is no NATS server",
    no_protocol: "is no NATS server",
    no_json: "is no NATS server",
    a_list: "is no NATS server",
    deep_json: "is no NATS server",
    plain: "offers no TLS",
    open_to_all: "admits everybody",
    wrong_nonce: "is no NATS server",
    nonce_of_a_number: "admits everybody",
    refuses: "refused: 127.0.0.1",
    goes_after_connect: "closed the connection",
    ok_for_pong: "closed the connection",
    endless_pong: "is no NATS server",
}


@pytest.mark.parametrize("script", FIRST_WORDS)
async def test_server_that_begins_wrongly_is_named_with_the_reason(script):
    async with lying(script) as (_, at), alice_at(at) as alice:
        await alice.until_it_says(FIRST_WORDS[script])
        assert not alice.channel.state.up
        assert len(alice.channel.state.detail) < 200
        assert alice.send(envelope(node_of("bob"))) is Handoff.DOWN
        assert alice.send(envelope(None)) is Handoff.DOWN


async def test_server_that_hangs_holds_up_no_other():
    async def hangs(session: Session) -> None:
        await session.until_the_end()

    async with lying(hangs) as (_, at), broker() as good:
        member = good.member("alice")
        config = good.config(servers=(*at.addresses, *good.addresses))
        async with NatsNode(member, config) as alice:
            await alice.until(up=True)
            assert str(good.addresses[0][1]) in alice.channel.state.detail


async def test_hang_is_named_when_there_is_no_other_server():
    async def hangs(session: Session) -> None:
        await session.introduce()
        await session.until_the_end()

    async with lying(hangs) as (_, at), alice_at(at) as alice:
        await alice.until_it_says("hangs")


@pytest.mark.parametrize(
    ("certificate", "known", "options", "said"),
    [
        ({"days": -1}, True, {}, "certificate has expired; this device's clock says 20"),
        ({"begins": 300, "days": 500}, True, {}, "certificate is not yet valid; this device's clock says 20"),
        ({"hosts": ("192.0.2.1",)}, True, {}, "IP address mismatch"),
        ({}, False, {}, "its certificate does not hold"),
        ({}, True, {"maximum_version": ssl.TLSVersion.TLSv1_2}, "agrees on no TLS 1.3"),
    ],
)
async def test_tls_that_does_not_hold_is_refused_with_the_reason(certificate, known, options, said):
    async def script(session: Session) -> None:
        await session.introduce()
        assert await session.reader.read(1) == b""  # no credential

    async with lying(script, tls=certificates(**certificate), **options) as (_, at):
        ca = at.certificates.ca if known else certificates(days=2).ca
        async with NatsNode(at.member("alice"), at.config(ca=ca)) as alice:
            await alice.until_it_says(said)


# ── connected ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def run_on(say: bytes, until) -> NatsNode:
    """Let a connected server say something once; return the node when until(node) is over."""

    async def script(session: Session) -> None:
        await session.admit()
        if len(liar.sessions) == 1:
            await session.hear(b"PUB")
            await session.say(say)
        await session.until_the_end()

    async with lying(script) as (liar, at), alice_at(at) as alice:
        await alice.until(up=True)
        alice.send(envelope(None))
        await until(alice)
        return alice


ENDS = {
    "endless line": b"x" * (LINE_BYTES_MAX + 100),
    "unknown word": b"HELLO\r\n",
    "impossible length": b"MSG a 1 99999999\r\n",
    "message longer than it says": b"MSG a 1 1\r\nxyz\r\n",
    "INFO that is no JSON": b"INFO {\r\n",
    "deep INFO": b"INFO " + b"[" * 30000 + b"\r\n",
    "storm of errors": b"-ERR 'x'\r\n" * int(NOTICE_BURST + 100),
    "storm of pings": b"PING\r\n" * int(NOTICE_BURST + 100),
    "storm of INFO": b"INFO {}\r\n" * int(NOTICE_BURST + 100),
}


@pytest.mark.parametrize("name", ENDS)
async def test_server_that_breaks_the_protocol_is_left_and_tried_again_later(name):
    async def comes_back(alice: NatsNode) -> None:
        await alice.ear.until(lambda: alice.ear.turns == [True, False, True])

    alice = await run_on(ENDS[name], comes_back)
    assert set(alice.drops) <= {Drop.MALFORMED, Drop.FLOOD}


NOW = envelope(node_of("alice")).encode()
LATER = NOW[:1] + b"\x02" + NOW[2:]  # an array, of which the version is the first

GOES_ON = {
    "message for another": (msg(subjects.message(BOB, ALICE), b"x"), Drop.NOT_FOR_US),
    "own message": (msg(subjects.message(ALICE, ALICE), b"x"), Drop.OWN_ECHO),
    "subject of nobody": (msg("cx.u.x.y.e", b"x"), Drop.MALFORMED),
    "no envelope": (msg(subjects.message(ALICE, BOB), b"rubbish"), Drop.MALFORMED),
    "another version": (msg(subjects.message(ALICE, BOB), LATER), Drop.VERSION),
    "oversized": (msg(subjects.message(ALICE, BOB), bytes(MESSAGE_BYTES_MAX + 1)), Drop.OVERSIZED),
    "a megabyte": (msg(subjects.message(ALICE, BOB), bytes(1 << 20)), Drop.OVERSIZED),
    "unasked 503": (nobody(BOB), None),
    "storm of 503": (nobody(BOB) * 3000, Drop.FLOOD),
    "flood": (msg(subjects.message(ALICE, BOB), envelope(node_of("alice")).encode()) * 1000, Drop.FLOOD),
    "not permitted": (
        b"-ERR 'Permissions Violation for Publish to \"cx.p.main.%s\"'\r\n" % (b"U" * 56),
        Drop.NOT_PERMITTED,
    ),
    "servers of its own": (b'INFO {"connect_urls":["192.0.2.1:4222"]}\r\n', None),
    "leaving at once": (b'INFO {"ldm":true}\r\n' * 50, None),
}


@pytest.mark.parametrize("name", GOES_ON)
async def test_what_a_server_hands_over_costs_no_connection(name):
    said, drop = GOES_ON[name]
    good = envelope(node_of("alice"), b"good")

    async def hears_what_follows(alice: NatsNode) -> None:
        await alice.ear.until(lambda: b"good" in alice.ear.payloads())
        assert alice.channel.state.up
        assert alice.ear.turns == [True]

    third = os.urandom(32)
    follows = msg(subjects.message(ALICE, third), good.encode())
    if drop is Drop.FLOOD and name.startswith("storm"):  # that used the budget of all up: it comes back
        follows = b""

        async def hears_what_follows(alice: NatsNode) -> None:
            await alice.drops.until(Drop.FLOOD)
            assert alice.channel.state.up

    alice = await run_on(said + follows, hears_what_follows)
    assert set(alice.drops) == ({drop} if drop else set())


async def test_server_that_says_that_nobody_listens_for_everything_is_told_on_once_a_try():
    async def script(session: Session) -> None:
        await session.admit()
        while True:
            await session.hear(b"PUB")
            await session.say(nobody(BOB))

    async with lying(script) as (_, at), alice_at(at) as alice:
        await alice.until(up=True)
        assert alice.send(envelope(node_of("bob"))) is Handoff.ACCEPTED
        await alice.ear.until(lambda: bool(alice.ear.absent))  # after one more try, 300 ms later
        assert alice.ear.absent == [node_of("bob")]
        assert alice.send(envelope(node_of("bob"))) is Handoff.ACCEPTED  # it is believed once, not for ever
        assert alice.channel.state.up


async def test_node_is_absent_only_if_nobody_listens_on_any_way_to_it():
    third = bytes(32)

    async def script(session: Session) -> None:
        await session.admit()
        for key in (third, BOB):  # the path that was learnt comes first
            for _ in range(2):  # and each has a second connection perhaps
                await session.hear(b"PUB")
            answers[key] = session
        await session.until_the_end()

    answers: dict[bytes, Session] = {}
    async with lying(script) as (_, at), alice_at(at) as alice:
        await alice.until(up=True)
        alice.channel._made_at -= 60  # no connection that is new: nobody is asked again
        alice.channel.learn(node_of("bob"), third)
        assert alice.channel.send(envelope(node_of("bob")), again=True) is Handoff.ACCEPTED
        async with asyncio.timeout(5):
            while len(answers) < 2:  # noqa: ASYNC110  # the script has no event of ours
                await asyncio.sleep(0.01)
        other = msg(subjects.message(ALICE, os.urandom(32)), envelope(node_of("alice"), b"between").encode())
        await answers[third].say(nobody(third) + nobody(third, again=True) + nobody(BOB) + other)
        await alice.ear.heard(b"between")
        assert alice.ear.absent == []
        await answers[BOB].say(nobody(BOB, again=True))
        await alice.ear.until(lambda: alice.ear.absent == [node_of("bob")])


async def test_server_that_swallows_everything_is_not_thought_dead_while_it_answers_pings():
    asked = asyncio.Event()

    async def script(session: Session) -> None:
        await session.admit()
        await session.hear(b"PUB")
        await session.hear(b"PING")  # a second later
        await session.say(b"PONG\r\n")
        asked.set()
        await session.until_the_end()

    async with lying(script) as (_, at), alice_at(at) as alice:
        await alice.until(up=True)
        alice.send(envelope(node_of("bob")))
        async with asyncio.timeout(5):
            await asked.wait()
        assert alice.channel.state.up
        assert alice.ear.absent == []


async def test_server_that_stops_answering_is_noticed_within_seconds_of_a_message():
    async def script(session: Session) -> None:
        await session.admit()
        await session.until_the_end()

    async with lying(script) as (_, at), alice_at(at) as alice:
        await alice.until(up=True)
        loop = asyncio.get_running_loop()
        began = loop.time()
        alice.send(envelope(node_of("bob")))
        await alice.until(up=False)
        assert loop.time() - began < 5.0
        assert "hangs" in alice.channel.state.detail


async def resets(session: Session) -> None:
    await session.admit()
    session.reset()


async def test_connection_that_is_reset_is_missed_at_once_and_raises_nothing_that_is_not_caught():
    found = raised()
    async with lying(resets) as (liar, at), alice_at(at) as alice:
        await alice.ear.until(lambda: alice.ear.turns[:3] == [True, False, True])
        assert liar.failures == []
    gc.collect()  # a task tells of its exception at its end
    assert found == []


async def test_server_that_reads_nothing_makes_send_refuse_and_neither_block_nor_grow():
    async def script(session: Session) -> None:
        await session.admit()
        session.stop_reading()
        await asyncio.Event().wait()

    async with lying(script) as (_, at), alice_at(at) as alice:
        await alice.until(up=True)
        results = [alice.send(envelope(node_of("bob"), bytes(28000))) for _ in range(400)]
        assert results[0] is Handoff.ACCEPTED
        assert results[-1] is Handoff.REFUSED
        assert alice.send(envelope(None)) is Handoff.REFUSED  # presence gives way before
        await alice.until(up=False)


async def test_node_listens_to_its_inbox_its_area_its_lists_and_its_buckets_and_to_nothing_else():
    async def script(session: Session) -> None:
        await session.admit()
        await session.until_the_end()

    async with lying(script) as (liar, at), alice_at(at) as alice:
        await alice.until(up=True)
        member = at.member("alice")
        buckets = subjects.buckets_of(member.node_id, member.name, member.addresses)
        assert liar.sessions[0].subjects() == [
            subjects.messages_of(ALICE, subjects.ENVELOPE),
            subjects.presences("main"),
            subjects.messages_of(ALICE, subjects.NO_RESPONDERS),
            subjects.messages_of(ALICE, subjects.NO_RESPONDERS_AGAIN),
            subjects.presences(subjects.EVERY_AREA),
            subjects.ANY_AUTH,
            *(subjects.questions(bucket) for bucket in buckets),
        ]


async def test_stolen_admission_is_worth_nothing_without_its_key():
    async with broker() as at:
        stolen, thief = at.member("alice"), at.member("bob")
        jwt = stolen.chain.credential.user_jwt
        async with NatsNode(at.member("bob", jwt=jwt), at.config()) as node:
            assert node.node_id == thief.node_id
            await node.until_it_says("refused: ")
            assert "does not admit this node" in node.channel.state.detail


async def test_admission_of_another_realm_is_refused_in_words():
    async with broker() as at, NatsNode(at.member("alice", signer=Operator().signer), at.config()) as node:
        await node.until_it_says("refused: ")
        assert "does not admit this node" in node.channel.state.detail


async def test_nodes_hear_nothing_of_each_other_but_what_they_listen_to():
    async with broker() as at, far_nodes(at, "alice", "bob", "carol") as (alice, bob, carol):
        alice.send(envelope(node_of("bob"), b"for bob"))
        alice.send(envelope(None, b"for all"))
        await carol.ear.heard(b"for all")
        await bob.ear.heard(b"for bob", b"for all")
