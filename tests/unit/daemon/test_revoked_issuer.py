"""Renewal when the issuer of a credential is revoked: one in its place renews those on its record, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.builders import NOW_UNIX
from kit.renewing import Pair, exchange, message

from conflux.control.envelope import Kind
from conflux.errors import RemoteProtocolError
from conflux.realm.issued import End
from conflux.realm.join import NONCE_BYTES, RenewRequest
from conflux.realm.signed import UNSIGNED


@pytest.fixture
def world(tmp_path: Path) -> Pair:
    """gate renews kitchen, and both know that kitchen's issuer is revoked; here that is gate's own id."""
    world = Pair(tmp_path)
    world.now_unix = NOW_UNIX + 25 * 86400
    return world


def ask_on_connection(world: Pair) -> None:
    member = world.kitchen.renewal.member
    unsigned = RenewRequest(member.chain, bytes(NONCE_BYTES), UNSIGNED)
    request = unsigned.sign(member.keys.signing, member.realm_id, binding=bytes(32))
    world.gate.issuing.admit(request, bytes(32))


def test_member_on_record_is_renewed_although_its_issuer_is_revoked(world):
    world.gate.denied.add(world.kitchen.renewal.member.chain.credential.issuer)
    ask_on_connection(world)


def test_member_of_a_revoked_issuer_that_is_not_on_record_is_not_renewed(world):
    member, issuer = world.kitchen.renewal.member, world.gate.issuing.issuer
    assert issuer is not None
    world.gate.denied.add(member.chain.credential.issuer)
    issuer.end(member.node_id, End.LEFT, now_unix=world.now_unix)
    with pytest.raises(RemoteProtocolError, match="revoked"):
        ask_on_connection(world)
    with pytest.raises(RemoteProtocolError, match="revoked"):
        world.gate.receive(message(member.node_id, Kind.RENEW, member.chain.encode()))


def test_revoked_node_is_not_renewed_on_either_way(world):
    member = world.kitchen.renewal.member
    world.gate.denied.add(member.node_id)
    with pytest.raises(RemoteProtocolError, match="revoked"):
        ask_on_connection(world)
    with pytest.raises(RemoteProtocolError, match="revoked"):
        world.gate.receive(message(member.node_id, Kind.RENEW, member.chain.encode()))


def test_revoked_node_asks_for_no_renewal_and_looks_for_no_issuer(world):
    world.kitchen.denied.add(world.kitchen.renewal.member.node_id)
    world.kitchen.renewal.check(now=0.0)
    assert world.kitchen.asked == []
    world.now_unix += 30 * 86400
    assert not world.kitchen.renewal.is_lost()


def test_node_whose_issuer_is_revoked_looks_for_another_one_at_once(world):
    world.now_unix = NOW_UNIX + 1
    assert not world.kitchen.renewal.is_lost()
    world.kitchen.denied.add(world.kitchen.renewal.member.chain.credential.issuer)
    assert world.kitchen.renewal.is_lost()
    world.kitchen.renewal.check(now=0.0)
    assert world.kitchen.asked == []  # nobody takes a message of it


def test_member_that_is_not_revoked_is_renewed_as_ever(world):
    world.kitchen.renewal.check(now=0.0)
    exchange(world)
    assert len(world.kitchen.adopted) == 1
