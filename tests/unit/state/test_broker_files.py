"""The account signing key of an issuer: kept, never overwritten, and minting from then on."""

from __future__ import annotations

import dataclasses

import pytest
from kit.builders import NOW_UNIX

from conflux.crypto.nkey import KeyPair, Kind
from conflux.errors import StateError
from conflux.ids import RealmId
from conflux.realm.broker.jwt import UserJwt
from conflux.realm.broker.users import Signer
from conflux.realm.identity import NodeKeys
from conflux.realm.join import OfflineRequest
from conflux.state.broker_files import BROKER, BROKER_KEY, BrokerKeyFile, load_signer, save_signer
from conflux.state.directory import StateDir
from conflux.state.founding import found_realm, issuer_of

REALM = RealmId(b"r" * 16)
SIGNER = Signer(b"a" * 32, KeyPair.from_seed_bytes(Kind.ACCOUNT, b"s" * 32))


@pytest.fixture
def state(tmp_path):
    return StateDir.open(tmp_path / "state", create=True)


def test_what_signs_users_is_kept(state):
    assert load_signer(state, REALM) is None
    save_signer(state, REALM, SIGNER)
    save_signer(state, REALM, SIGNER)  # again, as the command does that is repeated
    found = load_signer(state, REALM)
    assert (found.account, found.key.public) == (SIGNER.account, SIGNER.key.public)
    assert (state.path / BROKER_KEY).stat().st_mode & 0o777 == 0o600


def test_a_key_of_another_broker_is_not_overwritten(state):
    save_signer(state, REALM, SIGNER)
    other = dataclasses.replace(SIGNER, key=KeyPair.from_seed_bytes(Kind.ACCOUNT, b"t" * 32))
    with pytest.raises(StateError, match="the key of another broker"):
        save_signer(state, REALM, other)
    assert load_signer(state, REALM).key.public == SIGNER.key.public


def test_the_account_of_another_realm_is_refused(state):
    save_signer(state, REALM, SIGNER)
    with pytest.raises(StateError, match="of another realm"):
        load_signer(state, RealmId(b"x" * 16))


def test_half_of_the_files_signs_nothing(state):
    save_signer(state, REALM, SIGNER)
    state.remove(BROKER)
    assert load_signer(state, REALM) is None


def test_the_seed_is_not_in_the_repr():
    assert SIGNER.key.seed_bytes.hex() not in repr(BrokerKeyFile(SIGNER.key.seed_bytes))
    assert repr(SIGNER.key.seed_bytes) not in repr(BrokerKeyFile(SIGNER.key.seed_bytes))


def test_credentials_carry_a_user_jwt_from_then_on(state):
    member = found_realm(state, "home", "alpha", now_unix=NOW_UNIX, entropy=lambda size: b"e" * size)
    assert member.chain.credential.nats_jwt == ""
    save_signer(state, member.realm_id, SIGNER)
    issuer = issuer_of(state, member)
    renewed = issuer.renew(member.chain, now_unix=NOW_UNIX + 5).credential
    told = UserJwt.decode_untrusted(renewed.user_jwt)
    assert (told.user, told.account) == (renewed.node_public[:32], SIGNER.account)
    assert (told.issued_at, told.expires_at) == (renewed.not_before, renewed.not_after)
    assert "cx.join.*" in told.permissions.subscribe  # the node that made the realm issues
    joined = issuer.admit(OfflineRequest.build(NodeKeys.generate(), "beta", nonce=bytes(32)), now_unix=NOW_UNIX)
    assert "cx.join.*" not in UserJwt.decode_untrusted(joined.chain.credential.user_jwt).permissions.subscribe
