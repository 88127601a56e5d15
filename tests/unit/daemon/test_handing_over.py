"""What an issuer changes for a member is handed to it, used at once, and told until it is acknowledged."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from kit.builders import NOW_UNIX, make_realm
from kit.renewing import Pair, message

from conflux.control.envelope import Kind
from conflux.daemon import issuing, renewal
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.credential import Chain, Grant
from conflux.state.directory import StateDir
from conflux.state.founding import make_grant


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def kitchen(pair: Pair) -> NodeId:
    return pair.kitchen.renewal.member.node_id


def gate(pair: Pair) -> NodeId:
    return pair.gate.renewal.member.node_id


def change(pair: Pair, node: NodeId, **what) -> None:
    pair.gate.issuing.issuer.change(node, now_unix=pair.now_unix, **what)


def handed(pair: Pair) -> bytes:
    """The chain that the gate handed over last."""
    to, kind, body = pair.gate.asked[-1]
    assert (to, kind) == (kitchen(pair), Kind.RENEWED)
    return body


def carry(pair: Pair) -> None:
    """Carry what the gate handed over to the kitchen, and its acknowledgement back."""
    pair.kitchen.receive(message(gate(pair), Kind.RENEWED, handed(pair)))
    assert pair.kitchen.answered.pop() == (Kind.ACK, b"")
    pair.gate.receive(message(kitchen(pair), Kind.ACK, b"", re=len(pair.gate.asked)))


def test_a_changed_name_and_right_are_used_at_once_and_acknowledged(pair):
    before = pair.kitchen.renewal.member
    change(pair, kitchen(pair), name="cellar", tags=("t",), capabilities=("relay",))
    pair.gate.issuing.hand_due(now=0.0)
    carry(pair)
    (after,) = pair.kitchen.adopted
    credential = after.chain.credential
    assert (after.name, credential.tags, credential.capabilities) == ("cellar", ("t",), ("relay",))
    assert (after.addresses, after.chain.not_after) == (before.addresses, before.chain.not_after)
    assert pair.gate.issuing.issuer.due() == []
    pair.gate.issuing.hand_due(now=10**6)
    assert len(pair.gate.asked) == 1


def test_what_is_not_acknowledged_is_handed_over_again_later_and_later(pair):
    change(pair, kitchen(pair), tags=("t",))
    times = [now for now in range(0, 4000, 10) if hands_over(pair, float(now))]
    assert times == [0, 60, 180, 420, 900, 1860, 3780]
    assert pair.gate.issuing.issuer.due() == [kitchen(pair)]


def hands_over(pair: Pair, now: float) -> bool:
    before = len(pair.gate.asked)
    pair.gate.issuing.hand_due(now=now)
    return len(pair.gate.asked) > before


def test_a_member_that_renews_gets_the_change_with_it(pair):
    change(pair, kitchen(pair), tags=("t",))
    chain = pair.kitchen.renewal.member.chain.encode()
    pair.gate.receive(message(kitchen(pair), Kind.RENEW, chain))
    _, body = pair.gate.answered[-1]
    assert Chain.decode_untrusted(body).credential.tags == ("t",)
    assert pair.gate.issuing.issuer.due() == []


def test_an_issuer_adopts_what_it_changes_for_itself(pair):
    change(pair, gate(pair), name="porch")
    pair.gate.issuing.hand_due(now=0.0)
    assert pair.gate.renewal.member.name == "porch"
    assert (pair.gate.asked, pair.gate.issuing.issuer.due()) == ([], [])


def test_an_acknowledgement_of_nothing_or_of_another_node_is_refused(pair):
    change(pair, kitchen(pair), tags=("t",))
    pair.gate.issuing.hand_due(now=0.0)
    for peer, re in ((kitchen(pair), 77), (NodeId(b"x" * 16), 1)):
        with pytest.raises(RemoteProtocolError, match="unexpected"):
            pair.gate.receive(message(peer, Kind.ACK, b"", re=re))
    assert pair.gate.issuing.issuer.due() == [kitchen(pair)]


def test_chains_under_way_are_bounded(pair, monkeypatch):
    monkeypatch.setattr(issuing, "HANDED_COUNT_MAX", 8)  # each takes two signatures
    change(pair, kitchen(pair), tags=("t",))
    for number in range(issuing.HANDED_COUNT_MAX + 5):
        pair.gate.issuing.hand_due(now=number * 10000.0)
    assert len(pair.gate.issuing._handed) == issuing.HANDED_COUNT_MAX


def altered(pair: Pair, **fields) -> bytes:
    """A chain of the gate for the kitchen with other fields, its signature valid."""
    state = StateDir.open(pair.path)
    chain = Chain.decode_untrusted(handed(pair))
    key = state.node_keys().signing
    credential = dataclasses.replace(chain.credential, **fields).sign(key, chain.credential.realm_id)
    return dataclasses.replace(chain, credential=credential).encode()


@pytest.mark.parametrize(
    ("reason", "peer", "body"),
    [
        ("wrong-issuer", lambda pair: NodeId(b"x" * 16), handed),  # another member brings it
        ("wrong-answer", gate, lambda pair: altered(pair, ipv4=pair.gate.renewal.member.anchor.ipv4_prefix[77])),
        ("wrong-answer", gate, lambda pair: gates_chain(pair)),
        ("expired", gate, lambda pair: altered(pair, not_before=NOW_UNIX - 9, not_after=NOW_UNIX - 1)),
        ("malformed", gate, lambda pair: b"\x80"),
    ],
)
def test_a_chain_handed_over_by_the_wrong_node_or_for_another_address_is_refused(pair, reason, peer, body):
    change(pair, kitchen(pair), name="cellar")
    pair.gate.issuing.hand_due(now=0.0)
    before = pair.kitchen.renewal.member
    given = body(pair)
    with pytest.raises(RemoteProtocolError, match=reason):
        pair.kitchen.receive(message(peer(pair), Kind.RENEWED, given))
    assert pair.kitchen.renewal.member is before
    assert pair.kitchen.answered == []


def gates_chain(pair: Pair) -> bytes:
    """A fresh chain of the gate itself."""
    return pair.gate.issuing.issuer.renew(pair.gate.renewal.member.chain, now_unix=pair.now_unix).encode()


def test_a_chain_that_the_root_signed_over_the_issuers_head_is_refused(pair):
    change(pair, kitchen(pair), name="cellar")
    pair.gate.issuing.hand_due(now=0.0)
    other = make_realm("elsewhere")
    chain = Chain.decode_untrusted(handed(pair))
    grant = make_grant(other.root, other.anchor, bytes(1984), other.anchor.ipv4_prefix, now_unix=NOW_UNIX)
    with pytest.raises(RemoteProtocolError):
        pair.kitchen.receive(message(gate(pair), Kind.RENEWED, dataclasses.replace(chain, grant=grant).encode()))


def test_an_older_chain_changes_nothing_and_is_not_acknowledged(pair):
    change(pair, kitchen(pair), name="cellar")
    pair.gate.issuing.hand_due(now=0.0)
    old = handed(pair)
    pair.gate.issuing.hand_due(now=100.0)
    carry(pair)
    pair.kitchen.receive(message(gate(pair), Kind.RENEWED, old))
    assert len(pair.kitchen.adopted) == 1
    assert pair.kitchen.answered == []


def test_a_chain_that_comes_twice_is_used_once_and_acknowledged_twice(pair):
    change(pair, kitchen(pair), name="cellar")
    pair.gate.issuing.hand_due(now=0.0)
    for _ in range(2):
        pair.kitchen.receive(message(gate(pair), Kind.RENEWED, handed(pair)))
    assert len(pair.kitchen.adopted) == 1
    assert pair.kitchen.answered == [(Kind.ACK, b"")] * 2


def test_an_issuer_that_hands_over_all_the_time_is_not_listened_to_all_the_time(pair):
    change(pair, kitchen(pair), name="cellar")
    pair.gate.issuing.hand_due(now=0.0)
    for _ in range(int(renewal.UNASKED_BURST)):
        pair.kitchen.receive(message(gate(pair), Kind.RENEWED, handed(pair)))
    with pytest.raises(RemoteProtocolError, match="too-soon"):
        pair.kitchen.receive(message(gate(pair), Kind.RENEWED, handed(pair)))
    pair.kitchen.receive(message(gate(pair), Kind.RENEWED, handed(pair)), now=60.0)


# ── the root lets a member issue ──


def granted(pair: Pair) -> Grant:
    state = StateDir.open(pair.path)
    root, member = state.root_key(), pair.gate.renewal.member
    public = pair.kitchen.renewal.member.keys.public.encode()
    return make_grant(root, member.anchor, public, member.anchor.ipv4_prefix, now_unix=NOW_UNIX)


def test_a_grant_goes_ahead_of_the_chain_and_is_taken_from_any_member(pair):
    grant = pair.gate.given[kitchen(pair)] = granted(pair)
    change(pair, kitchen(pair), capabilities=("issuer",))
    pair.gate.issuing.hand_due(now=0.0)
    assert [kind for _, kind, _ in pair.gate.asked] == [Kind.GRANT, Kind.RENEWED]
    pair.kitchen.receive(message(NodeId(b"x" * 16), Kind.GRANT, pair.gate.asked[0][2]))
    assert pair.kitchen.taken == [grant]
    pair.gate.receive(message(kitchen(pair), Kind.ACK, b"", re=1))
    assert pair.gate.issuing.issuer.due() == [kitchen(pair)], "the grant alone is not what is due"
    carry(pair)
    assert pair.gate.issuing.issuer.due() == []


def test_a_member_that_renews_gets_its_grant_too(pair):
    pair.gate.given[kitchen(pair)] = granted(pair)
    chain = pair.kitchen.renewal.member.chain.encode()
    pair.gate.receive(message(kitchen(pair), Kind.RENEW, chain))
    assert [(to, kind) for to, kind, _ in pair.gate.asked] == [(kitchen(pair), Kind.GRANT)]


def test_grants_without_end_are_not_looked_at(pair):
    body = granted(pair).encode()
    for _ in range(int(issuing.GRANT_BURST)):
        pair.kitchen.receive(message(gate(pair), Kind.GRANT, body))
    with pytest.raises(RemoteProtocolError, match="too-soon"):
        pair.kitchen.receive(message(gate(pair), Kind.GRANT, body))
    assert len(pair.kitchen.taken) == issuing.GRANT_BURST


def test_rubbish_of_one_member_keeps_nobody_elses_grant_or_chain_out(pair):
    body, mallory = granted(pair).encode(), NodeId(b"m" * 16)
    change(pair, kitchen(pair), name="cellar")
    pair.gate.issuing.hand_due(now=0.0)
    chain = handed(pair)
    for kind in (Kind.GRANT, Kind.RENEWED):
        for _ in range(50):
            with pytest.raises(RemoteProtocolError):
                pair.kitchen.receive(message(mallory, kind, b"rubbish"))
    pair.kitchen.receive(message(NodeId(b"x" * 16), Kind.GRANT, body))
    assert len(pair.kitchen.taken) == 1
    pair.kitchen.receive(message(gate(pair), Kind.RENEWED, chain))
    assert pair.kitchen.renewal.member.name == "cellar"
