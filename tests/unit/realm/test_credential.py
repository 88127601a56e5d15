"""Who is a member: every link of a chain, forged one at a time."""

import contextlib
import dataclasses
from ipaddress import IPv4Address, IPv4Network

import pytest
from kit.builders import NOW_UNIX, make_credential, make_grant, make_member, make_realm, node_keys, signing_key

from conflux.crypto.sign import SIGNATURE_BYTES
from conflux.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import CREDENTIAL_LIFETIME_S, SKEW_S, Chain, Credential, Grant
from conflux.realm.identity import NodeKeys, node_id_of, realm_id_of
from conflux.realm.member import Member

REALM = make_realm()
ISSUER = signing_key("issuer")
GRANT = make_grant(REALM, ISSUER)
DIRECT = Chain(make_credential(REALM, "alpha"), None)
GRANTED = Chain(make_credential(REALM, "beta", issuer=ISSUER), GRANT)


def refusal(chain: Chain, *, now_unix: int = NOW_UNIX, anchor: RealmAnchor = REALM.anchor) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        chain.verify(anchor, now_unix=now_unix)
    return caught.value.reason


@pytest.mark.parametrize("chain", [DIRECT, GRANTED], ids=["direct", "granted"])
def test_chain_crosses_the_wire_and_verifies(chain):
    arrived = Chain.decode_untrusted(chain.encode())
    assert arrived == chain
    arrived.verify(REALM.anchor, now_unix=NOW_UNIX)


@pytest.mark.parametrize("chain", [DIRECT, GRANTED], ids=["direct", "granted"])
def test_chain_of_a_foreign_realm_is_refused(chain):
    assert refusal(chain, anchor=make_realm("elsewhere").anchor) == "foreign-realm"


def test_credential_with_this_realms_id_signed_by_a_foreign_root_is_refused():
    forged = dataclasses.replace(DIRECT.credential).sign(make_realm("elsewhere").root, REALM.anchor.realm_id)
    assert refusal(Chain(forged, None)) == "bad-signature"


def test_expired_credential_is_refused_from_the_second_it_ends():
    end = DIRECT.credential.not_after
    DIRECT.verify(REALM.anchor, now_unix=end - 1)
    assert refusal(DIRECT, now_unix=end) == "expired"


@pytest.mark.parametrize(
    ("after_s", "words"),
    [(0, "0 s"), (59, "59 s"), (60, "1 minute"), (7200, "2 hours"), (86400, "1 day"), (86683 * 3, "3 days")],
)
def test_a_refusal_for_a_date_says_whose_and_by_which_clock(after_s, words):
    with pytest.raises(RemoteProtocolError) as caught:
        DIRECT.verify(REALM.anchor, now_unix=DIRECT.credential.not_after + after_s)
    assert f"alpha's credential ended {words} ago by this device's clock (20" in str(caught.value)
    assert str(caught.value).endswith(" UTC): is that right?")


def test_a_refusal_for_a_date_has_words_at_any_clock():
    for now_unix in (0, 2**39):
        with pytest.raises(RemoteProtocolError):
            DIRECT.verify(REALM.anchor, now_unix=now_unix)


def test_expired_grant_ends_what_it_signed():
    grant = make_grant(REALM, ISSUER, not_after=NOW_UNIX + 10)
    chain = Chain(GRANTED.credential, grant)
    chain.verify(REALM.anchor, now_unix=NOW_UNIX + 9)
    assert refusal(chain, now_unix=NOW_UNIX + 10) == "expired"
    assert chain.not_after == NOW_UNIX + 10


def test_credential_from_the_future_is_refused_beyond_the_skew_of_clocks():
    DIRECT.verify(REALM.anchor, now_unix=NOW_UNIX - SKEW_S)
    assert refusal(DIRECT, now_unix=NOW_UNIX - SKEW_S - 1) == "not-yet-valid"


def test_forged_chain_is_called_forged_also_when_it_is_expired():
    forged = Chain(dataclasses.replace(DIRECT.credential, name="other"), None)
    assert refusal(forged, now_unix=DIRECT.credential.not_after) == "bad-signature"


CHANGES = {
    "node_public": node_keys("mallory").public.encode(),
    "name": "gamma",
    "tags": ("admin",),
    "capabilities": ("exit",),
    "ipv4": IPv4Address(int(DIRECT.credential.addresses[1]) ^ 1),
    "nats_jwt": "x",
    "not_before": NOW_UNIX - 1,
    "not_after": NOW_UNIX + CREDENTIAL_LIFETIME_S + 1,
    "serial": 2,
    "signature": bytes(SIGNATURE_BYTES),
}


@pytest.mark.parametrize("field", CHANGES)
@pytest.mark.parametrize("chain", [DIRECT, GRANTED], ids=["direct", "granted"])
def test_no_field_can_be_changed(chain, field):
    changed = dataclasses.replace(chain.credential, **{field: CHANGES[field]})
    assert refusal(dataclasses.replace(chain, credential=changed)) == "bad-signature"


def test_every_field_is_among_those_changed():
    assert {field.name for field in dataclasses.fields(Credential)} == CHANGES.keys() | {"realm_id", "issuer"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("ipv4_block", REALM.anchor.ipv4_prefix), ("not_after", NOW_UNIX + 1), ("not_before", 1)],
)
def test_no_field_of_a_grant_can_be_changed(field, value):
    block = IPv4Network((REALM.anchor.ipv4_prefix.network_address, 17))
    small = Grant(GRANT.realm_id, GRANT.issuer_public, block, NOW_UNIX, GRANT.not_after, b"")
    small = small.sign(REALM.root, REALM.anchor.realm_id)
    credential = make_credential(REALM, "beta", issuer=ISSUER, ipv4=block[7])
    Chain(credential, small).verify(REALM.anchor, now_unix=NOW_UNIX)
    assert refusal(Chain(credential, dataclasses.replace(small, **{field: value}))) == "bad-signature"


def test_member_cannot_issue():
    mallory = node_keys("mallory").signing
    forged = make_credential(REALM, "eve", issuer=mallory)
    assert refusal(Chain(forged, None)) == "wrong-issuer"
    assert refusal(Chain(forged, GRANT)) == "wrong-issuer"
    as_issuer = dataclasses.replace(forged, issuer=GRANT.issuer).sign(mallory, REALM.anchor.realm_id)
    assert refusal(Chain(as_issuer, GRANT)) == "bad-signature"
    own_grant = Grant(
        REALM.anchor.realm_id, mallory.public.encode(), REALM.anchor.ipv4_prefix, NOW_UNIX, NOW_UNIX + 10, b""
    ).sign(mallory, REALM.anchor.realm_id)
    assert refusal(Chain(forged, own_grant)) == "bad-signature"


def test_granted_credential_does_not_stand_without_its_grant():
    assert refusal(Chain(GRANTED.credential, None)) == "wrong-issuer"


def test_root_signed_credential_does_not_take_a_grant():
    assert refusal(Chain(DIRECT.credential, GRANT)) == "wrong-issuer"


def test_address_outside_the_issuers_block_is_refused():
    lower, upper = REALM.anchor.ipv4_prefix.subnets(1)
    grant = Grant(REALM.anchor.realm_id, ISSUER.public.encode(), lower, NOW_UNIX, NOW_UNIX + 10, b"")
    grant = grant.sign(REALM.root, REALM.anchor.realm_id)
    Chain(make_credential(REALM, "beta", issuer=ISSUER, ipv4=lower[5]), grant).verify(REALM.anchor, now_unix=NOW_UNIX)
    assert refusal(Chain(make_credential(REALM, "beta", issuer=ISSUER, ipv4=upper[5]), grant)) == "bad-address"


def test_address_outside_the_realm_is_refused_from_any_issuer():
    outside = IPv4Address("192.0.2.1")
    assert refusal(Chain(make_credential(REALM, "alpha", ipv4=outside), None)) == "bad-address"
    grant = Grant(
        REALM.anchor.realm_id, ISSUER.public.encode(), IPv4Network("192.0.2.0/24"), NOW_UNIX, NOW_UNIX + 10, b""
    ).sign(REALM.root, REALM.anchor.realm_id)
    assert refusal(Chain(make_credential(REALM, "beta", issuer=ISSUER, ipv4=outside), grant)) == "bad-address"


def test_node_keys_that_are_no_keys_raise_nothing_unexpected():
    broken = dataclasses.replace(DIRECT.credential, node_public=b"\xff" * 1984).sign(REALM.root, REALM.anchor.realm_id)
    # Whether such keys parse is the library's affair; what escapes is ours.
    with contextlib.suppress(RemoteProtocolError):
        Chain(broken, None).verify(REALM.anchor, now_unix=NOW_UNIX)


def test_credential_names_its_addresses():
    credential = DIRECT.credential
    assert credential.addresses == (credential.ipv6, credential.ipv4)
    assert dataclasses.replace(credential, ipv4=None).addresses == (credential.ipv6,)
    assert credential.ipv6 in REALM.anchor.ipv6_prefix
    assert credential.ipv4 in REALM.anchor.ipv4_prefix


def test_credential_is_renewed_at_two_thirds():
    assert DIRECT.credential.renew_at == NOW_UNIX + 20 * 86400


def test_newest_date_is_that_of_the_later_signing():
    later = dataclasses.replace(GRANT, not_before=NOW_UNIX + 7)
    assert GRANTED.newest_date == NOW_UNIX
    assert Chain(GRANTED.credential, later).newest_date == NOW_UNIX + 7
    assert DIRECT.newest_date == NOW_UNIX


def test_digest_stands_for_the_whole_credential():
    assert DIRECT.credential.digest != dataclasses.replace(DIRECT.credential, serial=9).digest


# ── identity, anchor, member ──


def test_ids_are_cut_from_the_fingerprint():
    keys = node_keys("alpha")
    assert keys.node_id == keys.public.fingerprint[:16] == node_id_of(keys.public.encode())
    assert REALM.anchor.realm_id == REALM.anchor.fingerprint[:16] == realm_id_of(REALM.root.public.encode())


def test_node_keys_hide_their_seed():
    keys = NodeKeys.generate()
    assert keys.signing.seed.hex()[:8] not in repr(keys)
    assert NodeKeys.from_seed(keys.signing.seed).node_id == keys.node_id


def test_anchor_crosses_the_wire_and_verifies():
    arrived = RealmAnchor.decode_untrusted(REALM.anchor.encode())
    assert arrived == REALM.anchor
    arrived.verify()
    arrived.verify(REALM.anchor.fingerprint)


def test_anchor_of_another_root_than_named_is_refused():
    with pytest.raises(RemoteProtocolError, match="foreign-realm"):
        REALM.anchor.verify(make_realm("elsewhere").anchor.fingerprint)


@pytest.mark.parametrize(("field", "value"), [("name", "evil"), ("ipv4_prefix", IPv4Network("10.0.0.0/8"))])
def test_no_field_of_an_anchor_can_be_changed(field, value):
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        dataclasses.replace(REALM.anchor, **{field: value}).verify()


@pytest.mark.parametrize("prefix", ["0.0.0.0/0", "8.8.8.0/24", "10.0.0.0/29", "100.0.0.0/8", "127.0.0.0/8"])
def test_realm_cannot_claim_what_is_not_private(prefix):
    with pytest.raises(ConfigError, match="prefix"):
        RealmAnchor.build(REALM.root, "home", IPv4Network(prefix))
    evil = dataclasses.replace(REALM.anchor, ipv4_prefix=IPv4Network(prefix)).sign(REALM.root, REALM.anchor.realm_id)
    with pytest.raises(RemoteProtocolError, match="bad-address"):
        evil.verify()


@pytest.mark.parametrize("prefix", ["10.0.0.0/8", "172.20.0.0/16", "192.168.7.0/24", "100.64.0.0/10"])
def test_realm_prefix_can_be_moved(prefix):
    anchor = RealmAnchor.build(REALM.root, "home", IPv4Network(prefix))
    anchor.verify()
    assert anchor.ipv4_prefix == IPv4Network(prefix)


def test_member_is_its_keys_and_its_chain():
    member = make_member(REALM, "alpha")
    assert member.node_id == member.keys.node_id == member.chain.credential.node_id
    assert (member.name, member.realm_id) == ("alpha", REALM.anchor.realm_id)
    assert member.addresses == member.chain.credential.addresses


def test_member_with_other_keys_or_realm_is_our_bug():
    member = make_member(REALM, "alpha")
    with pytest.raises(LocalProtocolError):
        Member(node_keys("beta"), member.anchor, member.chain)
    with pytest.raises(LocalProtocolError):
        Member(member.keys, make_realm("elsewhere").anchor, member.chain)


def test_issuer_of_a_root_signed_credential_is_the_realm():
    assert DIRECT.credential.issuer == NodeId(REALM.anchor.realm_id)
