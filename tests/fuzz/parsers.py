"""One target per parser of bytes or text that somebody else wrote.

Each takes any bytes and returns whether the parser accepted them.  An AssertionError, or an exception that the parser
has no right to raise, is a finding.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from builders import NOW_UNIX, hop_key, make_realm, node_keys, signing_key
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from fuzz.script import Script, expand

from conflux import api, config, wire
from conflux.anchor import _codec, _codec_py, frame
from conflux.carrier.channels import (
    NAME_BYTES_MAX,
    PPID_DCEP,
    ChannelOffered,
    Channels,
    decode_open_untrusted,
    encode_open,
)
from conflux.carrier.ice import Ice
from conflux.carrier.interface import Description
from conflux.carrier.tether import channel_protocol, parse_protocol_untrusted
from conflux.control.envelope import Envelope, Inner
from conflux.control.lan.frame import FrameReader, encode_frame
from conflux.control.lan.handshake import Greeting, Hello, Welcome
from conflux.control.question import Presence, Question, Who
from conflux.crypto import seal
from conflux.datapath import packet
from conflux.datapath.feedback import Report, decode_interval_untrusted, encode_interval
from conflux.errors import ConfigError, RemoteProtocolError, UserError
from conflux.ids import RealmId, format_node_id, parse_node_id
from conflux.link.records import Answer, Candidates, Offer, Refusal
from conflux.realm.anchor import RealmAnchor
from conflux.realm.card import Card, hop_key_id_of
from conflux.realm.credential import Chain, Credential, Grant
from conflux.realm.invite import Token, parse_hint
from conflux.realm.join import JoinAnswer, JoinRefused, JoinRequest, OfflineRequest
from conflux.realm.name import parse_name
from conflux.route import onion
from conflux.route.message import decode_message_untrusted, encode_message
from conflux.stream.handshake import Accept, Open, Refused, RekeyAnswer, RekeyOffer

# The first byte of the input chooses the record: one corpus per module of records.
RECORDS: dict[str, tuple[type[wire.Record], ...]] = {
    "card": (Card, Chain, Credential, Grant, RealmAnchor),
    "join": (JoinRequest, OfflineRequest, JoinAnswer, JoinRefused, Token),
    "link": (Offer, Answer, Candidates, Refusal, Description),
    "stream": (Open, Accept, Refused, RekeyOffer, RekeyAnswer),
    "envelope": (Envelope, Inner, Who, Question, Presence),
    "lan": (Greeting, Hello, Welcome),
}

_ARGUMENTS = {
    "name": api.Argument(str, required=True, least=1, most=128),
    "count": api.Argument(int, default=4, least=1, most=1000),
    "interval": api.Argument(float, default=1.0, least=0.01, most=3600),
    "all": api.Argument(bool, default=False),
}
API_OPERATIONS = {"status": api.Operation(), "ping": api.Operation(arguments=_ARGUMENTS)}
REALM = make_realm()
CONFIG_KEYS = sorted(name for name, _, _ in config.every_key())
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
        value = wire.decode_untrusted(data, bytes_max=len(data))
    except RemoteProtocolError:
        return False
    assert wire.encode(value) == data
    return True


def card_verify(data: bytes) -> bool:
    """A card that says anything, signed by those who should sign it: refused, or good for sealing to its node.

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
    """Compiled and twin do the same with any frame, and with any bundle that verifies."""
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
    """A stream cut anywhere says the same as whole, until it says something wrong."""
    size, stream = (data[0] + 1, expand(data[1:])) if data else (1, b"")
    reader, heard = FrameReader(), b""
    try:
        for start in range(0, len(stream), size):
            heard += b"".join(encode_frame(*frame_) for frame_ in reader.feed_untrusted(stream[start : start + size]))
    except RemoteProtocolError:
        assert stream.startswith(heard)
        return False
    assert stream.startswith(heard)
    assert heard == b"".join(encode_frame(*frame_) for frame_ in FrameReader().feed_untrusted(stream))
    return heard != b""


def route_message(data: bytes) -> bool:
    encoded = expand(data)
    try:
        message = decode_message_untrusted(encoded)
    except RemoteProtocolError:
        return False
    assert encode_message(message) == encoded
    return True


def onion_slot(data: bytes) -> bool:
    """Any plaintext in our slot, its hash right or not, before any tail."""
    script = Script(data)
    hash_is_right, plain = script.byte() & 1, script.chunk()
    tail = script.chunk()[: onion.ONION_BYTES].rjust(onion.ONION_BYTES - onion.SLOT_BYTES, b"\0")
    if hash_is_right:
        plain = plain[:-32] + hashlib.sha256(tail).digest()
    try:
        peeled = onion.peel_untrusted(bytes(onion.SLOT_BYTES) + tail, lambda *_: plain, realm=RealmId(bytes(16)))
    except RemoteProtocolError:
        return False
    assert (peeled.next is None) != (peeled.stream is None)
    assert len(peeled.rest) == onion.ONION_BYTES
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


def names(data: bytes) -> bool:
    text = data.decode("utf-8", "surrogateescape")
    accepted = False
    for parse in (parse_name, parse_hint, parse_node_id):
        try:
            parsed = parse(text)
        except ConfigError:
            continue
        accepted = True
        assert parse is not parse_node_id or format_node_id(parsed) == text.lower()
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
        config.parse(text)
    except ConfigError:
        return False
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
    """Any line; and, as the JSON reader shows the fuzzer nothing, any value for an argument."""
    script = Script(data)
    line = data[1:]
    if script.byte():
        arguments = {name: _json_value(script) for name in _ARGUMENTS if script.byte() & 1}
        line = json.dumps({"do": "ping", **arguments}).encode()
    try:
        operation, arguments = api.parse_untrusted(line, API_OPERATIONS)
    except UserError:
        return False
    assert arguments.keys() == operation.arguments.keys()
    for name, argument in operation.arguments.items():
        assert arguments[name] is argument.default or type(arguments[name]) is argument.kind
    return True


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
    """What opens a data channel, said to a side that has some."""
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
    """What names a data channel, and an address to try."""
    text = data.decode("utf-8", "replace")
    named = parse_protocol_untrusted(text)
    assert named is None or channel_protocol(*named) == text
    agent = SimpleNamespace(_addresses=("192.0.2.1",), _refused=())
    found = Ice._candidate_untrusted(agent, text)
    assert found is None or (found.component == 1 and 0 < found.port < 65536)
    return named is not None or found is not None
