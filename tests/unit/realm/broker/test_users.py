"""Which user may do what, and how a joiner comes by its JWT."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import NOW_UNIX, make_credential, make_member, make_realm, node_keys

from conflux.control.envelope import ENVELOPE_BYTES_MAX
from conflux.crypto.nkey import KeyPair, Kind
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.realm.broker import subjects, users
from conflux.realm.broker.jwt import LEAF_NODE, STANDARD, UserJwt
from conflux.realm.broker.users import LATE_S, JoinPass, Signer, late_jwt_of, renewal_id
from conflux.realm.credential import BRIDGE, ISSUER, RELAY, Credential

ACCOUNT = KeyPair.from_seed_bytes(Kind.ACCOUNT, b"a" * 32)
SIGNER = Signer(ACCOUNT.public, KeyPair.from_seed_bytes(Kind.ACCOUNT, b"s" * 32))
PUBLIC = node_keys("alpha").public.encode()
ME = PUBLIC[:32]
WORD = subjects.messages(ME)[5:-2]
ADDRESSES = (IPv6Address("fd00::1"), IPv4Address("100.64.0.7"))


def member(*capabilities: str, name: str = "alpha") -> UserJwt:
    text = SIGNER.member_jwt(PUBLIC, name, ADDRESSES, capabilities, issued_at=NOW_UNIX, expires_at=NOW_UNIX + 60)
    return UserJwt.decode_untrusted(text)


def test_a_member_is_confined_to_its_own():
    told = member(RELAY)
    assert (told.user, told.account, told.issued_at, told.expires_at) == (ME, ACCOUNT.public, NOW_UNIX, NOW_UNIX + 60)
    assert told.permissions.publish == (f"cx.p.*.{WORD}", f"cx.w.*.{WORD}", f"cx.u.*.{WORD}.>")
    buckets = subjects.buckets_of(node_keys("alpha").node_id, "alpha", ADDRESSES, (RELAY,))
    own = tuple(f"cx.w.{word}.*" for bucket in buckets for word in (f"{bucket}", f"r{bucket}"))
    assert told.permissions.subscribe == (f"cx.u.{WORD}.>", "cx.p.*.*", "cx.auth.>", *own)
    assert (told.subscriptions_max, told.connects_as) == (64, STANDARD)


def test_an_issuer_may_do_what_joining_needs_besides():
    plain, issuer = member().permissions, member(ISSUER).permissions
    assert set(issuer.publish) - set(plain.publish) == {"cx.joined.*", "cx.auth.>"}
    assert set(issuer.subscribe) - set(plain.subscribe) == {"cx.join.*"}


def test_a_bridge_hears_every_question_and_says_nothing_for_others():
    plain, bridge = member().permissions, member(BRIDGE)
    assert bridge.permissions.publish == plain.publish
    assert "cx.w.*.*" in bridge.permissions.subscribe
    assert bridge.subscriptions_max == 1024


def test_the_largest_envelope_fits():
    assert member().payload_bytes_max >= ENVELOPE_BYTES_MAX + 1024


def test_every_member_fits_its_credential():
    text = SIGNER.member_jwt(PUBLIC, "a" * 63, ADDRESSES, (ISSUER, BRIDGE), issued_at=NOW_UNIX, expires_at=2**40)
    credential = dataclasses.replace(make_member(make_realm(), "alpha").chain.credential, nats_jwt=text)
    assert type(credential).decode_untrusted(credential.encode()).nats_jwt == text


def test_a_joiner_may_ask_and_hear_the_answer_and_nothing_else():
    told = UserJwt.decode_untrusted(pass_().rebuild(b"invite78", b"s" * 16)[0])
    assert told.permissions == ((f"cx.join.{b'invite78'.hex()}",), (f"cx.joined.{b'invite78'.hex()}",))
    assert told.subscriptions_max == 4


def pass_(invite: bytes = b"invite78", secret: bytes = b"s" * 16) -> JoinPass:
    return SIGNER.join_pass(invite, secret, issued_at=NOW_UNIX, expires_at=NOW_UNIX + 3600)


@given(st.binary(min_size=8, max_size=8), st.binary(min_size=16, max_size=16), st.integers(0, 2**40))
def test_a_joiner_rebuilds_its_jwt_byte_for_byte(invite, secret, issued_at):
    made = SIGNER.join_pass(invite, secret, issued_at=issued_at, expires_at=2**40)
    text, key = JoinPass.decode_untrusted(made.encode()).rebuild(invite, secret)
    told = UserJwt.decode_untrusted(text)
    assert told.encode(SIGNER.key) == text
    assert (told.user, key.kind) == (key.public, Kind.USER)
    assert len(made.encode()) <= 154  # a token carries it


@pytest.mark.parametrize(
    ("made", "invite", "secret"),
    [
        (pass_(), b"invite79", b"s" * 16),
        (pass_(), b"invite78", b"t" * 16),
        (dataclasses.replace(pass_(), expires_at=NOW_UNIX + 3601), b"invite78", b"s" * 16),
        (dataclasses.replace(pass_(), account=b"x" * 32), b"invite78", b"s" * 16),
        (dataclasses.replace(pass_(), signer=b"x" * 32), b"invite78", b"s" * 16),
        (dataclasses.replace(pass_(), signature=bytes(64)), b"invite78", b"s" * 16),
    ],
)
def test_a_pass_of_another_invitation_is_refused(made, invite, secret):
    with pytest.raises(RemoteProtocolError, match="auth"):
        made.rebuild(invite, secret)


def test_the_key_of_a_joiner_follows_from_the_secret_alone_for_its_invitation():
    assert users.join_key(b"invite78", b"s" * 16).public == users.join_key(b"invite78", b"s" * 16).public
    assert users.join_key(b"invite79", b"s" * 16).public != users.join_key(b"invite78", b"s" * 16).public


def test_the_server_of_a_site_passes_on_everything_of_the_realm_as_a_leaf_alone():
    told = UserJwt.decode_untrusted(SIGNER.leaf_jwt(b"l" * 32, issued_at=NOW_UNIX))
    assert (told.permissions, told.connects_as, told.expires_at) == ((("cx.>",), ("cx.>",)), LEAF_NODE, None)


def test_only_the_key_of_an_account_signs_users():
    with pytest.raises(LocalProtocolError):
        Signer(ACCOUNT.public, KeyPair.from_seed_bytes(Kind.USER, b"s" * 32))


# ── late renewals ─────────────────────────────────────────────────────────────────────────────────────────────────────


def credential(name: str = "bob") -> Credential:
    return make_credential(make_realm(), name)


def test_a_credential_admits_its_node_to_ask_for_a_renewal_after_its_end_and_to_nothing_else():
    plain = credential()
    admission = SIGNER.mint(plain)
    member = UserJwt.decode_untrusted(admission.partition(" ")[0])
    late = UserJwt.decode_untrusted(late_jwt_of(admission) or "")
    assert member.expires_at == plain.not_after
    assert late.expires_at == plain.not_after + LATE_S
    assert (late.user, late.account, late.issued_at) == (member.user, member.account, member.issued_at)
    own = renewal_id(plain.node_public[:32]).hex()
    assert late.permissions == ((f"cx.join.{own}",), (f"cx.joined.{own}",))
    assert late.subscriptions_max == 4


def test_the_jwt_of_a_credential_is_read_without_the_pass():
    plain = credential()
    admission = SIGNER.mint(plain)
    assert dataclasses.replace(plain, nats_jwt=admission).user_jwt == admission.partition(" ")[0]
    assert plain.user_jwt == ""


def test_a_credential_of_before_there_was_a_pass_has_none():
    assert late_jwt_of("") is None
    assert late_jwt_of(SIGNER.mint(credential()).partition(" ")[0]) is None


@pytest.mark.parametrize("late", ["!", "AAAA", "x" * 300])
def test_a_damaged_pass_for_late_renewals_is_refused(late):
    with pytest.raises(RemoteProtocolError):
        late_jwt_of(f"{SIGNER.mint(credential()).partition(' ')[0]} {late}")


def test_the_pass_of_another_node_is_refused():
    own, others = (SIGNER.mint(credential(name)).partition(" ") for name in ("bob", "carol"))
    with pytest.raises(RemoteProtocolError):
        late_jwt_of(f"{own[0]} {others[2]}")


def test_every_admission_fits_its_credential():
    plain = make_credential(make_realm(), "a" * 63, capabilities=(ISSUER, RELAY))
    made = dataclasses.replace(plain, nats_jwt=SIGNER.mint(plain))
    assert type(made).decode_untrusted(made.encode()) == made
