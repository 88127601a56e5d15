"""Every realm record against bytes of a stranger: it decodes to what encodes the same, or is refused."""

from __future__ import annotations

import functools
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.builders import NOW_UNIX, make_card, make_grant, make_member, make_realm, node_keys, signing_key
from kit.published import OPEN_TEXT, published

from conflux.control.policies import PolicyAsked, PolicyPiece, PolicyTold
from conflux.errors import ConfigError, RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.invite import Token, make_invite, parse_hint
from conflux.realm.issued import Issued
from conflux.realm.issuer import pick_address
from conflux.realm.join import JoinAnswer, JoinRefused, JoinRequest, OfflineRequest
from conflux.realm.policy import SignedPolicy
from conflux.record import Record
from conflux.state.directory import Counter, KeyFile

REALM = make_realm()
ALPHA = make_member(REALM, "alpha")
INVITE, TOKEN = make_invite(
    REALM.anchor, ALPHA.node_id, now_unix=NOW_UNIX, entropy=lambda size: b"e" * size, hints=("192.0.2.1:7464",)
)


@functools.cache
def samples() -> list[Record]:
    keys = node_keys("alpha")
    return [
        REALM.anchor,
        make_grant(REALM, signing_key("issuer")),
        ALPHA.chain.credential,
        ALPHA.chain,
        make_card(ALPHA),
        TOKEN,
        INVITE,
        JoinRequest.build(TOKEN, keys, "alpha", binding=bytes(32), nonce=bytes(32)),
        OfflineRequest.build(keys, "alpha", nonce=bytes(32)),
        JoinAnswer(REALM.anchor, ALPHA.chain, bytes(32), b"").sign(REALM.root, REALM.anchor.realm_id),
        JoinRefused("used-up"),
        Issued(ALPHA.node_id, "alpha", ("t",), (), REALM.anchor.ipv4_prefix[5], 3, 1000, NOW_UNIX),
        KeyFile(bytes(64)),
        Counter(7),
        published().head,
        PolicyTold(NOW_UNIX, bytes(32)),
        PolicyAsked(bytes(32), 3),
        PolicyPiece(bytes(32), 1, b"piece"),
    ]


@pytest.mark.parametrize("index", range(18))
def test_every_record_round_trips(index):
    record = samples()[index]
    assert type(record).decode_untrusted(record.encode()) == record


@given(st.integers(0, 17), st.data())
def test_cut_or_lengthened_record_is_refused(index, data):
    record = samples()[index]
    encoded = record.encode()
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(RemoteProtocolError):
        type(record).decode_untrusted(encoded[:cut])
    with pytest.raises(RemoteProtocolError):
        type(record).decode_untrusted(encoded + data.draw(st.binary(min_size=1, max_size=8)))


@given(st.integers(0, 17), st.data())
def test_altered_record_decodes_to_what_encodes_the_same_or_is_refused(index, data):
    record = samples()[index]
    encoded = bytearray(record.encode())
    # Heads and short fields are where the structure is; keys and signatures fill the rest.
    near = st.integers(0, min(len(encoded) - 1, 60)) | st.integers(0, len(encoded) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(near)] = data.draw(st.integers(0, 255))
    try:
        decoded = type(record).decode_untrusted(bytes(encoded))
    except RemoteProtocolError:
        return
    assert decoded.encode() == encoded


@given(st.integers(0, 17), st.binary(max_size=200))
def test_nonsense_is_refused(index, data):
    kind = type(samples()[index])
    try:
        decoded = kind.decode_untrusted(data)
    except RemoteProtocolError:
        return
    assert decoded.encode() == data


@given(st.data())
def test_altered_card_never_verifies(data):
    encoded = bytearray(make_card(ALPHA).encode())
    index = data.draw(st.integers(0, len(encoded) - 1))
    encoded[index] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RemoteProtocolError):
        type(make_card(ALPHA)).decode_untrusted(bytes(encoded)).verify(REALM.anchor, now_unix=NOW_UNIX)


@given(st.text(max_size=300) | st.text(max_size=300).map(lambda text: "cfx1" + text))
def test_text_is_a_token_or_a_config_error(text):
    with pytest.raises(ConfigError):
        Token.parse(text)


@given(st.text(max_size=60))
def test_text_is_a_hint_or_a_config_error(text):
    try:
        host, port = parse_hint(text)
    except ConfigError:
        return
    assert host
    assert 0 < port < 65536


@given(st.binary(min_size=16, max_size=16), st.sets(st.integers(1, 14), max_size=13))
def test_picked_address_is_a_free_host(node, taken):
    block = IPv4Network("100.64.0.16/28")
    addresses = {block[index] for index in taken}
    picked = pick_address(block, NodeId(node), addresses)
    assert picked in set(block.hosts()) - addresses


@given(st.data())
def test_pieces_of_a_stranger_make_no_policy_but_the_signed_one(data):
    """They are joined to the text that was signed, or refused."""
    policy = published(OPEN_TEXT)
    pieces = data.draw(st.lists(st.one_of(st.sampled_from(policy.pieces), st.binary(max_size=64)), max_size=3))
    if tuple(pieces) == policy.pieces:
        assert SignedPolicy.join_untrusted(policy.head, pieces) == policy
    else:
        with pytest.raises(RemoteProtocolError, match="malformed"):
            SignedPolicy.join_untrusted(policy.head, pieces)
