"""The root lets other nodes issue: which blocks they get, and which grants a node takes."""

from __future__ import annotations

import dataclasses
import random
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from kit.builders import NOW_UNIX, make_realm
from kit.founded import gate_in

from conflux.errors import RemoteProtocolError, UserError
from conflux.realm.identity import NodeKeys
from conflux.realm.join import OfflineRequest
from conflux.realm.member import Member
from conflux.state.directory import StateDir
from conflux.state.founding import issuer_of
from conflux.state.grants import accept_grant, give_block, given_grant, given_grants

ENTROPY = random.Random(7).randbytes


class Realm:
    """gate founded it, shed is a member."""

    def __init__(self, path: Path) -> None:
        self.gate = gate_in(path / "gate")
        founder = self.gate.member()
        self.shed = StateDir.open(path / "shed", create=True)
        keys = self.shed.make_node_keys()
        request = OfflineRequest.build(keys, "shed", nonce=bytes(32))
        answer = issuer_of(self.gate, founder).admit(request, now_unix=NOW_UNIX)
        self.shed.save_member(Member(keys, founder.anchor, answer.chain))
        self.founder = founder

    def give(self, public: bytes, block: str | None = None, now_unix: int = NOW_UNIX):
        chosen = None if block is None else IPv4Network(block)
        return give_block(self.gate, self.gate.root_key(), self.founder, public, chosen, now_unix=now_unix)

    @property
    def shed_public(self) -> bytes:
        return self.shed.node_keys().public.encode()


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return Realm(tmp_path)


def test_a_granted_node_issues_by_itself_from_then_on(realm):
    grant = realm.give(realm.shed_public)
    assert issuer_of(realm.shed, realm.shed.member()) is None
    assert accept_grant(realm.shed, realm.shed.member(), grant, now_unix=NOW_UNIX)
    assert not accept_grant(realm.shed, realm.shed.member(), grant, now_unix=NOW_UNIX), "it has it already"
    issuer = issuer_of(realm.shed, realm.shed.member())
    newcomer = OfflineRequest.build(NodeKeys.generate(), "barn", nonce=bytes(32))
    chain = issuer.admit(newcomer, now_unix=NOW_UNIX).chain
    chain.verify(realm.founder.anchor, now_unix=NOW_UNIX)
    assert chain.credential.ipv4 in grant.ipv4_block


def test_blocks_of_issuers_are_disjoint(realm):
    blocks = [realm.give(NodeKeys.generate().public.encode()).ipv4_block for _ in range(3)]
    blocks.append(realm.gate.grant().ipv4_block)
    assert not any(one.overlaps(other) for one in blocks for other in blocks if one is not other)


def test_who_is_granted_again_keeps_its_block(realm):
    first, second = (realm.give(realm.shed_public, now_unix=NOW_UNIX + later) for later in (0, 9))
    assert (second.ipv4_block, second.not_before) == (first.ipv4_block, first.not_before + 9)
    assert given_grants(realm.gate) == (second,)
    assert accept_grant(realm.shed, realm.shed.member(), second, now_unix=NOW_UNIX)
    assert not accept_grant(realm.shed, realm.shed.member(), first, now_unix=NOW_UNIX), "the older one changes nothing"
    assert realm.shed.grant() == second


def test_a_second_block_is_kept_beside_the_first(realm):
    first = realm.give(realm.shed_public)
    accept_grant(realm.shed, realm.shed.member(), first, now_unix=NOW_UNIX)
    other = next(iter(list(realm.founder.anchor.ipv4_prefix.subnets(1))[1].subnets(new_prefix=24)))
    beyond = [block for block in list(realm.founder.anchor.ipv4_prefix.subnets(new_prefix=24)) if block > other][-1]
    second = realm.give(realm.shed_public, str(beyond))
    assert accept_grant(realm.shed, realm.shed.member(), second, now_unix=NOW_UNIX)
    assert (realm.shed.grant(), given_grant(realm.gate, first.issuer)) == (first, second)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("10.1.0.0/24", "must be inside"),
        ("own", "another issuer has"),
        ("tiny", "/30 or wider"),
        ("given", "another issuer has"),
    ],
)
def test_a_block_that_is_not_free_is_refused(realm, block, said):
    given = realm.give(NodeKeys.generate().public.encode()).ipv4_block
    own = realm.gate.grant().ipv4_block
    chosen = {"own": str(next(own.subnets(2))), "tiny": f"{own[1]}/31", "given": str(given)}.get(block, block)
    if block == "tiny":
        chosen = str(IPv4Network((int(own[2]), 31)))
    with pytest.raises(UserError, match=said):
        realm.give(realm.shed_public, chosen)
    assert len(given_grants(realm.gate)) == 1


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("wrong-issuer", {"issuer_public": NodeKeys.generate().public.encode()}),
        ("foreign-realm", {"realm_id": bytes(16)}),
        ("bad-address", {"ipv4_block": IPv4Network("10.0.0.0/24")}),
        ("bad-signature", {"not_after": NOW_UNIX + 10**9}),
        ("expired", {}),
    ],
)
def test_a_grant_that_the_root_did_not_give_this_node_is_refused(realm, reason, change):
    grant = dataclasses.replace(realm.give(realm.shed_public), **change)
    now_unix = grant.not_after if reason == "expired" else NOW_UNIX
    with pytest.raises(RemoteProtocolError, match=reason):
        accept_grant(realm.shed, realm.shed.member(), grant, now_unix=now_unix)
    assert realm.shed.grant() is None


def test_a_member_cannot_grant(realm):
    other = make_realm("elsewhere")
    forged = realm.give(realm.shed_public).sign(other.root, realm.founder.realm_id)
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        accept_grant(realm.shed, realm.shed.member(), forged, now_unix=NOW_UNIX)
