"""Two sides of a resumption that talk directly, for tests."""

from __future__ import annotations

from itertools import count
from typing import Any

from kit.builders import FIRST_BOOT, make_card, make_member, make_realm

from conflux.anchor.frame import AES_256_GCM, CHACHA20_POLY1305
from conflux.control.envelope import Kind, Pairing
from conflux.ids import StreamId
from conflux.realm.member import Member
from conflux.stream.event import (
    Pass,
    Send,
)
from conflux.stream.resume import Rider
from conflux.stream.streams import Streams

REALM = make_realm("resuming")
MEMBERS = sorted((make_member(REALM, "one"), make_member(REALM, "two")), key=lambda member: member.node_id)
LOW, HIGH = MEMBERS
CARDS = {member.node_id: make_card(member) for member in MEMBERS}
OFFER = Rider(int(Kind.OFFER), b"offer", 7)
TAGS = count()  # so that no two sides draw the same stream id
ANSWER = Rider(int(Kind.ANSWER), b"answer")


class Side:
    """One node's streams, and what came out of them."""

    def __init__(self, member: Member, **options: Any) -> None:
        self.member = member
        self.lists = bytes(8)
        self.told: list[Any] = []
        self.cards = dict(CARDS)
        counter, tag = iter(range(1, 10**6)), next(TAGS).to_bytes(4)
        aead = CHACHA20_POLY1305 if member is LOW else AES_256_GCM
        self.streams = Streams(
            member,
            boot=FIRST_BOOT,
            aead=aead,
            entropy=lambda size: tag + next(counter).to_bytes(size - 4),
            lists=lambda: self.lists,
            lists_told=lambda peer, digest, now: self.told.append((peer, digest)),
            **options,
        )
        self.resuming = self.streams.resuming
        self.secrets = self.resuming.secrets

    def events(self, *kinds: type[Any]) -> list[Any]:
        found = list(iter(self.streams.next_event, None))
        return [event for event in found if not kinds or isinstance(event, kinds)]

    def sent(self) -> list[Any]:
        return list(iter(self.streams.next_transmit, None))

    def open(self, other: Side, now: float = 0.0) -> StreamId:
        return self.streams.open(CARDS[other.member.node_id], now=now)

    def take(self, transmit: Pass, now: float = 0.0) -> None:
        if transmit.what is Pairing.RESUME:
            self.resuming.receive_resume(transmit.id, transmit.body, self.cards.get, now=now)
        else:
            self.resuming.receive_resumed(transmit.id, transmit.body, self.cards.get, now=now)

    def secret_count(self) -> int:
        return len(self.secrets)


def signed(a: Side, b: Side, now: float = 0.0) -> StreamId:
    """Open a stream from a to b with signatures, and use it."""
    stream = a.open(b, now)
    (open_,) = a.sent()
    assert isinstance(open_, Send)
    b.streams.receive_open(CARDS[a.member.node_id], open_.body, "to", now=now)
    (accept,) = b.sent()
    a.streams.receive_accept(b.member.node_id, accept.body, now=now)
    b.streams.receiver_verified(stream)
    for side in (a, b):
        side.events()
    return stream


def pair(**options: Any) -> tuple[Side, Side]:
    a, b = Side(LOW, **options), Side(HIGH, **options)
    signed(a, b)
    return a, b


def asked(a: Side, b: Side, now: float = 0.0) -> Pass:
    a.open(b, now)
    (resume,) = a.sent()
    assert isinstance(resume, Pass)
    return resume


def exchange(a: Side, b: Side, now: float = 0.0) -> tuple[Pass, Pass]:
    resume = asked(a, b, now)
    b.take(resume, now)
    (resumed,) = b.sent()
    a.take(resumed, now)
    return resume, resumed


def confirm(b: Side) -> None:
    """Have a frame of every stream that b receives verify."""
    for stream in list(b.streams._incoming):
        b.streams.receiver_verified(stream)
