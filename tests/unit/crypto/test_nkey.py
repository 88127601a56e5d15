"""Keys as words: what is refused, and what the node's key signs for a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import signing_key

from conflux.crypto import nkey
from conflux.crypto.nkey import KeyPair, Kind
from conflux.crypto.sign import context
from conflux.errors import AuthError, LocalProtocolError, RemoteProtocolError

KEY = KeyPair.from_seed_bytes(Kind.USER, bytes(range(32)))


@given(st.sampled_from(Kind), st.binary(min_size=32, max_size=32))
def test_a_key_and_its_word_are_one(kind, data):
    word = nkey.encode(kind, data)
    assert (len(word), word[0]) == (nkey.PUBLIC_CHARS, kind.name[0])
    assert nkey.decode_untrusted(kind, word) == data
    key = KeyPair.from_seed_bytes(kind, data)
    assert key.seed[:2] == "S" + kind.name[0]
    assert KeyPair.from_seed_untrusted(kind, key.seed).public == key.public
    assert key.seed_bytes == data


@given(st.text(max_size=80) | st.from_regex(r"[A-Z2-7]{56}|[A-Z2-7]{58}", fullmatch=True))
def test_any_word_is_a_key_or_refused(word):
    for kind in Kind:
        try:
            data = nkey.decode_untrusted(kind, word)
        except RemoteProtocolError:
            continue
        assert nkey.encode(kind, data) == word


@given(st.text(max_size=80) | st.from_regex(r"S[A-Z2-7]{57}", fullmatch=True))
def test_any_word_is_a_seed_or_refused(word):
    for kind in Kind:
        try:
            key = KeyPair.from_seed_untrusted(kind, word)
        except RemoteProtocolError:
            continue
        assert key.seed == word


def test_every_mistyped_character_is_noticed():
    for word, decode in (
        (KEY.word, nkey.decode_untrusted),
        (KEY.seed, KeyPair.from_seed_untrusted),
    ):
        for index in range(len(word)):
            wrong = word[:index] + ("A" if word[index] != "A" else "B") + word[index + 1 :]
            with pytest.raises(RemoteProtocolError, match="malformed"):
                decode(Kind.USER, wrong)


def test_a_key_of_another_kind_is_refused():
    with pytest.raises(RemoteProtocolError, match="no account key"):
        nkey.decode_untrusted(Kind.ACCOUNT, KEY.word)
    with pytest.raises(RemoteProtocolError, match="no seed of an account key"):
        KeyPair.from_seed_untrusted(Kind.ACCOUNT, KEY.seed)
    with pytest.raises(RemoteProtocolError):
        nkey.decode_untrusted(Kind.USER, KEY.word.lower())


def test_sizes_of_ours_are_checked():
    with pytest.raises(LocalProtocolError):
        nkey.encode(Kind.USER, bytes(31))
    with pytest.raises(LocalProtocolError):
        KeyPair.from_seed_bytes(Kind.USER, bytes(64))


def test_a_signature_verifies_for_its_message_and_key_alone():
    signature = KEY.sign(b"hello")
    nkey.verify(KEY.public, b"hello", signature)
    for public, message, signed in (
        (KEY.public, b"hallo", signature),
        (KeyPair.generate(Kind.USER).public, b"hello", signature),
        (KEY.public, b"hello", signature[:-1]),
        (b"short", b"hello", signature),
    ):
        with pytest.raises(AuthError):
            nkey.verify(public, message, signed)


def test_a_seed_is_not_in_its_repr():
    assert KEY.seed not in repr(KEY)
    assert KEY.word in repr(KEY)


@pytest.mark.parametrize("nonce", [b"a" * 11, b"FqsUxRrTtqC8gQw", b"_-" * 32])
def test_the_node_signs_the_challenge_of_a_server(nonce):
    key = signing_key("alpha")
    nkey.verify(key.public.encode()[:32], nonce, nkey.sign_nonce(key, nonce))


@pytest.mark.parametrize(
    "nonce",
    [
        b"",
        b"a" * 10,
        b"a" * 65,
        b"a" * 14 + b"=",
        b"a" * 14 + b"\n",
        b"a" * 14 + b"/",
        b"a" * 14 + b"\0",
        b"a" * 14 + b".",
        "é".encode() * 8,
        context("control", b"r" * 16) + b"message",
    ],
)
def test_the_node_signs_nothing_else_for_a_server(nonce):
    with pytest.raises(RemoteProtocolError, match="nonce"):
        nkey.sign_nonce(signing_key("alpha"), nonce)
