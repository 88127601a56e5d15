"""One target per parser of bytes or text from elsewhere.

Each takes any bytes and returns whether the parser accepted them.  An AssertionError is a finding, and so is an
exception that the parser may not raise.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from fuzz.script import Script, expand
from kit.builders import NOW_UNIX, hop_key, make_realm, node_keys, signing_key

from conflux.anchor import _codec, _codec_py, frame
from conflux.api import server
from conflux.carrier.ice.agent import Ice
from conflux.carrier.interface import Description
from conflux.carrier.native.channels import ChannelOffered, Channels
from conflux.carrier.native.dcep import NAME_BYTES_MAX, PPID_DCEP, decode_open_untrusted, encode_open
from conflux.carrier.tether import channel_protocol, parse_protocol_untrusted
from conflux.config import settings
from conflux.control.envelope import Envelope, Inner
from conflux.control.lan.frame import FrameReader, encode_frame
from conflux.control.lan.handshake import Greeting, Hello, Welcome
from conflux.control.lists import Asking
from conflux.control.nats.inbox import Inbox
from conflux.control.nats.protocol import Message, Said, ServerStream
from conflux.control.policies import PolicyAsked, PolicyPiece, PolicyTold
from conflux.control.who import Presence, Question, Who
from conflux.crypto import seal
from conflux.crypto.nkey import KeyPair, Kind
from conflux.datapath import packet
from conflux.datapath.feedback import Report, decode_interval_untrusted, encode_interval
from conflux.errors import ConfigError, RemoteProtocolError, UserError
from conflux.ids import RealmId, format_node_id, parse_node_id
from conflux.link.records import Answer, Candidates, Offer, Refusal
from conflux.policy.checks import examine
from conflux.policy.cover import Index
from conflux.policy.judge import passing_between
from conflux.policy.reading import read_untrusted
from conflux.policy.rules import End, Exit, Node
from conflux.realm.anchor import RealmAnchor
from conflux.realm.broker import subjects
from conflux.realm.broker.jwt import AccountJwt, OperatorJwt, UserJwt
from conflux.realm.card import Card, hop_key_id_of
from conflux.realm.credential import Chain, Credential, Grant
from conflux.realm.invite import Token, parse_hint
from conflux.realm.join import JoinAnswer, JoinRefused, JoinRequest, OfflineRequest, RenewRequest
from conflux.realm.lists import BrokerNotice, DenyList, SignedList
from conflux.realm.name import parse_name
from conflux.realm.policy import PolicyHead
from conflux.record import Record, decode_untrusted, encode
from conflux.route import onion
from conflux.route.message import decode_message_untrusted, encode_message
from conflux.stream.handshake import Accept, Open, Refused, RekeyAnswer, RekeyOffer
from conflux.web import request

TEMPLATE_HEAD = base64.urlsafe_b64encode(b'{"alg":"ed25519-nkey","typ":"JWT"}').decode().rstrip("=") + "."

# The first byte of the input chooses the record: one corpus per module of records.
RECORDS: dict[str, tuple[type[Record], ...]] = {
    "card": (Card, Chain, Credential, Grant, RealmAnchor),
    "join": (JoinRequest, OfflineRequest, JoinAnswer, JoinRefused, Token, RenewRequest),
    "link": (Offer, Answer, Candidates, Refusal, Description),
    "stream": (Open, Accept, Refused, RekeyOffer, RekeyAnswer),
    "envelope": (Envelope, Inner, Who, Question, Presence),
    "lan": (Greeting, Hello, Welcome),
    "lists": (SignedList, DenyList, BrokerNotice, Asking, PolicyHead, PolicyTold, PolicyAsked, PolicyPiece),
}

_ARGUMENTS = {
    "name": server.Argument(str, required=True, least=1, most=128),
    "count": server.Argument(int, default=4, least=1, most=1000),
    "interval": server.Argument(float, default=1.0, least=0.01, most=3600),
    "all": server.Argument(bool, default=False),
}
API_OPERATIONS = {"status": server.Operation(), "ping": server.Operation(arguments=_ARGUMENTS)}
REALM = make_realm()
NATS_ME = node_keys("alpha").public.encode()[:32]
CONFIG_KEYS = sorted(name for name, _, _ in settings.every_key())
_SEALER = ChaCha20Poly1305(bytes(32))


def record(family: str, data: bytes) -> bool:
    kinds = RECORDS[family]
    encoded = expand(data[1:])
    try:
        decoded = kinds[data[0] % len(kinds)].decode_untrusted(encoded) if data else None
    except RemoteProtocolError:
        return False
    assert decoded is None or decoded.encode() == encoded
    return decoded is not None


def cbor(data: bytes) -> bool:
    try:
        value = decode_untrusted(data, bytes_max=len(data))
    except RemoteProtocolError:
        return False
    assert encode(value) == data
    return True


def card_verify(data: bytes) -> bool:
    """A card with any content and the right signatures is refused, or its node can be sealed to.

    A hop key of zeros stands for a good one.
    """
    realm_id, keys, issuer = REALM.anchor.realm_id, node_keys("alpha"), signing_key("issuer")
    try:
        card = Card.decode_untrusted(expand(data))
        credential, grant = dataclasses.replace(card.chain.credential, node_public=keys.public.encode()), None
        if card.chain.grant is not None:
            grant = dataclasses.replace(card.chain.grant, issuer_public=issuer.public.encode())
            grant = grant.sign(REALM.root, realm_id)
        chain = Chain(credential.sign(issuer if grant else REALM.root, realm_id), grant)
        hop_public = card.hop_public if any(card.hop_public) else hop_key("alpha").public
        card = dataclasses.replace(card, chain=chain, hop_key_id=hop_key_id_of(hop_public), hop_public=hop_public)
        card = card.sign(keys.signing, realm_id)
        card.verify(REALM.anchor, now_unix=NOW_UNIX)
    except RemoteProtocolError:
        return False
    assert seal.seal(card.hop_public, b"", b"")
    assert card.node_id == keys.node_id
    assert card.addresses
    return True


def _outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except RemoteProtocolError as error:
        return type(error), error.reason


def frame_codec(data: bytes) -> bool:
    """The compiled codec and its twin do the same with any frame, and with any bundle that verifies."""
    made = (frame.CHACHA20_POLY1305, bytes(32), bytes(4), 0)
    flags, bundle = (data[0] & 3, data[1:]) if data else (0, b"")
    header = bytes((frame.VERSION, flags, 0, 0)) + bytes(12)
    sealed = header + _SEALER.encrypt(bytes(12), bundle, header[:1] + bytes((flags & ~frame.CE,)) + header[2:])
    outcomes = []
    for codec in (_codec, _codec_py):
        receiver = codec.Receiver(*made)
        said = [_outcome(codec.peek, data), _outcome(codec.relabel, data, 2**32 - 1, True)]
        said += [_outcome(receiver.unseal, bytes_) for bytes_ in (data, sealed, sealed)]
        outcomes.append([*said, receiver.highest, receiver.received, receiver.marked])
    assert outcomes[0] == outcomes[1]
    entries = outcomes[0][3]
    if not isinstance(entries, list):
        return False
    assert b"".join(bytes((kind,)) + len(body).to_bytes(2) + body for kind, body in entries) == bundle
    return True


def lan_frame(data: bytes) -> bool:
    """A stream cut into pieces of any size says the same as the whole, up to the first thing that is wrong."""
    size, stream = (data[0] + 1, expand(data[1:])) if data else (1, b"")
    reader, heard = FrameReader(), b""
    try:
        for start in range(0, len(stream), size):
            reader.feed(stream[start : start + size])
            heard += b"".join(encode_frame(*frame_) for frame_ in iter(reader.take_untrusted, None))
    except RemoteProtocolError:
        assert stream.startswith(heard)
        return False
    assert stream.startswith(heard)
    whole = FrameReader()
    whole.feed(stream)
    assert heard == b"".join(encode_frame(*frame_) for frame_ in iter(whole.take_untrusted, None))
    return heard != b""


def nats(data: bytes) -> bool:
    """A server's stream cut into pieces of any size says the same as the whole, up to the first thing that is wrong.

    What it says is taken by a node's inbox, which raises nothing and counts what it drops.
    """
    size, stream = (data[0] + 1, expand(data[1:])) if data else (1, b"")
    pieces = ServerStream()
    heard: list[Said] = []
    try:
        for start in range(0, len(stream), size):
            heard += pieces.feed_untrusted(stream[start : start + size])
    except RemoteProtocolError:
        return False
    assert heard == list(ServerStream().feed_untrusted(stream))
    drops: Counter[str] = Counter()
    inbox = Inbox(NATS_ME, "main", lambda reason: drops.update((reason,)))
    inbox.buckets = frozenset({7})
    messages = [said for said in heard if isinstance(said, Message)]
    taken = [inbox.receive_untrusted(message, now=0.0) for message in messages]
    assert len(messages) == drops.total() + sum(each is not None for each in taken)
    return heard != []


def route_message(data: bytes) -> bool:
    encoded = expand(data)
    try:
        message = decode_message_untrusted(encoded)
    except RemoteProtocolError:
        return False
    assert encode_message(message) == encoded
    return True


def onion_slot(data: bytes) -> bool:
    """Any plaintext in our slot, its hash right or not, before any tail, or before none; or not sealed."""
    script = Script(data)
    choices, plain = script.byte(), script.chunk()
    tail = script.chunk()[: onion.ONION_BYTES].rjust(onion.ONION_BYTES - onion.SLOT_BYTES, b"\0")
    if choices & 2:
        tail = b""
    if choices & 1:
        plain = plain[:-32] + hashlib.sha256(tail).digest()
    sent = bytes(onion.SLOT_BYTES) + tail
    if choices & 4:
        sent = plain[: onion.CLEAR_BYTES].ljust(onion.CLEAR_BYTES, b"\0")
    try:
        peeled = onion.peel_untrusted(sent, lambda *_: plain, realm=RealmId(bytes(16)))
    except RemoteProtocolError:
        return False
    assert (peeled.next is None) != (peeled.stream is None)
    assert len(peeled.rest) == (0 if peeled.next is None else onion.ONION_BYTES)
    assert len(peeled.route_key) == onion.ROUTE_KEY_BYTES
    return True


def token(data: bytes) -> bool:
    """Any text, and any bytes under a right check sum."""
    text = data[1:].decode("utf-8", "surrogateescape")
    if data[:1] == b"\1":
        body = expand(data[1:])
        text = "cfx1" + base64.urlsafe_b64encode(body + hashlib.sha256(body).digest()[:4]).decode().rstrip("=")
    try:
        parsed = Token.parse(text)
    except ConfigError:
        return False
    assert parsed.format() == text.strip()
    return True


OPERATOR_KEY = KeyPair.from_seed_bytes(Kind.OPERATOR, b"o" * 32)
ACCOUNT_KEY = KeyPair.from_seed_bytes(Kind.ACCOUNT, b"a" * 32)
JWTS: tuple[tuple[type[OperatorJwt | AccountJwt | UserJwt], KeyPair], ...] = (
    (OperatorJwt, OPERATOR_KEY),
    (AccountJwt, OPERATOR_KEY),
    (UserJwt, ACCOUNT_KEY),
)


def jwt(data: bytes) -> bool:
    """Any text as a JWT, any claims under a signature that verifies, and any text as a subject."""
    if not data:
        return False
    if data[0] == len(JWTS) + 1:
        return _subject(data[1:].decode("utf-8", "replace"))
    shape, key = JWTS[data[0] % len(JWTS)]
    text = data[1:].decode("utf-8", "surrogateescape")
    if data[0] < len(JWTS):
        head = TEMPLATE_HEAD + base64.urlsafe_b64encode(data[1:]).decode().rstrip("=")
        text = f"{head}.{base64.urlsafe_b64encode(key.sign(head.encode())).decode().rstrip('=')}"
    try:
        told = shape.decode_untrusted(text)
    except RemoteProtocolError:
        return False
    assert told.encode(key) == text
    return True


def _subject(text: str) -> bool:
    try:
        subjects.parse_untrusted(text)
    except RemoteProtocolError:
        return False
    return True


def names(data: bytes) -> bool:
    text = data.decode("utf-8", "surrogateescape")
    accepted = False
    parsers: tuple[Callable[[str], object], ...] = (parse_name, parse_hint, parse_node_id)
    for parse in parsers:
        try:
            parse(text)
        except ConfigError:
            continue
        accepted = True
        assert parse is not parse_node_id or format_node_id(parse_node_id(text)) == text.lower()
    return accepted


def toml(data: bytes) -> bool:
    """Any text; and any value for any key there is."""
    script = Script(data)
    text = data[1:].decode("utf-8", "replace")
    if script.byte():
        key, count = CONFIG_KEYS[script.byte() % len(CONFIG_KEYS)], script.byte() % 3
        values = [json.dumps(_json_value(script)).replace("NaN", "nan").replace("null", "{}") for _ in range(count)]
        text = f"{key} = {values[0] if count == 1 else '[' + ','.join(values) + ']'}"
    try:
        settings.parse(text)
    except ConfigError:
        return False
    return True


def policy(data: bytes) -> bool:
    """Any text as a rule file: what is read is examined, and the judge and its index agree."""
    read = read_untrusted(data)
    assert (read.policy is None) == (read.faults != ())
    assert all(fault.text.isprintable() for fault in read.faults)
    if read.policy is None:
        return False
    found = examine(read, (Node("nas", frozenset({"a"})), Node("b")), now_unix=NOW_UNIX)
    assert found.aims == sum(len(check.reaches) + len(check.refused) for check in read.policy.checks)
    index = Index(read.policy)
    ends: tuple[End, ...] = (Node("nas", frozenset({"a"})), Node(None), ip_address("10.20.1.9"), Exit())
    for source in ends:
        for target in ends:
            rules = index.rules_between(source, target)
            quick = list(passing_between(read.policy, source, target, at_unix=NOW_UNIX, rules=rules))
            assert quick == list(passing_between(read.policy, source, target, at_unix=NOW_UNIX))
    return True


def _json_value(script: Script) -> object:
    """A value of any type, and a number of any length."""
    match script.byte() % 6:
        case 0:
            return script.chunk().decode("utf-8", "surrogateescape")
        case 1:
            return (script.byte() - 128) * 10 ** (script.byte() * 2)
        case 2:
            return (script.byte() - 128) * float(f"1e{script.byte() - 128}")
        case 3:
            return math.nan
        case 4:
            return bool(script.byte() & 1)
    return [None, "x"]


def api_request(data: bytes) -> bool:
    """Any line; and any value for an argument, for the fuzzer cannot see into the JSON reader."""
    script = Script(data)
    line = data[1:]
    if script.byte():
        said = {name: _json_value(script) for name in _ARGUMENTS if script.byte() & 1}
        line = json.dumps({"do": "ping", **said}).encode()
    try:
        operation, arguments = server.parse_untrusted(line, API_OPERATIONS)
    except UserError:
        return False
    assert arguments.keys() == operation.arguments.keys()
    for name, argument in operation.arguments.items():
        assert arguments[name] is argument.default or type(arguments[name]) is argument.kind
    return True


OUR_NAMES = frozenset({"attic", "attic.local", "localhost"})
OUR_ADDRESSES = frozenset({ip_address("127.0.0.1"), ip_address("fd00::1")})


def web_request(data: bytes) -> bool:
    """Any head of a request to the page."""
    try:
        asked = request.parse_untrusted(data)
    except request.Refused as refused:
        _require(refused.status in request.PHRASES)
        return False
    assert re.fullmatch("/[!-~]*", asked.path)
    assert "?" not in asked.path
    hosts = [line for line in data.decode("ascii").split("\r\n")[1:] if line.lower().startswith("host:")]
    assert len(hosts) == 1
    assert asked.host in hosts[0].lower()
    try:
        request.require_ours(asked.host, OUR_NAMES, OUR_ADDRESSES)
    except request.Refused as refused:
        _require(refused.status == 421 and asked.host not in OUR_NAMES)
    else:
        assert asked.host in OUR_NAMES or ip_address(asked.host) in OUR_ADDRESSES
    return True


def _require(holds: bool) -> None:
    assert holds


def ip_packet(data: bytes) -> bool:
    try:
        parsed = packet.parse(data)
    except RemoteProtocolError:
        return False
    assert len(parsed[0]) == len(parsed[1]) == (4 if data[0] >> 4 == 4 else 16)
    assert 0 <= parsed[2] < 2**32
    marked = packet.mark_congestion(data)
    assert marked is None or packet.parse(marked) == parsed
    assert marked is None or packet.mark_congestion(marked) == marked
    return True


def feedback(data: bytes) -> bool:
    try:
        if len(data) == 4:
            assert encode_interval(decode_interval_untrusted(data)) == data
        else:
            assert Report.decode_untrusted(data).encode() == data
    except RemoteProtocolError:
        return False
    return True


def channels(data: bytes) -> bool:
    """A message that opens a data channel, to an end of a link that has some."""
    try:
        label, protocol, reliability = decode_open_untrusted(data)
    except RemoteProtocolError:
        return False
    if max(len(label.encode()), len(protocol.encode())) <= NAME_BYTES_MAX:
        assert decode_open_untrusted(encode_open(label, protocol, reliability)) == (label, protocol, reliability)
    side = Channels(is_client=False, drop_counts=Counter())
    side.message_untrusted(0, PPID_DCEP, data)
    assert side.next_event() == ChannelOffered(0, label, protocol, reliability)
    return True


def carrier(data: bytes) -> bool:
    """The name of a data channel, and a candidate address."""
    text = data.decode("utf-8", "replace")
    named = parse_protocol_untrusted(text)
    assert named is None or channel_protocol(*named) == text
    agent: Any = SimpleNamespace(_addresses=("192.0.2.1",), _refused=())
    agent._may_send_to = partial(Ice._may_send_to, agent)
    found = Ice._candidate_untrusted(agent, text)
    assert found is None or (found.component == 1 and 0 < found.port < 65536)
    return named is not None or found is not None
