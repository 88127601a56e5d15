"""A card proves its node: chain, hop key and signature."""

import dataclasses

import pytest
from kit.builders import (
    FIRST_BOOT,
    NOW_UNIX,
    hop_key,
    make_card,
    make_credential,
    make_grant,
    make_member,
    make_realm,
    signing_key,
)

from conflux.crypto.kdf import sha256
from conflux.errors import RemoteProtocolError
from conflux.ids import BootId
from conflux.realm.card import Card, hop_key_id_of, whole_card_untrusted
from conflux.realm.credential import Chain

REALM = make_realm()
ALPHA = make_member(REALM, "alpha")
CARD = make_card(ALPHA)


def refusal(card: Card, *, now_unix: int = NOW_UNIX) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        card.verify(REALM.anchor, now_unix=now_unix)
    return caught.value.reason


def test_card_crosses_the_wire_and_verifies():
    arrived = Card.decode_untrusted(CARD.encode())
    assert arrived == CARD
    arrived.verify(REALM.anchor, now_unix=NOW_UNIX)
    assert (arrived.node_id, arrived.name, arrived.addresses) == (ALPHA.node_id, "alpha", ALPHA.addresses)


def test_hop_key_id_names_the_hop_key():
    assert CARD.hop_key_id == hop_key_id_of(hop_key("alpha").public)
    other = dataclasses.replace(CARD, hop_key_id=bytes(8)).sign(ALPHA.keys.signing, ALPHA.realm_id)
    assert refusal(other) == "malformed"


@pytest.mark.parametrize(
    "hop_public",
    [
        pytest.param(b"\xff" * 1184 + CARD.hop_public[1184:], id="no ML-KEM key"),
        pytest.param(CARD.hop_public[:1184] + bytes(32), id="X25519 point of small order"),
    ],
)
def test_card_with_a_hop_key_that_takes_no_seal_is_refused(hop_public):
    changed = dataclasses.replace(CARD, hop_public=hop_public, hop_key_id=hop_key_id_of(hop_public))
    assert refusal(changed.sign(ALPHA.keys.signing, ALPHA.realm_id)) == "malformed"


@pytest.mark.parametrize(
    ("field", "value"),
    [("boot", BootId(bytes(8))), ("serial", 2), ("features", ("x",)), ("signature", bytes(3373))],
)
def test_no_field_can_be_changed(field, value):
    assert refusal(dataclasses.replace(CARD, **{field: value})) == "bad-signature"


def test_hop_key_cannot_be_replaced():
    public = hop_key("mallory").public
    forged = dataclasses.replace(CARD, hop_public=public, hop_key_id=hop_key_id_of(public))
    assert refusal(forged) == "bad-signature"


def test_chain_of_another_node_does_not_fit():
    beta = make_member(REALM, "beta")
    assert refusal(dataclasses.replace(CARD, chain=beta.chain)) == "bad-signature"


def test_card_of_a_foreign_realm_is_refused():
    stranger = make_card(make_member(make_realm("elsewhere"), "alpha"))
    assert refusal(stranger) == "foreign-realm"


def test_card_expires_with_its_credential():
    assert refusal(CARD, now_unix=CARD.chain.not_after) == "expired"


def test_later_boot_or_serial_is_newer():
    later_boot = dataclasses.replace(CARD, boot=BootId(b"\0\0\0\0\2\0\0\0"), serial=1)
    later_serial = dataclasses.replace(CARD, serial=CARD.serial + 1)
    assert later_boot.newer_than(later_serial)
    assert later_serial.newer_than(CARD)
    assert not CARD.newer_than(CARD)


def test_largest_card_fits_its_bound():
    issuer = signing_key("issuer")
    credential = dataclasses.replace(
        ALPHA.chain.credential,
        name="a" * 63,
        tags=("t" * 63,) * 16,
        capabilities=("c" * 64,) * 16,
        nats_jwt="j" * 2048,
        not_after=2**40,
        serial=2**64 - 1,
    )
    chain = Chain(credential, make_grant(REALM, issuer))
    features = ("f" * 32,) * 16
    hop_public = hop_key("alpha").public
    card = Card.build(ALPHA.keys, chain, boot=FIRST_BOOT, hop_public=hop_public, serial=2**64 - 1, features=features)
    assert len(card.encode()) < Card.BYTES_MAX


# ── without its grant ──


def granted() -> Card:
    issuer = signing_key("issuer")
    chain = Chain(make_credential(REALM, "alpha", issuer=issuer), make_grant(REALM, issuer))
    return Card.build(ALPHA.keys, chain, boot=FIRST_BOOT, hop_public=hop_key("alpha").public, serial=1)


def test_short_card_is_whole_again_with_its_grant():
    card = granted()
    asked = []

    def find(digest: bytes):
        asked.append(digest)
        return card.chain.grant

    assert whole_card_untrusted(card.encode_short(), find) == card.encode()
    assert asked == [sha256(card.chain.grant.encode())]
    assert len(card.encode()) - len(card.encode_short()) > 5000


def test_card_that_the_root_vouches_for_has_no_short_form():
    assert CARD.encode_short() == CARD.encode()


@pytest.mark.parametrize(
    "data", [CARD.encode(), granted().encode(), b"\x80", b"\x82\x01\x02", b"\x82\x01\x83\x01\x02\x03"]
)
def test_everything_else_is_left_to_the_decoder(data):
    assert whole_card_untrusted(data, lambda digest: pytest.fail("no digest")) == data
