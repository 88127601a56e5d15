"""Creating a realm: what is on disk afterwards, and after a crash in the middle."""

import random
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from kit.builders import NOW_UNIX, make_member, make_realm, node_keys

from conflux import record
from conflux.crypto.kdf import sha256
from conflux.errors import ConfigError, StateError
from conflux.realm.clock import RealmClock
from conflux.realm.invite import make_invite
from conflux.realm.join import Joiner
from conflux.realm.member import Member
from conflux.state import directory, founding
from conflux.state.directory import KeyFile, StateDir
from conflux.state.founding import first_block, found_realm, issuer_of
from conflux.state.issuer_files import IssuerFiles

ENTROPY = random.Random(5).randbytes
BINDING = b"B" * 32


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir.open(tmp_path / "state", create=True)


def found(state: StateDir, realm: str = "home", node: str = "hub", prefix: IPv4Network | None = None) -> Member:
    return found_realm(state, realm, node, now_unix=NOW_UNIX, entropy=ENTROPY, ipv4_prefix=prefix)


def test_founder_is_a_member_and_the_issuer(state):
    member = found(state)
    member.chain.verify(member.anchor, now_unix=NOW_UNIX)
    assert (member.name, member.anchor.name) == ("hub", "home")
    assert member.chain.credential.capabilities == ("issuer", "relay")
    assert member.chain.credential.issuer == member.node_id
    assert state.member().chain == member.chain
    assert issuer_of(state, member).issuer_id == member.node_id
    assert state.root_key().public.encode() == member.anchor.root_public


def test_founder_invites_and_another_node_joins_by_files_alone(state, tmp_path):
    hub = found(state)
    invite, token = make_invite(hub.anchor, hub.node_id, now_unix=NOW_UNIX, entropy=ENTROPY)
    IssuerFiles(state).save_invite(invite)
    other = StateDir.open(tmp_path / "other", create=True)
    side = Joiner(token, other.make_node_keys(), "leaf", entropy=ENTROPY)
    issuer = issuer_of(StateDir.open(state.path), hub)
    answer = issuer.join(side.request(BINDING), binding=BINDING, now_unix=NOW_UNIX)
    clock = RealmClock(other.floor_unix(), system=lambda: 0, save=other.save_floor)
    other.save_member(side.accept_untrusted(answer.encode(), clock))
    leaf = StateDir.open(other.path).member()
    assert (leaf.name, leaf.realm_id) == ("leaf", hub.realm_id)
    assert leaf.chain.credential.ipv4 in first_block(hub.anchor.ipv4_prefix)
    assert leaf.chain.credential.ipv4 != hub.chain.credential.ipv4
    assert other.floor_unix() == NOW_UNIX
    assert {entry.name for entry in IssuerFiles(state).issued()} == {"hub", "leaf"}


def test_root_key_can_be_put_away(state):
    hub = found(state)
    state.remove(directory.ROOT_KEY)
    chain = issuer_of(state, state.member()).renew(hub.chain, now_unix=NOW_UNIX + 1)
    chain.verify(hub.anchor, now_unix=NOW_UNIX + 1)


def test_directory_of_a_realm_founds_no_other(state):
    hub = found(state)
    with pytest.raises(StateError, match="belongs to realm home already"):
        found(state, "second")
    assert state.member().anchor == hub.anchor


@pytest.mark.parametrize("names", [("Bad Realm", "hub"), ("home", "Bad Node"), ("", "hub")])
def test_bad_name_leaves_nothing_behind(state, names):
    with pytest.raises(ConfigError, match="name"):
        found(state, *names)
    assert list(state.path.iterdir()) == []


def test_bad_prefix_leaves_nothing_behind(state):
    with pytest.raises(ConfigError, match="prefix"):
        found(state, prefix=IPv4Network("8.8.8.0/24"))
    assert list(state.path.iterdir()) == []


def test_prefix_can_be_chosen(state):
    member = found(state, prefix=IPv4Network("10.9.0.0/16"))
    assert member.anchor.ipv4_prefix == IPv4Network("10.9.0.0/16")
    assert member.chain.credential.ipv4 in IPv4Network("10.9.0.0/17")


@pytest.mark.parametrize("crash_at", range(6))
def test_founding_can_be_repeated_after_a_crash_anywhere(state, monkeypatch, crash_at):
    class Crash(Exception):
        pass

    writes = 0
    write = StateDir.atomic_write

    def crashing(self: StateDir, name: str, data: bytes, mode: int = 0o600) -> None:
        nonlocal writes
        if writes == crash_at:
            raise Crash
        writes += 1
        write(self, name, data, mode)

    monkeypatch.setattr(StateDir, "atomic_write", crashing)
    with pytest.raises(Crash):
        found(state, "first")
    monkeypatch.undo()
    assert state.member() is None
    root = state.root_key()
    member = found(state, "second")
    assert state.member().anchor.name == "second"
    assert root is None or root.public.encode() == member.anchor.root_public


def test_ordinary_member_issues_nothing(state):
    assert issuer_of(state, make_member(make_realm(), "alpha")) is None


def test_grant_for_other_keys_is_named(state):
    realm = make_realm()
    public = node_keys("beta").public.encode()
    prefix = realm.anchor.ipv4_prefix
    state.save_grant(founding.make_grant(realm.root, realm.anchor, public, prefix, now_unix=NOW_UNIX))
    with pytest.raises(StateError, match="another node's keys"):
        issuer_of(state, make_member(realm, "alpha"))
    assert issuer_of(state, make_member(make_realm("elsewhere"), "alpha")) is None


def test_keys_of_an_earlier_attempt_are_used(state):
    keys = node_keys("early")
    state.save_record(directory.NODE_KEY, KeyFile(keys.signing.seed))
    assert found(state).node_id == keys.node_id


def test_records_of_version_1_are_read(state):
    found(state)
    files = IssuerFiles(state)
    (entry,) = files.issued()
    old = [1, *entry._to_item()[1:9]]
    state.atomic_write("issued/old.node", _checked(record.encode(old)))
    read = next(each for each in files.issued() if not each.node_public)
    assert (read.name, read.ipv4, read.is_member, read.former) == (entry.name, entry.ipv4, True, ())
    invite, _ = make_invite(state.member().anchor, entry.node_id, now_unix=NOW_UNIX, entropy=ENTROPY)
    state.atomic_write(
        f"invites/{invite.invite_id.hex()}.invite", _checked(record.encode([1, *invite._to_item()[1:9]]))
    )
    kept = files.invite(invite.invite_id)
    assert (kept.secret, kept.made_at, kept.replaces) == (invite.secret, 0, b"")


def _checked(data: bytes) -> bytes:
    return data + sha256(data)[: directory.CHECK_BYTES]
