"""How two later builds meet: digests in place of chains, and a MAC in place of signatures once they have met."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable

import pytest
from kit.builders import NOW_UNIX, make_credential, make_grant, make_realm, node_keys, signing_key
from kit.control import boot_id

from conflux.control.chains import Chains, digest_of
from conflux.control.lan.acquaintances import AGE_S_MAX, COUNT_MAX, Acquaintance, Acquaintances
from conflux.control.lan.frame import FrameType
from conflux.control.lan.handshake import Ourselves, Peer, TwinError
from conflux.control.lan.meeting import (
    FEATURES_OF_BUILD,
    Frame,
    FullHello,
    FullWelcome,
    HelloAgain,
    MeetingAcceptor,
    MeetingDialler,
    Want,
    WelcomeAgain,
)
from conflux.errors import RemoteProtocolError
from conflux.realm.credential import Chain
from conflux.realm.member import Member

CERTIFICATE = b"c" * 32
REALM = make_realm()
GRANT = make_grant(REALM, signing_key("issuer"))
Change = Callable[[Frame], Frame]


@functools.cache
def member_of(name: str) -> Member:
    """Return a member; a signature is another one every time, so its chain is made once."""
    credential = make_credential(REALM, name, issuer=signing_key("issuer"))
    return Member(node_keys(name), REALM.anchor, Chain(credential, GRANT))


class Board:
    """One node with what it keeps: chains, and whom it met."""

    def __init__(self, name: str, *, boot: int = 1) -> None:
        member = member_of(name)
        self.now = NOW_UNIX
        self.denied: set[bytes] = set()
        self.chains = Chains()
        self.met = Acquaintances(lambda: self.now)
        seed = name.encode().ljust(8, b".")
        self.us = Ourselves(member, boot_id(boot), seed, self._judge, self._admit)
        self.chains.grants.learn(member.chain)

    def _judge(self, chain: Chain) -> None:
        chain.verify(self.us.member.anchor, now_unix=self.now)

    def _admit(self, chain: Chain) -> None:
        if chain.credential.node_id in self.denied:
            raise RemoteProtocolError("revoked")

    def acceptor(self, certificate: bytes = CERTIFICATE) -> MeetingAcceptor:
        return MeetingAcceptor(self.us, certificate, os.urandom, self.chains, self.met)

    def dialler(self, met: Acquaintance | None = None, certificate: bytes = CERTIFICATE) -> MeetingDialler:
        return MeetingDialler(self.us, certificate, os.urandom, self.chains, self.met, met)

    def knows(self, other: Board) -> Acquaintance | None:
        return self.met.announced_as(other.us.instance)


def run(dialler: MeetingDialler, acceptor: MeetingAcceptor, change: Change = lambda frame: frame) -> list[Frame]:
    """Carry frames between the ends until nothing is left to say; return those that were sent, greeting and all."""
    waiting = [(dialler, acceptor, (FrameType.GREETING, acceptor.greeting))]
    said: list[Frame] = []
    while waiting:
        end, other, frame = waiting.pop(0)
        kind, body = change(frame)
        said.append((kind, body))
        assert kind in end.expects, f"{kind.name} is not expected"
        waiting += [(other, end, answer) for answer in end.take_untrusted(kind, body)]
    return said


def kinds(said: list[Frame]) -> list[str]:
    return [kind.name for kind, _ in said]


def met() -> tuple[Board, Board]:
    """Two boards that met, bob having dialled alice."""
    alice, bob = Board("alice"), Board("bob")
    run(bob.dialler(), alice.acceptor())
    return alice, bob


def test_strangers_ask_for_each_others_chain_once_and_without_the_grant_that_both_have() -> None:
    alice, bob = Board("alice"), Board("bob")
    dialler, acceptor = bob.dialler(), alice.acceptor()
    said = run(dialler, acceptor)
    assert kinds(said) == [
        "GREETING", "HELLO", "CHAIN_ASK", "CHAIN", "WELCOME", "CHAIN_ASK", "CHAIN", "CHAIN_ASK",
    ]  # fmt: skip
    assert (acceptor.peer and acceptor.peer.name, dialler.peer and dialler.peer.name) == ("bob", "alice")
    assert dialler.peer is not None
    assert dialler.peer.instance == alice.us.instance
    assert dialler.peer.features == frozenset(FEATURES_OF_BUILD)
    assert dialler.peer.knows == digest_of(bob.us.member.chain)
    assert all(len(body) < 6200 for kind, body in said if kind is FrameType.CHAIN)
    assert sum(len(body) for _, body in said) < 21_500


def test_a_restarted_board_whose_chain_is_known_sends_none() -> None:
    alice, bob = met()
    again = Board("bob", boot=2)
    again.chains = bob.chains
    said = run(again.dialler(), alice.acceptor())
    assert kinds(said) == ["GREETING", "HELLO", "WELCOME", "CHAIN_ASK"]
    assert sum(len(body) for _, body in said) < 9_600


def test_a_board_without_the_grant_gets_the_whole_chain() -> None:
    alice, bob = Board("alice"), Board("bob")
    alice.chains = Chains()
    dialler, acceptor = bob.dialler(), alice.acceptor()
    said = run(dialler, acceptor)
    assert kinds(said)[:6] == ["GREETING", "HELLO", "CHAIN_ASK", "CHAIN", "CHAIN_ASK", "CHAIN"]
    assert acceptor.peer is not None


@pytest.mark.parametrize("turned", [False, True])
def test_boards_that_met_say_a_few_hundred_bytes_whichever_dials(turned: bool) -> None:
    alice, bob = met()
    first, second = (alice, bob) if turned else (bob, alice)
    dialler, acceptor = first.dialler(first.knows(second)), second.acceptor()
    said = run(dialler, acceptor)
    assert kinds(said) == ["GREETING", "HELLO_AGAIN", "WELCOME_AGAIN"]
    assert sum(len(body) for _, body in said) < 160
    assert dialler.peer is not None
    assert acceptor.peer is not None
    assert (dialler.peer.node, acceptor.peer.node) == (second.us.member.node_id, first.us.member.node_id)
    assert dialler.peer.session == acceptor.peer.session
    assert dialler.peer.features == frozenset(FEATURES_OF_BUILD)
    assert kinds(run(first.dialler(first.knows(second)), second.acceptor())) == kinds(said), "and once more"


def test_who_was_forgotten_is_asked_for_a_whole_hello_on_the_same_connection() -> None:
    alice, bob = met()
    alice.met.clear()
    dialler, acceptor = bob.dialler(bob.knows(alice)), alice.acceptor()
    assert kinds(run(dialler, acceptor)) == [
        "GREETING", "HELLO_AGAIN", "HELLO_ASK", "HELLO", "WELCOME", "CHAIN_ASK",
    ]  # fmt: skip
    assert acceptor.peer is not None
    assert dialler.peer is not None
    assert kinds(run(bob.dialler(bob.knows(alice)), alice.acceptor()))[-1] == "WELCOME_AGAIN"


@pytest.mark.parametrize("end", ["age", "credential"])
def test_what_both_keep_ends_after_a_day_and_with_either_credential(end: str) -> None:
    alice, bob = met()
    held = bob.knows(alice)
    assert held is not None
    assert held.until == NOW_UNIX + AGE_S_MAX
    alice.now = NOW_UNIX + AGE_S_MAX
    assert kinds(run(bob.dialler(held), alice.acceptor()))[2] == "HELLO_ASK"
    soon = held.peer._replace(not_after=NOW_UNIX + 5)
    for peer, ours in ((soon, NOW_UNIX + 9), (held.peer, NOW_UNIX + 5)):
        kept = bob.met.remember(peer, held.chain, id_=b"i" * 8, key=bytes(32), ours=held.ours, ours_not_after=ours)
        assert kept.until == NOW_UNIX + 5


def test_a_denied_node_is_let_in_by_neither_end_although_it_was_met() -> None:
    alice, bob = met()
    node = bob.us.member.node_id
    alice.denied.add(node)
    acceptor = alice.acceptor()
    with pytest.raises(RemoteProtocolError, match="revoked"):
        run(bob.dialler(bob.knows(alice)), acceptor)
    assert acceptor.their_chain == bob.us.member.chain, "to be told why"
    with pytest.raises(RemoteProtocolError, match="revoked"):
        run(alice.dialler(alice.knows(bob)), bob.acceptor())
    alice.met.forget(frozenset((node,)))
    assert alice.knows(bob) is None


def test_who_was_issued_by_a_denied_issuer_is_forgotten() -> None:
    alice, bob = met()
    alice.met.forget(frozenset((bob.us.member.chain.credential.issuer,)))
    assert len(alice.met) == 0


def test_a_later_life_or_another_chain_of_ours_is_no_acquaintance() -> None:
    alice, bob = met()
    held = bob.knows(alice)
    assert held is not None
    later = Board("alice", boot=2)
    later.chains = alice.chains
    assert kinds(run(bob.dialler(held), later.acceptor()))[2] == "HELLO_ASK"
    assert kinds(run(bob.dialler(held._replace(ours=bytes(32))), alice.acceptor()))[1] == "HELLO"


def test_a_mac_counts_on_its_own_connection_in_its_own_direction_and_once() -> None:
    alice, bob = met()
    recorded: list[Frame] = []
    recorded += run(bob.dialler(bob.knows(alice)), alice.acceptor())
    again = next(frame for frame in recorded if frame[0] is FrameType.HELLO_AGAIN)
    welcome = next(frame for frame in recorded if frame[0] is FrameType.WELCOME_AGAIN)
    for acceptor in (alice.acceptor(), alice.acceptor(b"m" * 32), bob.acceptor()):  # replayed, relayed, reflected
        assert acceptor.take_untrusted(*again) == [(FrameType.HELLO_ASK, b"")]
        assert acceptor.peer is None
    dialler = bob.dialler(bob.knows(alice))
    dialler.take_untrusted(FrameType.GREETING, alice.acceptor().greeting)
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        dialler.take_untrusted(*welcome)
    assert dialler.peer is None


def test_a_man_in_the_middle_has_another_certificate() -> None:
    alice, bob = met()
    acceptor = alice.acceptor()
    dialler = bob.dialler(bob.knows(alice), b"m" * 32)
    (hello,) = dialler.take_untrusted(FrameType.GREETING, acceptor.greeting)
    assert acceptor.take_untrusted(*hello) == [(FrameType.HELLO_ASK, b"")]
    (hello,) = dialler.take_untrusted(FrameType.HELLO_ASK, b"")
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        acceptor.take_untrusted(*hello)


def test_hello_again_sent_back_as_a_welcome_is_refused() -> None:
    alice, bob = met()
    dialler = bob.dialler(bob.knows(alice))
    (hello,) = dialler.take_untrusted(FrameType.GREETING, alice.acceptor().greeting)
    mirror = WelcomeAgain(HelloAgain.decode_untrusted(hello[1]).mac).encode()
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        dialler.take_untrusted(FrameType.WELCOME_AGAIN, mirror)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(FullHello)])
def test_every_changed_field_of_hello_is_refused(field: str) -> None:
    alice, _ = met()
    other = Board("carol").us.member.chain
    alice.chains.learn(other)

    def change(frame: Frame) -> Frame:
        if frame[0] is not FrameType.HELLO:
            return frame
        hello = FullHello.decode_untrusted(frame[1])
        value = {"features": ("other",), "chain_digest": digest_of(other)}.get(field, bytes(len(getattr(hello, field))))
        return frame[0], dataclasses.replace(hello, **{field: value}).encode()

    acceptor = alice.acceptor()
    with pytest.raises(RemoteProtocolError, match=r"bad-signature|foreign-realm"):
        run(Board("bob", boot=2).dialler(), acceptor, change)
    assert acceptor.peer is None


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(FullWelcome)])
def test_every_changed_field_of_welcome_is_refused(field: str) -> None:
    alice, bob = met()
    other = Board("carol").us.member.chain
    bob.chains.learn(other)

    def change(frame: Frame) -> Frame:
        if frame[0] is not FrameType.WELCOME:
            return frame
        said = FullWelcome.decode_untrusted(frame[1])
        value = {"features": ("other",), "chain_digest": digest_of(other)}.get(field, bytes(len(getattr(said, field))))
        return frame[0], dataclasses.replace(said, **{field: value}).encode()

    dialler = bob.dialler()
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        run(dialler, alice.acceptor(), change)
    assert dialler.peer is None


def test_another_chain_than_the_one_that_was_said_is_refused() -> None:
    alice, bob = Board("alice"), Board("bob")
    other = Board("carol").us.member.chain.encode()
    with pytest.raises(RemoteProtocolError, match="malformed"):
        run(bob.dialler(), alice.acceptor(), lambda frame: (frame[0], other) if frame[0] is FrameType.CHAIN else frame)
    assert len(alice.chains) == 0


def test_a_chain_is_given_twice_at_most_and_asked_for_twice_at_most() -> None:
    alice, bob = Board("alice"), Board("bob")
    dialler = bob.dialler()
    dialler.take_untrusted(FrameType.GREETING, alice.acceptor().greeting)
    for want in (1, 2):
        assert dialler.take_untrusted(FrameType.CHAIN_ASK, bytes((want,)))[0][0] is FrameType.CHAIN
    for body in (b"\2", b"\1", b"\0", b"\3", b"", b"\1\1"):
        with pytest.raises(RemoteProtocolError, match="malformed"):
            dialler.take_untrusted(FrameType.CHAIN_ASK, body)
    alice.chains = Chains()
    acceptor = alice.acceptor()
    dialler = bob.dialler()
    (hello,) = dialler.take_untrusted(FrameType.GREETING, acceptor.greeting)
    assert acceptor.take_untrusted(*hello) == [(FrameType.CHAIN_ASK, b"\1")]
    short = bob.dialler()._give_chain(Want.SHORT)[1]
    assert acceptor.take_untrusted(FrameType.CHAIN, short) == [(FrameType.CHAIN_ASK, b"\2")]
    with pytest.raises(RemoteProtocolError, match="malformed"):
        acceptor.take_untrusted(FrameType.CHAIN, short)


def test_both_ends_of_a_twin_learn_of_it_and_keep_nothing_of_each_other() -> None:
    one, two = Board("alice"), Board("alice", boot=2)
    acceptor, dialler = one.acceptor(), two.dialler()
    with pytest.raises(TwinError):
        run(dialler, acceptor)
    assert acceptor.twin is not None
    assert acceptor.peer is None
    assert (len(one.met), len(two.met)) == (0, 0)


def test_own_life_is_refused() -> None:
    alice = Board("alice")
    with pytest.raises(RemoteProtocolError, match="self"):
        run(alice.dialler(), alice.acceptor())


def test_acquaintances_are_bounded_and_one_of_each_node() -> None:
    alice, bob = met()
    held = bob.knows(alice)
    assert held is not None
    for number in range(COUNT_MAX + 3):
        peer = Peer(*held.peer)._replace(node=number.to_bytes(16, "big"), instance=number.to_bytes(8, "big"))
        bob.met.remember(peer, held.chain, id_=number.to_bytes(8, "big"), key=bytes(32), ours=b"", ours_not_after=2**40)
    assert len(bob.met) == COUNT_MAX
    assert bob.knows(alice) is None
    assert bob.met.find(bytes(8)) is None
    before = bob.met.find((9).to_bytes(8, "big"))
    assert before is not None
    bob.met.remember(before.peer, before.chain, id_=b"new id..", key=bytes(32), ours=b"", ours_not_after=2**40)
    assert bob.met.find((9).to_bytes(8, "big")) is None
    assert len(bob.met) == COUNT_MAX


def test_a_node_that_is_denied_while_it_keeps_us_waiting_is_let_in_by_neither_end() -> None:
    """It says the last frame of a handshake after the list has come."""
    alice, bob = Board("alice"), Board("bob")
    bob.chains.learn(alice.us.member.chain)
    alice.chains.learn(bob.us.member.chain)
    dialler, acceptor = bob.dialler(), alice.acceptor()
    (hello,) = dialler.take_untrusted(FrameType.GREETING, acceptor.greeting)
    (welcome,) = acceptor.take_untrusted(*hello)
    (last,) = dialler.take_untrusted(*welcome)
    alice.denied.add(bob.us.member.node_id)
    with pytest.raises(RemoteProtocolError, match="revoked"):
        acceptor.take_untrusted(*last)
    assert acceptor.peer is None
    assert len(alice.met) == 0


def test_a_node_that_is_denied_before_it_says_welcome_again_is_not_let_in() -> None:
    alice, bob = met()
    dialler, acceptor = bob.dialler(bob.knows(alice)), alice.acceptor()
    (hello,) = dialler.take_untrusted(FrameType.GREETING, acceptor.greeting)
    (welcome,) = acceptor.take_untrusted(*hello)
    bob.denied.add(alice.us.member.node_id)
    with pytest.raises(RemoteProtocolError, match="revoked"):
        dialler.take_untrusted(*welcome)
    assert dialler.peer is None
