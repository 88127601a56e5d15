"""JWTs of operators, accounts and users: one spelling, strict bounds, and nothing unsigned is believed."""

from __future__ import annotations

import base64
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import NOW_UNIX

from conflux.crypto.nkey import KeyPair, Kind
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.realm.broker import jwt
from conflux.realm.broker.jwt import AccountJwt, OperatorJwt, Permissions, UserJwt

OPERATOR = KeyPair.from_seed_bytes(Kind.OPERATOR, b"o" * 32)
ACCOUNT = KeyPair.from_seed_bytes(Kind.ACCOUNT, b"a" * 32)
SIGNER = KeyPair.from_seed_bytes(Kind.ACCOUNT, b"s" * 32)
USER = KeyPair.from_seed_bytes(Kind.USER, b"u" * 32)

OPERATOR_JWT = OperatorJwt(OPERATOR.public, ACCOUNT.public, "home", NOW_UNIX)
ACCOUNT_JWT = AccountJwt(ACCOUNT.public, "home", NOW_UNIX, (SIGNER.public,), {USER.public: NOW_UNIX - 5}, 100, 0)
USER_JWT = UserJwt(
    USER.public, ACCOUNT.public, NOW_UNIX, NOW_UNIX + 60, Permissions(("cx.p.*.x",), ("cx.u.x.>",)), 64, 36864
)
TEXTS = {
    OperatorJwt: OPERATOR_JWT.encode(OPERATOR),
    AccountJwt: ACCOUNT_JWT.encode(OPERATOR),
    UserJwt: USER_JWT.encode(SIGNER),
}


def part(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def signed(claims: object, key: KeyPair = SIGNER, header: object = None) -> str:
    """Return a token of any claims, with a signature that verifies."""
    text = f"{part(header or {'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(claims)}"
    return f"{text}.{part(key.sign(text.encode()))}"


def claims_of(kind: type) -> dict:
    body = TEXTS[kind].split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


@pytest.mark.parametrize("told", [OPERATOR_JWT, ACCOUNT_JWT, USER_JWT], ids=lambda told: type(told).__name__)
def test_a_token_says_what_was_put_in(told):
    assert type(told).decode_untrusted(TEXTS[type(told)]) == told


@given(
    st.dictionaries(st.binary(min_size=32, max_size=32), st.integers(0, 2**40), max_size=20),
    st.lists(st.binary(min_size=32, max_size=32), max_size=5, unique=True),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
    st.integers(-1, 2**40),
)
def test_an_account_round_trips(revoked, keys, name, connections):
    told = AccountJwt(ACCOUNT.public, name, NOW_UNIX, tuple(keys), revoked, connections)
    text = told.encode(OPERATOR)
    found = AccountJwt.decode_untrusted(text)
    assert (found.revoked, set(found.signing_keys), found.name) == (revoked, set(keys), name)
    assert found.encode(OPERATOR) == text


@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=6),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=6),
    st.none() | st.integers(0, 2**40),
)
def test_a_user_round_trips(publish, subscribe, expires_at):
    permissions = Permissions(tuple(publish), tuple(subscribe))
    told = dataclasses.replace(USER_JWT, permissions=permissions, expires_at=expires_at)
    assert UserJwt.decode_untrusted(told.encode(SIGNER)) == told


@given(st.sampled_from(list(TEXTS)), st.data())
def test_an_altered_token_is_refused(kind, data):
    text = TEXTS[kind]
    index = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.sampled_from("ABab01_-.=/ é"))
    if text[index] != put:
        with pytest.raises(RemoteProtocolError):
            kind.decode_untrusted(text[:index] + put + text[index + 1 :])
    with pytest.raises(RemoteProtocolError):
        kind.decode_untrusted(text[:index])
    with pytest.raises(RemoteProtocolError):
        kind.decode_untrusted(text + put)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(list(TEXTS)), JSON, st.data())
def test_signed_claims_of_any_shape_are_read_or_refused(kind, value, data):
    claims = claims_of(kind)
    where = data.draw(st.sampled_from([claims, claims["nats"]]))
    where[data.draw(st.sampled_from(sorted(where)))] = value
    text = signed(claims, SIGNER if kind is UserJwt else OPERATOR)
    try:
        found = kind.decode_untrusted(text)
    except RemoteProtocolError:
        return
    assert found.encode(SIGNER if kind is UserJwt else OPERATOR) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "three parts"),
        ("a.b", "three parts"),
        ("a.b.c.d", "base64url"),
        (signed({"a": 1}, header={"typ": "JWT", "alg": "none"}), "header"),
        (signed({"a": 1}, header={"typ": "JWT", "alg": "ed25519-nkey", "kid": "x"}), "header"),
        (signed([]), "no JSON object"),
        (signed(b"\xff"), "no JSON"),
        (signed(b'{"a":1,"a":2}'), "stands twice"),
        (signed(b'{"a":1.5}'), "number 1.5"),
        (signed(b'{"a":NaN}'), "number NaN"),
        (signed(b"[" * 100000), "no JSON"),
        (signed({}), "missing"),
        (signed({**claims_of(UserJwt), "iat": True}), "dates"),
        (signed({**claims_of(UserJwt), "exp": -1}), "dates"),
        (signed({**claims_of(UserJwt), "nats": {"type": "user", "version": 1}}), "version 2"),
        (signed({**claims_of(UserJwt), "nats": {"type": "activation", "version": 2}}), "version 2"),
        (signed({**claims_of(UserJwt), "iss": USER.word}, USER), "no account key"),
        (signed({**claims_of(UserJwt), "name": "x"}), "in another way"),
        (signed(claims_of(UserJwt), OPERATOR), "auth"),
        ("x" * (jwt.JWT_CHARS_MAX + 1), "at most 262144"),
    ],
)
def test_what_is_no_user_is_told_apart(text, told):
    with pytest.raises(RemoteProtocolError, match=told):
        UserJwt.decode_untrusted(text)


def test_a_token_of_another_kind_is_refused():
    with pytest.raises(RemoteProtocolError, match="of an account, not of an user"):
        UserJwt.decode_untrusted(TEXTS[AccountJwt])


def test_an_operator_is_signed_by_itself():
    other = KeyPair.from_seed_bytes(Kind.OPERATOR, b"x" * 32)
    with pytest.raises(LocalProtocolError):
        OPERATOR_JWT.encode(other)
    claims = {**claims_of(OperatorJwt), "iss": other.word}
    with pytest.raises(RemoteProtocolError, match="another one signed"):
        OperatorJwt.decode_untrusted(signed(claims, other))


def test_a_user_without_a_subject_is_never_made():
    # A server takes an empty list of what is allowed for a permission to do everything.
    for permissions in (Permissions((), ("a",)), Permissions(("a",), ()), Permissions(("a",) * 65, ("a",))):
        with pytest.raises(LocalProtocolError, match="subjects"):
            dataclasses.replace(USER_JWT, permissions=permissions).encode(SIGNER)


def test_a_key_signs_what_it_is_for():
    with pytest.raises(LocalProtocolError):
        ACCOUNT_JWT.encode(ACCOUNT)
    with pytest.raises(LocalProtocolError):
        USER_JWT.encode(OPERATOR)


def test_bounds_of_an_account_are_kept():
    full = AccountJwt(ACCOUNT.public, "home", NOW_UNIX, (), {n.to_bytes(32, "big"): NOW_UNIX for n in range(2000)})
    assert len(full.encode(OPERATOR)) <= jwt.JWT_CHARS_MAX
    for wrong in (
        dataclasses.replace(full, revoked={n.to_bytes(32, "big"): NOW_UNIX for n in range(2001)}),
        dataclasses.replace(full, signing_keys=tuple(n.to_bytes(32, "big") for n in range(65))),
        dataclasses.replace(full, issued_at=-1),
    ):
        with pytest.raises(LocalProtocolError):
            wrong.encode(OPERATOR)


def test_a_user_is_put_together_from_its_signature():
    text = TEXTS[UserJwt]
    assert USER_JWT.assemble(SIGNER.public, jwt.signature_of(text)) == text
    with pytest.raises(RemoteProtocolError, match="auth"):
        dataclasses.replace(USER_JWT, issued_at=NOW_UNIX + 1).assemble(SIGNER.public, jwt.signature_of(text))


def test_a_jwt_that_does_not_fit_a_credential_is_not_made():
    with pytest.raises(LocalProtocolError, match="at most 2048"):
        dataclasses.replace(USER_JWT, permissions=Permissions(("a" * 2000,), ("b",))).encode(SIGNER)
