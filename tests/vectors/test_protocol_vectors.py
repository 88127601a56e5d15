"""protocol.json against the program: records, signatures' inputs, tokens, keys, onions.  See make_protocol.py."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import make_protocol
import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from conflux.carrier.interface import Description
from conflux.control.envelope import Envelope, Inner, signed_message
from conflux.control.lan import handshake as lan
from conflux.control.lan.frame import FrameReader, FrameType, encode_frame
from conflux.control.lan.handshake import Acceptor, Dialler, Greeting, Ourselves, join_binding, realm_tag
from conflux.control.question import Presence, Who
from conflux.crypto import box, kdf, seal, sign
from conflux.errors import RemoteProtocolError
from conflux.ids import BootId, NodeId, RealmId, StreamId, format_node_id
from conflux.link import records as link_records
from conflux.realm import address
from conflux.realm.anchor import RealmAnchor
from conflux.realm.card import Card
from conflux.realm.credential import Chain
from conflux.realm.identity import NodeKeys
from conflux.realm.invite import Token
from conflux.realm.join import JoinRefused, JoinRequest
from conflux.realm.member import Member
from conflux.route import message as link_message
from conflux.route import onion
from conflux.stream import handshake
from conflux.wire import Record

VECTORS: dict[str, Any] = json.loads(make_protocol.PROTOCOL.read_text())
FIXED: dict[str, Any] = VECTORS["fixed"]
MADE_ONCE: dict[str, Any] = VECTORS["made_once"]

RECORDS: dict[str, type[Record]] = {
    kind.__name__: kind
    for kind in (
        *(Who, Presence, Envelope, Greeting, JoinRefused, Description),
        *(handshake.Refused, handshake.RekeyOffer, handshake.RekeyAnswer),
        *(link_records.Offer, link_records.Answer, link_records.Candidates, link_records.Refusal),
    )
}


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def keys(name: str) -> NodeKeys:
    return NodeKeys.from_seed(raw(FIXED["keys"][name]["seed"]))


def hop_key(number: int) -> seal.SealKey:
    hop = FIXED["hops"][number]
    ml = MLKEM768PrivateKey.from_seed_bytes(raw(hop["mlkem_seed"]))
    return seal.SealKey(ml, X25519PrivateKey.from_private_bytes(raw(hop["x25519"])))


def signed_record(kind: type[Any], name: str) -> Any:
    data = raw(MADE_ONCE["signed_records"][name])
    found = kind.decode_untrusted(data)
    assert found.encode() == data
    return found


REALM = RealmId(raw(FIXED["keys"]["root"]["id"]))


def test_vectors_are_what_their_maker_makes():
    assert json.loads(json.dumps(make_protocol.fixed())) == FIXED


@pytest.mark.parametrize("name", FIXED["keys"])
def test_seed_gives_key_and_id(name):
    found, said = keys(name), FIXED["keys"][name]
    assert found.node_id.hex() == said["id"]
    assert found.public.fingerprint.hex() == said["public_sha256"]


def test_addresses_follow_from_the_ids():
    said, alice = FIXED["addresses"], keys("alice").node_id
    assert format_node_id(alice) == said["alice_id_text"]
    assert address.ipv6_address(REALM, alice) == IPv6Address(raw(said["alice_ipv6"]))
    prefix = raw(said["ipv4_prefix"])
    assert address.default_ipv4_prefix(REALM) == IPv4Network((prefix[:4], prefix[4]))


@pytest.mark.parametrize("purpose", FIXED["contexts"])
def test_contexts_of_signatures(purpose):
    assert sign.context(purpose, REALM).hex() == FIXED["contexts"][purpose]


@pytest.mark.parametrize("vector", FIXED["records"], ids=lambda vector: vector["record"])
def test_record_is_read_and_written(vector):
    data = raw(vector["encoded"])
    assert RECORDS[vector["record"]].decode_untrusted(data).encode() == data


@pytest.mark.parametrize("vector", FIXED["link_messages"], ids=lambda vector: vector["record"])
def test_link_message_is_read_and_written(vector):
    found = link_message.decode_message_untrusted(raw(vector["encoded"]))
    assert type(found).__name__ == vector["record"]
    assert link_message.encode_message(found).hex() == vector["encoded"]


@pytest.mark.parametrize("vector", FIXED["refused_presence"], ids=lambda vector: vector["why"])
def test_any_other_encoding_is_refused(vector):
    with pytest.raises(RemoteProtocolError):
        Presence.decode_untrusted(raw(vector["encoded"]))


def test_token():
    said = FIXED["token"]
    token = Token.parse(said["text"])
    assert token.format() == said["text"]
    assert token.root_fingerprint == keys("root").public.fingerprint
    assert (token.issuer, token.invite_id.hex(), token.secret.hex()) == (
        keys("issuer").node_id,
        said["invite_id"],
        said["secret"],
    )
    assert (token.not_after, token.count, list(token.hints)) == (said["not_after"], said["count"], said["hints"])


def test_join_request_proves_the_secret_on_one_connection():
    said = FIXED["join_proof"]
    binding = join_binding(raw(said["certificate_digest"]), raw(said["greeting"]))
    assert binding.hex() == said["binding"]
    token, nonce = Token.parse(FIXED["token"]["text"]), raw(said["nonce"])
    request = JoinRequest.build(token, keys("alice"), "kitchen", binding=binding, nonce=nonce)
    assert request.proof.hex() == said["proof"]
    keys("alice").public.verify(b"", raw(said["signed"]), request.signature)


class Book:
    """A chain of three bytes, where the handshake asks for a member's."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def encode(self) -> bytes:
        return self._data


def test_lan_handshake_signs_these_bytes():
    said = FIXED["lan"]
    assert realm_tag(REALM).hex() == said["realm_tag"]
    book = Book(raw(said["chain"]))
    common = (raw(said["certificate_digest"]), raw(said["acceptor_nonce"]), raw(said["dialler_nonce"]), book)
    rest = (BootId(raw(said["boot"])), raw(said["instance"]))
    dial = lan._signed(*common, *rest)  # type: ignore[arg-type]
    accept = lan._signed(*common, *rest, kdf.sha256(raw(said["hello"])))  # type: ignore[arg-type]
    assert (sign.context("lan-dial", REALM) + dial).hex() == said["dial_signed"]
    assert (sign.context("lan-accept", REALM) + accept).hex() == said["accept_signed"]
    assert encode_frame(FrameType.STANDING, b"\1").hex() == said["standing_frame"]
    assert FrameReader().feed_untrusted(raw(said["standing_frame"])) == [(FrameType.STANDING, b"\1")]


def test_hello_and_welcome_prove_both_sides():
    said, anchor = FIXED["lan"], signed_record(RealmAnchor, "anchor")
    nonces = raw(said["acceptor_nonce"]), raw(said["dialler_nonce"])

    def judge(chain: Chain) -> None:
        chain.verify(anchor, now_unix=1_800_000_001)

    def us(name: str, chain: str) -> Ourselves:
        return Ourselves(Member(keys(name), anchor, signed_record(Chain, chain)), BootId(bytes(8)), bytes(8), judge)

    certificate = raw(said["certificate_digest"])
    acceptor = Acceptor(us("bob", "root_chain"), certificate, lambda size: nonces[0])
    hello, welcome = (raw(MADE_ONCE["signed_records"][name]) for name in ("hello", "welcome"))
    peer, _ = acceptor.answer_untrusted(hello)
    assert (peer.node, peer.name, peer.boot.hex(), peer.session) == (
        keys("alice").node_id,
        "kitchen",
        said["boot"],
        nonces[1],
    )
    dialler = Dialler(us("alice", "chain"), certificate, lambda size: nonces[1])
    dialler._acceptor_nonce, dialler._hello = nonces[0], hello  # its own hello has another signature every time
    assert dialler.finish_untrusted(welcome).node == keys("bob").node_id
    with pytest.raises(RemoteProtocolError, match="bad-signature"):  # relayed by somebody with another certificate
        Acceptor(us("bob", "root_chain"), bytes(32), lambda size: nonces[0]).answer_untrusted(hello)


def test_envelope_signature_covers_receiver_and_message():
    said = FIXED["envelope"]
    inner = Inner.decode_untrusted(raw(said["inner"]))
    to = NodeId(raw(said["to"]))
    assert (
        sign.context("control", REALM)
        + signed_message(to, inner.src, inner.boot, inner.seq, inner.kind, inner.re, inner.body)
    ).hex() == said["signed"]
    assert inner.encode().hex() == said["inner"]
    alice = keys("alice")
    alice.public.verify_ed25519(b"", raw(said["signed"]), inner.signature)
    assert alice.signing.sign_ed25519(b"", raw(said["signed"])) == inner.signature


def test_sealed_envelope_opens_with_the_hop_key():
    envelope = Envelope.decode_untrusted(raw(MADE_ONCE["sealed"]["envelope"]))
    assert envelope.key_id is not None
    assert envelope.to is not None
    info = sign.context("control-seal", REALM) + envelope.key_id + envelope.to
    assert hop_key(2).unseal(envelope.payload, info).hex() == FIXED["envelope"]["inner"]


def epoch(keys: handshake.EpochKeys) -> dict[str, str]:
    return {
        "data": keys.data.key.hex(),
        "data_prefix": keys.data.nonce_prefix.hex(),
        "feedback": keys.feedback.key.hex(),
        "feedback_prefix": keys.feedback.nonce_prefix.hex(),
        "chain": bytes(keys.chain).hex(),
    }


def test_key_schedule_from_handshake_to_second_epoch():
    said = FIXED["key_schedule"]
    first, rekey = said["first"], said["rekey"]
    keys = handshake.first_keys(raw(first["secret"]), raw(first["open"]), raw(first["accept"]), REALM, 2)
    assert epoch(keys) == first["keys"]
    following = handshake.next_keys(keys, raw(rekey["secret"]), raw(rekey["offer"]), raw(rekey["answer"]), REALM)
    assert epoch(following) == rekey["keys"]
    assert (keys.data.epoch, following.data.epoch) == (0, 1)


def test_signed_records_verify_from_the_root_alone():
    anchor = signed_record(RealmAnchor, "anchor")
    anchor.verify(keys("root").public.fingerprint)
    chain = signed_record(Chain, "chain")
    chain.verify(anchor, now_unix=1_800_000_001)
    card = signed_record(Card, "card")
    card.verify(anchor, now_unix=1_800_000_001)
    assert card.chain == chain
    assert (card.name, card.node_id, card.features) == ("kitchen", keys("alice").node_id, ("relay",))
    assert card.addresses[1] == IPv4Address(anchor.ipv4_prefix.network_address + 9)


def test_stream_handshakes_records_verify():
    open_, accept = signed_record(handshake.Open, "open"), signed_record(handshake.Accept, "accept")
    open_.verify_signature(keys("alice").public, REALM)
    accept.verify_signature(keys("bob").public, REALM)
    chain_hash = kdf.sha256(signed_record(Chain, "chain").encode())
    handshake.check_open(open_, sender=keys("alice").node_id, me=keys("bob").node_id, chain_hash=chain_hash)
    handshake.check_accept(accept, open_.encode(), ())
    (vantage,) = accept.vantage
    assert (vantage.hop_key_id.hex(), vantage.hop_public) == (FIXED["hops"][1]["id"], hop_key(1).public)


@pytest.mark.parametrize("vector", FIXED["route_keys"])
def test_what_follows_from_a_route_key(vector):
    key = raw(vector["route_key"])
    assert onion.tag(key).hex() == vector["tag"]
    assert onion.refusal_key(key).hex() == vector["refusal_key"]
    assert box.unseal_once(onion.refusal_key(key), raw(vector["refusal_of_busy"])) == b"busy"
    assert box.seal_once(onion.refusal_key(key), b"busy").hex() == vector["refusal_of_busy"]
    assert kdf.sha256(onion.keystream(key)).hex() == vector["keystream_sha256"]


@pytest.mark.parametrize("vector", MADE_ONCE["onions"], ids=lambda vector: f"{len(vector['hops'])} hops")
def test_every_hop_finds_its_part_and_passes_the_next_ones_on(vector):
    passed_on = raw(vector["hops"][0]["onion"])
    for number, said in enumerate(vector["hops"]):
        assert passed_on.hex() == said["onion"]
        key = hop_key(said["hop"])
        assert passed_on[:8].hex() == FIXED["hops"][said["hop"]]["id"]
        peeled = onion.peel_untrusted(
            passed_on, lambda key_id, slot, info, key=key: key.unseal(slot, info), realm=REALM
        )
        target = raw(said["target"])
        assert (peeled.next, peeled.stream) == ((None, StreamId(target)) if said["deliver"] else (target, None))
        assert peeled.lifetime_s == vector["lifetime_s"]
        assert peeled.route_key.hex() == FIXED["route_keys"][number]["route_key"]
        passed_on = peeled.rest
