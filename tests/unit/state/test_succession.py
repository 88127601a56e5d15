"""An issuer that lasts: days on which it was off, a board that died, and one that takes its place."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
from kit.builders import NOW_UNIX
from kit.founded import gate_in

from conflux.errors import ConfigError, StateError, UserError
from conflux.ids import format_node_id
from conflux.realm.backup import Backup
from conflux.realm.clock import RealmClock
from conflux.realm.invite import make_invite
from conflux.realm.issuer import Rights
from conflux.realm.join import OfflineRequest, Renewer, accept_offline_untrusted
from conflux.realm.member import Member
from conflux.state import grants
from conflux.state.directory import ROOT_KEY, StateDir
from conflux.state.founding import found_realm, issuer_of, make_grant
from conflux.state.issuer_files import IssuerFiles
from conflux.state.succession import make_backup, may_take_another_address, renew_self, restore_realm

pytestmark = pytest.mark.usefixtures("quick_scrypt")

ENTROPY = random.Random(6).randbytes
DAY_S = 86400
BINDING = b"B" * 32


@pytest.fixture
def gate(tmp_path: Path) -> StateDir:
    return gate_in(tmp_path / "gate")


def clock(now_unix: int) -> RealmClock:
    return RealmClock(0, system=lambda: now_unix, save=lambda date: None)


def let_in(gate: StateDir, name: str, *, now_unix: int = NOW_UNIX) -> StateDir:
    """Let a board in, by file."""
    state = StateDir.open(gate.path.with_name(name), create=True)
    keys = state.make_node_keys()
    request = OfflineRequest.build(keys, name, nonce=bytes(32))
    answer = issuer_of(gate, gate.member()).admit(request, now_unix=now_unix, rights=Rights(tags=("t",)))
    state.save_member(accept_offline_untrusted(answer.encode(), request, keys, clock(now_unix)))
    return state


def renew_at(issuing: StateDir, member: Member, now_unix: int) -> Member:
    """Have a member renewed by the issuer of a board, as over a connection."""
    asking = Renewer(member, entropy=ENTROPY)
    issuer = issuer_of(issuing, issuing.member())
    answer = issuer.renew_at(asking.request(BINDING), binding=BINDING, now_unix=now_unix, late_s=90 * DAY_S)
    return asking.accept_untrusted(answer.encode(), clock(now_unix))


def restore(gate: StateDir, state: StateDir, name: str = "porch", *, days: int = 1) -> Member:
    backup = make_backup(gate, gate.member(), now_unix=NOW_UNIX)
    data = backup.seal(None, entropy=ENTROPY)
    read = Backup.unseal_untrusted(data, lambda: pytest.fail("asked for a passphrase"))
    return restore_realm(state, read, name, now_unix=NOW_UNIX + days * DAY_S, entropy=ENTROPY)


# ── days ──


@pytest.mark.parametrize("days", [21, 35, 400])
def test_founder_renews_itself_at_its_start_whatever_the_date(gate, days):
    before, now_unix = gate.member(), NOW_UNIX + days * DAY_S
    after = renew_self(gate, before, now_unix=now_unix, entropy=ENTROPY)
    after.chain.verify(after.anchor, now_unix=now_unix)
    assert (after.name, after.addresses) == (before.name, before.addresses)
    assert gate.member().chain == after.chain


def test_founder_whose_grant_ended_is_granted_anew_where_the_root_key_is(gate):
    now_unix = NOW_UNIX + 6 * 365 * DAY_S
    root = gate.root_key()
    gate.remove(ROOT_KEY)
    assert renew_self(gate, gate.member(), now_unix=now_unix, entropy=ENTROPY).chain.not_after < now_unix
    gate.save_root_key(root)
    after = renew_self(gate, gate.member(), now_unix=now_unix, entropy=ENTROPY)
    after.chain.verify(after.anchor, now_unix=now_unix)


def test_who_does_not_issue_does_not_renew_itself(gate):
    kitchen = let_in(gate, "kitchen")
    member = kitchen.member()
    assert renew_self(kitchen, member, now_unix=NOW_UNIX + 35 * DAY_S, entropy=ENTROPY) is member


def test_founder_that_is_not_due_is_as_it_was(gate):
    member = gate.member()
    assert renew_self(gate, member, now_unix=NOW_UNIX + 19 * DAY_S, entropy=ENTROPY) is member


def test_second_issuer_whose_own_issuer_let_it_expire_takes_an_address_of_its_block(gate):
    shed = let_in(gate, "shed")
    member = shed.member()
    block = grants.free_block(member.anchor.ipv4_prefix, [gate.grant().ipv4_block])
    grant = make_grant(gate.root_key(), member.anchor, member.keys.public.encode(), block, now_unix=NOW_UNIX)
    shed.save_grant(grant)
    due = renew_self(shed, member, now_unix=NOW_UNIX + 21 * DAY_S, entropy=ENTROPY)
    assert due is member, "while its credential holds, its own issuer may renew it yet"
    now_unix = NOW_UNIX + 31 * DAY_S
    after = renew_self(shed, member, now_unix=now_unix, entropy=ENTROPY)
    after.chain.verify(after.anchor, now_unix=now_unix)
    assert after.name == "shed"
    assert after.addresses[1] in block
    assert after.chain.credential.tags == ("t",)


def test_another_issuer_is_asked_before_an_address_is_changed(gate):
    shed = let_in(gate, "shed")
    member, late = shed.member(), NOW_UNIX + 31 * DAY_S
    assert not may_take_another_address(shed, member, now_unix=late), "it does not issue"
    assert not may_take_another_address(gate, gate.member(), now_unix=late), "it is its own issuer"
    block = grants.free_block(member.anchor.ipv4_prefix, [gate.grant().ipv4_block])
    public = member.keys.public.encode()
    shed.save_grant(make_grant(gate.root_key(), member.anchor, public, block, now_unix=NOW_UNIX))
    assert may_take_another_address(shed, member, now_unix=late)
    assert not may_take_another_address(shed, member, now_unix=NOW_UNIX), "its credential holds"


# ── a founder that died ──


def test_fresh_board_becomes_the_founder_and_renews_all_members(gate):
    kitchen = let_in(gate, "kitchen").member()
    porch = StateDir.open(gate.path.with_name("porch"), create=True)
    founder = restore(gate, porch, days=35)
    now_unix = NOW_UNIX + 35 * DAY_S
    founder.chain.verify(founder.anchor, now_unix=now_unix)
    assert founder.chain.credential.capabilities == ("issuer", "relay")
    renewed = renew_at(porch, kitchen, now_unix)
    assert (renewed.name, renewed.addresses) == (kitchen.name, kitchen.addresses)
    assert renewed.chain.credential.tags == ("t",)
    assert {entry.name for entry in IssuerFiles(porch).issued()} == {"gate", "kitchen", "porch"}


def test_member_that_was_let_in_after_the_backup_is_renewed_too(gate):
    backup = make_backup(gate, gate.member(), now_unix=NOW_UNIX)
    late = let_in(gate, "late").member()
    porch = StateDir.open(gate.path.with_name("porch"), create=True)
    restore_realm(porch, backup, "porch", now_unix=NOW_UNIX + DAY_S, entropy=ENTROPY)
    assert renew_at(porch, late, NOW_UNIX + DAY_S).addresses == late.addresses


def test_new_founder_of_the_old_ones_name_takes_its_place(gate):
    old = gate.member()
    porch = StateDir.open(gate.path.with_name("porch"), create=True)
    founder = restore(gate, porch, "gate")
    assert (founder.name, founder.addresses[1]) == ("gate", old.addresses[1])
    ends = {entry.node_id: entry.end for entry in IssuerFiles(porch).issued()}
    assert ends == {old.node_id: "replaced", founder.node_id: ""}


def test_name_of_another_member_is_no_name_for_the_new_founder(gate):
    let_in(gate, "kitchen")
    porch = StateDir.open(gate.path.with_name("porch"), create=True)
    with pytest.raises(UserError, match="has this name"):
        restore(gate, porch, "kitchen")
    assert restore(gate, porch, "porch").name == "porch"


def test_member_that_becomes_the_founder_keeps_name_addresses_and_tags(gate):
    kitchen = let_in(gate, "kitchen")
    before = kitchen.member()
    after = restore(gate, kitchen, "other", days=35)
    assert (after.name, after.addresses) == (before.name, before.addresses)
    assert after.chain.credential.tags == ("t",)
    assert after.chain.credential.capabilities == ("issuer",)
    after.chain.verify(after.anchor, now_unix=NOW_UNIX + 36 * DAY_S)


def test_second_issuer_in_the_founders_place_has_both_blocks(gate):
    shed, kitchen = let_in(gate, "shed"), let_in(gate, "kitchen").member()
    member = shed.member()
    block = grants.free_block(member.anchor.ipv4_prefix, [gate.grant().ipv4_block])
    grant = make_grant(gate.root_key(), member.anchor, member.keys.public.encode(), block, now_unix=NOW_UNIX)
    shed.save_grant(grant)
    restore(gate, shed, days=35)
    now_unix = NOW_UNIX + 35 * DAY_S
    assert shed.member().addresses == member.addresses
    assert renew_at(shed, kitchen, now_unix).addresses == kitchen.addresses
    newcomer = OfflineRequest.build(
        StateDir.open(shed.path.with_name("n"), create=True).make_node_keys(), "n", nonce=bytes(32)
    )
    answer = issuer_of(shed, shed.member()).admit(newcomer, now_unix=now_unix)
    assert answer.chain.credential.ipv4 in block


def test_restoring_twice_changes_nothing_more(gate):
    porch = StateDir.open(gate.path.with_name("porch"), create=True)
    first = restore(gate, porch)
    second = restore(gate, porch, days=2)
    assert (second.addresses, porch.grant()) == (first.addresses, first.chain.grant)


@pytest.mark.parametrize("crash_at", range(8))
def test_restoring_can_be_repeated_after_a_crash_anywhere(gate, monkeypatch, crash_at):
    class Crash(Exception):
        pass

    kitchen = let_in(gate, "kitchen").member()
    porch, writes, write = StateDir.open(gate.path.with_name("porch"), create=True), 0, StateDir.atomic_write

    def crashing(self: StateDir, name: str, data: bytes, mode: int = 0o600) -> None:
        nonlocal writes
        if writes == crash_at:
            raise Crash
        writes += 1
        write(self, name, data, mode)

    monkeypatch.setattr(StateDir, "atomic_write", crashing)
    with pytest.raises(Crash):
        restore(gate, porch)
    monkeypatch.undo()
    assert restore(gate, porch).name == "porch"
    assert renew_at(porch, kitchen, NOW_UNIX + DAY_S).addresses == kitchen.addresses


def test_backup_needs_the_root_key_and_restoring_the_realms_own_directory(gate):
    backup = make_backup(gate, gate.member(), now_unix=NOW_UNIX)
    gate.remove(ROOT_KEY)
    with pytest.raises(StateError, match=r"root\.key: missing"):
        make_backup(gate, gate.member(), now_unix=NOW_UNIX)
    away = StateDir.open(gate.path.with_name("away"), create=True)
    found_realm(away, "away", "gate", now_unix=NOW_UNIX, entropy=ENTROPY)
    with pytest.raises(StateError, match="belongs to realm away already"):
        restore_realm(away, backup, "porch", now_unix=NOW_UNIX, entropy=ENTROPY)


# ── the file ──


def test_backup_opens_by_its_passphrase_alone(gate):
    backup = make_backup(gate, gate.member(), now_unix=NOW_UNIX)
    data = backup.seal("correct horse", entropy=ENTROPY)
    assert backup.root_seed not in data
    assert Backup.unseal_untrusted(data, lambda: "correct horse") == backup
    with pytest.raises(ConfigError, match="passphrase is wrong"):
        Backup.unseal_untrusted(data, lambda: "correct hors")


@pytest.mark.parametrize("cut", [0, 15, 40, -1])
def test_damaged_backup_is_refused(gate, cut):
    for word in (None, "correct horse"):
        data = make_backup(gate, gate.member(), now_unix=NOW_UNIX).seal(word, entropy=ENTROPY)
        with pytest.raises(ConfigError):
            Backup.unseal_untrusted(data[:cut], lambda: "correct horse")


def test_backup_whose_key_is_not_its_realms_is_refused(gate):
    backup = make_backup(gate, gate.member(), now_unix=NOW_UNIX)
    with pytest.raises(ConfigError, match="not the realm's"):
        dataclasses.replace(backup, root_seed=bytes(64)).root_key()


def test_backup_carries_the_brokers_key_and_no_other_file(gate):
    gate.atomic_write("broker.key", b"signing")
    gate.atomic_write("other", b"x")
    porch = StateDir.open(gate.path.with_name("porch"), create=True)
    restore(gate, porch)
    assert porch.read("broker.key") == b"signing"
    assert porch.read("other") is None


# ── blocks ──


def test_blocks_for_other_issuers_are_disjoint_until_there_are_none(gate):
    prefix, held = gate.member().anchor.ipv4_prefix, [gate.grant().ipv4_block]
    for _ in range(grants.SHARES):
        held.append(grants.free_block(prefix, held))
    assert not any(one.overlaps(other) for one in held for other in held if one is not other)
    with pytest.raises(UserError, match="has an issuer"):
        grants.free_block(prefix, held)


def test_invitations_and_names_need_no_dead_founder(gate):
    porch = StateDir.open(gate.path.with_name("porch"), create=True)
    founder = restore(gate, porch)
    invite, token = make_invite(founder.anchor, founder.node_id, now_unix=NOW_UNIX, entropy=ENTROPY)
    IssuerFiles(porch).save_invite(invite)
    assert format_node_id(token.issuer) == format_node_id(founder.node_id)
