from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import pytest
from kit.builders import node_keys
from kit.ear import envelope, node_of

from conflux.control.drop import Drop
from conflux.control.envelope import Envelope
from conflux.control.nats.config import SENDER_BURST, TOTAL_BURST
from conflux.control.nats.inbox import Inbox, Nobody, Received
from conflux.control.nats.protocol import Message
from conflux.crypto.sign import ED25519_PUBLIC_BYTES
from conflux.realm.broker import subjects

AREA = "main"
BUCKET = 77
ME, YOU = (node_keys(name).public.encode()[:ED25519_PUBLIC_BYTES] for name in ("alice", "bob"))
TO_ME = envelope(node_of("alice"))
TO_ALL = envelope(None)
PLAIN = replace(TO_ME, key_id=None)
MY_BUCKET = subjects.bucket_of(node_of("alice"))
TO_BUCKET = Envelope(None, os.urandom(16), 1, None, b"x", bucket=BUCKET)


class Desk:
    """An inbox and its drops."""

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()
        self.inbox = Inbox(ME, AREA, self.drop)
        self.inbox.buckets = frozenset({BUCKET, MY_BUCKET})

    def drop(self, reason: str) -> None:
        self.drops[reason] += 1

    def receive(self, subject: str, payload: bytes, status: int | None = None, now: float = 0.0):
        return self.inbox.receive_untrusted(Message(subject, payload, status), now=now)


@pytest.mark.parametrize(
    ("subject", "sent", "sender"),
    [
        (subjects.message(ME, YOU), TO_ME, YOU),
        (subjects.message(ME, YOU), envelope(node_of("carol")), YOU),  # for a node behind this one
        (subjects.presence(AREA, YOU), TO_ALL, YOU),
        (subjects.question(BUCKET, YOU), TO_BUCKET, YOU),
        (subjects.question(MY_BUCKET, YOU), PLAIN, YOU),
        (subjects.presence(subjects.EVERY_AREA, YOU), TO_ALL, YOU),
        (subjects.auth("lists"), TO_ALL, None),
    ],
)
def test_envelope_is_taken_with_the_key_of_its_subject(subject, sent, sender):
    desk = Desk()
    assert desk.receive(subject, sent.encode()) == Received(sent, sender)
    assert desk.drops == {}


@pytest.mark.parametrize(
    ("subject", "sent"),
    [
        (subjects.message(ME, YOU, again=True), TO_ME),
        (subjects.question(BUCKET, YOU, again=True), TO_BUCKET),
        (subjects.question(MY_BUCKET, YOU, again=True), PLAIN),
    ],
)
def test_copy_of_what_had_no_answer_is_taken_as_one(subject, sent):
    assert Desk().receive(subject, sent.encode()) == Received(sent, YOU, again=True)


@pytest.mark.parametrize(
    ("subject", "payload", "reason"),
    [
        (subjects.message(YOU, ME), TO_ME, Drop.NOT_FOR_US),
        (subjects.message(ME, ME), TO_ME, Drop.OWN_ECHO),
        (subjects.presence("other", YOU), TO_ALL, Drop.NOT_FOR_US),
        (subjects.question(BUCKET + 1, YOU), TO_BUCKET, Drop.NOT_FOR_US),
        (subjects.join(b"12345678"), TO_ALL, Drop.NOT_FOR_US),
        (subjects.message(ME, YOU), TO_ALL, Drop.MALFORMED),
        (subjects.message(ME, YOU), TO_BUCKET, Drop.MALFORMED),
        (subjects.presence(AREA, YOU), TO_ME, Drop.MALFORMED),
        (subjects.presence(AREA, YOU), TO_BUCKET, Drop.MALFORMED),
        (subjects.question(BUCKET, YOU), TO_ALL, Drop.MALFORMED),
        (subjects.question(BUCKET, YOU), TO_ME, Drop.MALFORMED),
        (subjects.question(BUCKET, YOU), PLAIN, Drop.MALFORMED),
        (subjects.question(MY_BUCKET, YOU), TO_ME, Drop.MALFORMED),  # sealed: its sender knows the node's key
        (subjects.auth("lists"), TO_ME, Drop.MALFORMED),
        (subjects.message(ME, YOU) + ".x", TO_ME, Drop.MALFORMED),
        (subjects.message(ME, YOU).lower(), TO_ME, Drop.MALFORMED),
        (subjects.message(ME, YOU).replace("cx.", "cy."), TO_ME, Drop.MALFORMED),
        ("_INBOX.x", TO_ME, Drop.MALFORMED),
        ("x" * 5000, TO_ME, Drop.MALFORMED),
        (subjects.message(ME, YOU), None, Drop.MALFORMED),
    ],
)
def test_what_is_not_for_this_node_or_not_what_its_subject_says_is_dropped(subject, payload, reason):
    desk = Desk()
    assert desk.receive(subject, b"rubbish" if payload is None else payload.encode()) is None
    assert desk.drops == {reason: 1}


def test_server_says_that_nobody_listens():
    desk = Desk()
    assert desk.receive(subjects.no_responders(ME, YOU), b"", 503) == Nobody(YOU)
    assert desk.receive(subjects.no_responders(ME, YOU, again=True), b"", 503) == Nobody(YOU, again=True)
    assert desk.drops == {}


@pytest.mark.parametrize(("payload", "status"), [(b"", None), (b"", 404), (b"x", 503), (TO_ME.encode(), None)])
def test_what_else_comes_there_is_dropped(payload, status):
    desk = Desk()
    assert desk.receive(subjects.no_responders(ME, YOU), payload, status) is None
    assert desk.drops == {Drop.MALFORMED: 1}


def test_one_sender_cannot_use_up_the_budget_of_others():
    desk = Desk()
    third = bytes(32)
    taken = [desk.receive(subjects.message(ME, YOU), TO_ME.encode()) for _ in range(int(2 * TOTAL_BURST))]
    assert sum(each is not None for each in taken) == SENDER_BURST
    assert desk.drops == {Drop.FLOOD: 2 * TOTAL_BURST - SENDER_BURST}
    assert desk.receive(subjects.message(ME, third), TO_ME.encode()) is not None
    assert desk.receive(subjects.message(ME, YOU), TO_ME.encode(), now=1.0) is not None


def test_invented_senders_together_have_a_budget_too():
    desk = Desk()
    taken = [
        desk.receive(subjects.message(ME, number.to_bytes(32)), b"rubbish" if number % 2 else TO_ME.encode())
        for number in range(1, int(TOTAL_BURST) + 101)
    ]
    assert sum(each is not None for each in taken) == TOTAL_BURST / 2
    assert desk.drops[Drop.FLOOD] == 100
