"""protocol.json against the program: records, signatures' inputs, tokens, keys, onions.  See make_protocol.py."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from conflux.carrier.interface import Description
from conflux.control.envelope import Envelope, Inner, signed_message
from conflux.control.lan import handshake as lan
from conflux.control.lan.frame import FrameReader, FrameType, encode_frame
from conflux.control.lan.handshake import Acceptor, Dialler, Greeting, Ourselves, instance_of, join_binding, realm_tag
from conflux.control.lists import Asking
from conflux.control.policies import PolicyAsked, PolicyPiece, PolicyTold
from conflux.control.who import Presence, Who
from conflux.crypto import box, kdf, seal, sign
from conflux.crypto.nkey import KeyPair, Kind
from conflux.daemon.passing import Admit, Admitted
from conflux.errors import RemoteProtocolError
from conflux.ids import BootId, NodeId, RealmId, StreamId, format_node_id
from conflux.link import records as link_records
from conflux.realm import address
from conflux.realm.anchor import RealmAnchor
from conflux.realm.broker import joining
from conflux.realm.broker.joining import Asked, Told
from conflux.realm.broker.jwt import UserJwt
from conflux.realm.broker.users import Signer, late_jwt_of, renewal_id
from conflux.realm.card import Card, whole_card_untrusted
from conflux.realm.credential import Chain
from conflux.realm.identity import NodeKeys
from conflux.realm.invite import Token
from conflux.realm.join import JoinRefused, JoinRequest
from conflux.realm.listbook import Row, digest_of
from conflux.realm.lists import BrokerNotice, Denial, DenyList, ListKey, SignedList
from conflux.realm.member import Member
from conflux.record import Record
from conflux.route import message as link_message
from conflux.route import onion
from conflux.stream import handshake
from vectors import make_protocol

VECTORS: dict[str, Any] = json.loads(make_protocol.PROTOCOL.read_text())
FIXED: dict[str, Any] = VECTORS["fixed"]
MADE_ONCE: dict[str, Any] = VECTORS["made_once"]

RECORDS: dict[str, type[Record]] = {
    kind.__name__: kind
    for kind in (
        *(PolicyTold, PolicyAsked, PolicyPiece),
        *(Who, Presence, Asking, Envelope, Greeting, JoinRefused, Admit, Admitted, Description),
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


def test_lists_have_a_digest():
    said, issuer = FIXED["lists_digest"], keys("issuer").node_id
    one, another = map(raw, said["checks"])
    rows = [Row(ListKey(2, NodeId(REALM)), 7, another), Row(ListKey(1, issuer), 1_800_000_000, one)]
    assert digest_of(rows).hex() == said["digest"]
    assert digest_of([]).hex() == said["of_none"]


def test_signed_lists_verify_and_say_what_they_say():
    anchor = signed_record(RealmAnchor, "anchor")
    deny, notice = signed_record(SignedList, "deny_list"), signed_record(SignedList, "broker_notice")
    deny.verify(anchor, now_unix=1_800_000_000)
    notice.verify(anchor, now_unix=1_800_000_000)
    nodes = sorted(keys(name).node_id for name in ("alice", "bob"))
    assert DenyList(deny.denials()) == DenyList(tuple(Denial(node, 1_800_000_000, "stolen") for node in nodes))
    assert deny.key == ListKey(1, keys("issuer").node_id)
    assert notice.key == ListKey(2, NodeId(REALM))
    assert isinstance(notice.broker(), BrokerNotice)
    assert notice.broker().servers == ("tls://broker.example:4222",)


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


def test_token_with_a_broker_admits_by_the_one_jwt_that_its_signature_is_of():
    said = FIXED["token_2"]
    token = Token.parse(said["text"])
    assert token.format() == said["text"]
    assert token.broker is not None
    assert (list(token.broker.servers), token.broker.ca_fingerprint.hex()) == (said["servers"], said["ca_sha256"])
    jwt, key = token.broker.admission.rebuild(token.invite_id, token.secret)
    assert (jwt, key.public.hex()) == (said["jwt"], said["user"])
    user = UserJwt.decode_untrusted(jwt)
    assert (user.permissions.publish, user.permissions.subscribe) == (
        (f"cx.join.{token.invite_id.hex()}",),
        (f"cx.joined.{token.invite_id.hex()}",),
    )
    made = Signer(
        user.account, KeyPair.from_seed_bytes(Kind.ACCOUNT, make_protocol.pattern("account's signing key", 32))
    )
    again = made.join_pass(token.invite_id, token.secret, issued_at=1_800_000_000, expires_at=1_800_086_400)
    assert again == token.broker.admission


def test_request_to_join_over_a_broker_is_bound_to_its_challenge():
    said = FIXED["broker_join"]
    token, nonce, challenge = Token.parse(FIXED["token"]["text"]), raw(said["nonce"]), raw(said["challenge"])
    binding = joining.join_binding(token.issuer, token.invite_id, nonce, challenge)
    assert binding.hex() == said["binding"]
    drawn = raw(FIXED["join_proof"]["nonce"])
    request = JoinRequest.build(token, keys("alice"), "kitchen", binding=binding, nonce=drawn)
    assert request.proof.hex() == said["proof"]
    assert request.proof.hex() != FIXED["join_proof"]["proof"]
    keys("alice").public.verify(b"", raw(said["signed"]), request.signature)


def test_boxes_of_joining_over_a_broker():
    said, secret = FIXED["broker_join"], Token.parse(FIXED["token"]["text"]).secret
    binding, nonce, salt = raw(said["binding"]), raw(said["nonce"]), raw(said["salt"])
    box_ = joining.seal_request(secret, binding, raw(said["request"]))
    assert box_.hex() == said["box"]
    assert joining.unseal_request_untrusted(secret, binding, box_) == raw(said["request"])
    told = joining.seal_told(secret, binding, nonce, joining.TellKind.REFUSED, raw(said["refusal"]), salt=salt)
    assert told.encode().hex() == said["told"]
    found = joining.unseal_told_untrusted(secret, binding, Told.decode_untrusted(raw(said["told"])))
    assert found == (joining.TellKind.REFUSED, raw(said["refusal"]))
    assert JoinRefused.decode_untrusted(found[1]).said == "used-up"


def test_messages_of_joining_over_a_broker():
    said = FIXED["broker_join"]
    issuer, nonce, challenge = keys("issuer").node_id, raw(said["nonce"]), raw(said["challenge"])
    assert Asked(issuer, nonce).encode().hex() == said["question"]
    assert Told(nonce, challenge).encode().hex() == said["challenged"]
    assert Asked(issuer, nonce, challenge, raw(said["box"])).encode().hex() == said["asked"]
    for name, kind in (("question", Asked), ("challenged", Told), ("asked", Asked), ("told", Told)):
        assert kind.decode_untrusted(raw(said[name])).encode().hex() == said[name]


def test_late_renewal_over_a_broker():
    said, exchange = FIXED["late_renewal"], FIXED["broker_join"]
    me = keys("alice").public.encode()[:32]
    assert renewal_id(me).hex() == said["id"]
    plain = Chain.decode_untrusted(raw(MADE_ONCE["signed_records"]["chain"])).credential
    user = UserJwt.decode_untrusted(FIXED["token_2"]["jwt"])
    signer = KeyPair.from_seed_bytes(Kind.ACCOUNT, make_protocol.pattern("account's signing key", 32))
    admission = Signer(user.account, signer).mint(plain)
    assert admission.partition(" ")[2] == said["pass"]
    assert late_jwt_of(admission) == said["jwt"]
    binding = joining.join_binding(
        joining.ANY_ISSUER, renewal_id(me), raw(exchange["nonce"]), raw(exchange["challenge"])
    )
    assert binding.hex() == said["binding"]
    assert joining.seal_request(joining.RENEWAL_SECRET, binding, raw(said["request"])).hex() == said["box"]


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
    rest = (BootId(raw(said["boot"])), raw(said["seed"]))
    dial = lan._signed(*common, *rest)
    accept = lan._signed(*common, *rest, kdf.sha256(raw(said["hello"])))
    assert (sign.context("lan-dial", REALM) + dial).hex() == said["dial_signed"]
    assert (sign.context("lan-accept", REALM) + accept).hex() == said["accept_signed"]
    assert instance_of(NodeId(raw(said["node_id"])), *rest).hex() == said["instance"]
    assert encode_frame(FrameType.BRIDGE, b"\1").hex() == said["bridge_frame"]
    reader = FrameReader()
    reader.feed(raw(said["bridge_frame"]))
    assert reader.take_untrusted() == (FrameType.BRIDGE, b"\1")


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


def test_short_card_is_whole_with_the_grant_that_it_names():
    records, chain = MADE_ONCE["signed_records"], signed_record(Chain, "chain")
    grants = {kdf.sha256(chain.grant.encode()): chain.grant}
    assert whole_card_untrusted(raw(records["short_card"]), grants.__getitem__) == raw(records["card"])
    assert signed_record(Card, "card").encode_short() == raw(records["short_card"])


def test_stream_handshakes_records_verify():
    open_, accept = signed_record(handshake.Open, "open"), signed_record(handshake.Accept, "accept")
    open_.verify_signature(keys("alice").public, REALM)
    accept.verify_signature(keys("bob").public, REALM)
    assert open_.sender_chain_hash == kdf.sha256(signed_record(Chain, "chain").encode())
    handshake.check_open(open_, sender=keys("alice").node_id, me=keys("bob").node_id)
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
