"""Subjects: each is read as what it was made of, and nothing else is read."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.broker import subjects
from conflux.realm.broker.subjects import Auth, Join, Message, Presence, Question
from conflux.realm.credential import RELAY

ME, YOU = b"m" * 32, b"y" * 32

KEYS = st.binary(min_size=32, max_size=32)
AREAS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)


@given(KEYS, KEYS, AREAS, st.integers(0, 4095), st.binary(min_size=1, max_size=32))
def test_a_subject_is_read_as_what_it_was_made_of(me, you, area, bucket, invite):
    made = [
        (subjects.presence(area, me), Presence(area, me)),
        (subjects.presence(subjects.EVERY_AREA, me), Presence("_", me)),
        (subjects.question(bucket, me), Question(bucket, me)),
        (subjects.question(bucket, me, again=True), Question(bucket, me, True)),
        (subjects.message(you, me), Message(you, me, "e")),
        (subjects.message(you, me, again=True), Message(you, me, "r")),
        (subjects.no_responders(me, you), Message(me, you, "nr")),
        (subjects.no_responders(me, you, again=True), Message(me, you, "nrr")),
        (subjects.join(invite), Join(invite, False)),
        (subjects.joined(invite), Join(invite, True)),
        (subjects.auth("lists"), Auth("lists")),
    ]
    for subject, meaning in made:
        assert subjects.parse_untrusted(subject) == meaning
        assert len(subject) <= subjects.SUBJECT_CHARS_MAX


ONE = subjects.presence("a", ME)[7:]
PIECES = st.sampled_from(
    (
        "cx",
        "p",
        "w",
        "u",
        "e",
        "nr",
        "r",
        "nrr",
        "r007",
        "r4095",
        "rr1",
        "_",
        "join",
        "joined",
        "auth",
        "main",
        "*",
        ">",
        "",
        "007",
        "4095",
        "4096",
        ONE,
        ONE.lower(),
    )
)


@given(st.text(max_size=200) | st.lists(PIECES, max_size=7).map(".".join))
def test_any_text_is_a_subject_of_ours_or_refused(text):
    try:
        meaning = subjects.parse_untrusted(text)
    except RemoteProtocolError:
        return
    match meaning:
        case Presence(area, sender):
            assert subjects.presence(area, sender) == text
        case Question(bucket, sender, again):
            assert subjects.question(bucket, sender, again=again) == text
        case Message(receiver, sender, ("e" | "r") as kind):
            assert subjects.message(receiver, sender, again=kind == "r") == text
        case Message(receiver, sender, ("nr" | "nrr") as kind):
            assert subjects.no_responders(receiver, sender, again=kind == "nrr") == text
        case Join(invite, is_answer):
            assert (subjects.joined if is_answer else subjects.join)(invite) == text
        case Auth(what):
            assert subjects.auth(what) == text
        case _:
            raise AssertionError(meaning)


@pytest.mark.parametrize(
    "text",
    [
        subjects.presence("main", ME) + ".x",
        subjects.presence("main", ME).replace("main", "Main"),
        subjects.question(7, ME).replace(".7.", ".07."),
        subjects.question(7, ME).replace(".7.", ".4096."),
        subjects.question(7, ME).replace(".7.", ".r07."),
        subjects.question(7, ME).replace(".7.", ".rr7."),
        subjects.question(7, ME).replace(".7.", ".r."),
        subjects.question(7, ME).replace(".7.", ".\u0667."),
        subjects.message(YOU, ME).replace("cx.u.U", "cx.u.A"),
        subjects.message(YOU, ME)[:-1] + "f",
        "cx.join.abc",
        "cx.join.AB",
        "cx.auth.>",
        "cx." + "a" * 400,
    ],
)
def test_what_is_nearly_a_subject_is_refused(text):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        subjects.parse_untrusted(text)


@pytest.mark.parametrize("area", ["", "*", ">", "a.b", "A", "-a", "a-", "a" * 33, "a b"])
def test_what_is_no_area_gets_no_subject(area):
    assert not subjects.is_area(area)
    for make in (lambda: subjects.presence(area, ME), lambda: subjects.presences(area)):
        with pytest.raises(LocalProtocolError):
            make()


def test_what_is_no_bucket_or_word_gets_no_subject():
    for make in (lambda: subjects.question(4096, ME), lambda: subjects.questions(-1), lambda: subjects.auth("a.b")):
        with pytest.raises(LocalProtocolError):
            make()


@given(st.binary(max_size=64))
def test_buckets_are_twelve_bits(target):
    assert 0 <= subjects.bucket_of(target) < 4096


def test_a_node_is_in_the_buckets_of_all_that_it_is_asked_for_by():
    node, name = NodeId(b"n" * 16), "kitchen"
    addresses = (IPv6Address("fd00::1"), IPv4Address("100.64.0.1"))
    wanted = {subjects.bucket_of(target) for target in (node, b"kitchen", *(a.packed for a in addresses))}
    assert subjects.buckets_of(node, name, addresses) == tuple(sorted(wanted))
    assert len(wanted) == 4


def test_a_node_that_may_relay_is_also_where_public_relays_are_asked_for():
    node = NodeId(b"n" * 16)
    plain = subjects.buckets_of(node, "kitchen", ())
    relay = subjects.buckets_of(node, "kitchen", (), (RELAY,))
    assert set(relay) - set(plain) == {subjects.bucket_of(b"public")}


def test_buckets_never_change():
    # Every node has to agree on them: SHA-256("conflux/1/bucket" | target), its first twelve bits.
    assert subjects.bucket_of(b"kitchen") == 0x93B
