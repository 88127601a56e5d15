"""Where fuzzing starts: real encodings, with zeros in place of keys and signatures.

They are made anew at every run: a record that changed is fuzzed in its new form.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from fuzz.parsers import ACCOUNT_KEY, CONFIG_KEYS, JWTS, OPERATOR_KEY, RECORDS
from fuzz.script import chunk, shorten
from kit.builders import (
    FIRST_BOOT,
    NOW_UNIX,
    make_card,
    make_credential,
    make_grant,
    make_member,
    make_realm,
    node_keys,
    signing_key,
)
from kit.datapath import udp
from kit.lists import deny_list
from kit.published import OPEN_TEXT, published
from kit.tree import DOCS

from conflux.anchor import _codec, frame
from conflux.carrier.interface import Description
from conflux.carrier.native.dcep import Reliability, encode_open
from conflux.carrier.tether import channel_protocol
from conflux.control.envelope import Envelope, Inner, Kind
from conflux.control.lan.frame import FrameType, encode_frame
from conflux.control.lan.handshake import Greeting, Hello, Welcome, realm_tag
from conflux.control.lists import Asking
from conflux.control.policies import PolicyAsked, PolicyPiece, PolicyTold
from conflux.control.who import Presence, Question, Who
from conflux.datapath.feedback import Report, encode_interval
from conflux.ids import NodeId, TetherId, format_node_id
from conflux.link.records import Answer, Candidates, Offer, Refusal
from conflux.realm.broker import subjects
from conflux.realm.broker.jwt import AccountJwt, OperatorJwt
from conflux.realm.broker.users import Signer
from conflux.realm.card import Card
from conflux.realm.credential import Chain
from conflux.realm.invite import make_invite
from conflux.realm.join import JoinAnswer, JoinRefused, JoinRequest, OfflineRequest, RenewRequest
from conflux.realm.listbook import ListBook
from conflux.realm.lists import BrokerNotice, Denial, DenyList
from conflux.record import Record, decode_untrusted, encode
from conflux.route import onion
from conflux.route.message import Confirm, Refuse, Setup, Teardown, encode_message
from conflux.stream.handshake import Accept, Open, Refused, RekeyAnswer, RekeyOffer, Vantage

BULK_BYTES = 64  # longer strings are keys, ciphertexts and signatures
CANDIDATE = "0 1 udp 2130706431 192.0.2.7 50000 typ srflx raddr 10.0.0.1 rport 9"


def hollow(item: Any) -> Any:
    """Return a decoded item with its bulk zeroed."""
    if isinstance(item, list):
        return [hollow(entry) for entry in item]
    return bytes(len(item)) if isinstance(item, bytes) and len(item) >= BULK_BYTES else item


def short(record: Record) -> bytes:
    return shorten(encode(hollow(decode_untrusted(record.encode(), bytes_max=2**20))))


def _samples() -> list[Record]:
    realm, keys = make_realm(), node_keys("alpha")
    alpha = make_member(realm, "alpha")
    issuer = signing_key("issuer")
    granted = Chain(make_credential(realm, "alpha", tags=("t",), issuer=issuer), make_grant(realm, issuer))
    book = ListBook(realm.anchor, lambda: NOW_UNIX)
    book.learn(deny_list(alpha.node_id))
    signature, stream, attempt = bytes(3373), bytes(16), bytes(8)
    _, token = make_invite(realm.anchor, alpha.node_id, now_unix=NOW_UNIX, entropy=bytes, hints=("[2001:db8::7]:7464",))
    description = Description("ufrag", "password" * 3, bytes(32), 5000, 65536, (CANDIDATE,))
    return [
        published(OPEN_TEXT).head,
        PolicyTold(NOW_UNIX, bytes(32)),
        PolicyAsked(bytes(32), 1),
        PolicyPiece(bytes(32), 1, b"p"),
        make_card(alpha),
        Card(granted, FIRST_BOOT, bytes(8), bytes(1216), 1, ("relay", "x"), signature),
        granted,
        alpha.chain.credential,
        make_grant(realm, issuer),
        realm.anchor,
        JoinRequest.build(token, keys, "alpha", binding=bytes(32), nonce=bytes(32)),
        OfflineRequest.build(keys, "alpha", nonce=bytes(32)),
        JoinAnswer(realm.anchor, granted, bytes(32), signature),
        JoinRefused("used-up"),
        token,
        RenewRequest(granted, bytes(32), signature),
        Offer(attempt, 1, description),
        Answer(attempt, description),
        Candidates(attempt, (CANDIDATE,)),
        Refusal(attempt, 3, "glare"),
        description,
        Open(alpha.node_id, alpha.node_id, stream, FIRST_BOOT, bytes(1216), 86400, bytes(32), (2,), attempt, signature),
        Accept(
            stream,
            bytes(32),
            bytes(1120),
            2,
            (),
            9,
            40,
            (Vantage(stream, 5, attempt, bytes(1216)),),
            attempt,
            signature,
        ),
        Refused(stream, "busy"),
        RekeyOffer(1, bytes(1216)),
        RekeyAnswer(1, bytes(1120)),
        Envelope(alpha.node_id, bytes(16), 8, bytes(8), b"sealed"),
        Envelope(None, bytes(16), 0, None, b"plain"),
        Inner(alpha.node_id, FIRST_BOOT, 7, Kind.OPEN, 0, b"body", bytes(64)),
        Who(address=alpha.addresses[0]),
        Who(name="alpha"),
        Who(node=alpha.node_id),
        Question(Who(name="alpha"), b"card"),
        Presence(3, bytes(8)),
        Greeting(bytes(32)),
        deny_list(alpha.node_id),
        DenyList((Denial(alpha.node_id, NOW_UNIX, "lost"),)),
        BrokerNotice(("tls://b:1",), b"ca", "main"),
        Asking.of(book, answers=True),
        Hello(realm_tag(realm.anchor.realm_id), alpha.chain, FIRST_BOOT, bytes(8), bytes(32), signature),
        Welcome(alpha.chain, FIRST_BOOT, bytes(8), signature),
    ]


def records() -> dict[str, list[bytes]]:
    """One seed for every record there is."""
    found: dict[str, list[bytes]] = {}
    for family, kinds in RECORDS.items():
        of_family = [sample for sample in _samples() if type(sample) in kinds]
        assert {type(sample) for sample in of_family} == set(kinds)
        found[family] = [bytes((kinds.index(type(sample)),)) + short(sample) for sample in of_family]
    return found


def _nats() -> bytes:
    """Return what a server says to alpha: one thing of each sort."""
    me, you = (node_keys(name).public.encode()[:32] for name in ("alpha", "bravo"))
    envelopes = {
        subjects.message(me, you): Envelope(node_keys("alpha").node_id, bytes(16), 8, None, b"x"),
        subjects.presence("main", you): Envelope(None, bytes(16), 8, None, b"x"),
        subjects.question(7, you): Envelope(None, bytes(16), 8, None, b"x", 7),
        subjects.auth("lists"): Envelope(None, bytes(16), 8, None, b"x"),
    }
    said = [b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b'INFO {"ldm":true}\r\n', b"-ERR 'Slow Consumer'\r\n"]
    for subject, envelope in envelopes.items():
        data = envelope.encode()
        said.append(b"MSG %s 1 %d\r\n%s\r\n" % (subject.encode(), len(data), data))
    nobody = subjects.no_responders(me, you).encode()
    said.append(b"HMSG %s 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n" % nobody)
    said.append(b"MSG a 1 40000\r\n" + bytes(40000) + b"\r\n")
    return shorten(b"".join(said))


def others() -> dict[str, list[bytes]]:
    """Seeds that the other parsers accept."""
    alpha, tether = make_member(make_realm(), "alpha"), TetherId(bytes(8))
    cards = [sample for sample in _samples() if isinstance(sample, Card)]
    bad_key = b"\1" + shorten(bytes(1215))
    _, token = make_invite(make_realm().anchor, alpha.node_id, now_unix=NOW_UNIX, entropy=bytes, hints=("[::1]:7464",))
    sender = _codec.Sender(frame.CHACHA20_POLY1305, bytes(32), bytes(4), 0)
    offload = bytes(10) + b"x"
    bundle = sender.seal(0, 0, [])[:0] + b"\1\0\1E" + b"\2\0\x0b" + offload + b"\4\0\0"
    messages: list[Setup | Confirm | Refuse | Teardown] = [
        Setup(bytes(8), bytes(8), 4, 7, bytes(onion.ONION_BYTES)),
        Confirm(bytes(8), 7, b"sealed"),
        Refuse(bytes(8), b"", b"stale-key"),
        Teardown(7, b""),
    ]
    slot = bytes((1,)) + bytes(16) + (3600).to_bytes(4) + bytes(64)
    return {
        "api": [
            *(b"\0" + json.dumps(request).encode() for request in _REQUESTS),
            b"\1\1" + b"\0" + chunk(b"s") + b"\1\1\x82\0" + b"\1\2\x81\x80" + b"\1\4\1",
        ],
        "card-verify": [*map(short, cards), short(cards[0]).replace(shorten(bytes(1216)), bad_key)],
        "carrier": [channel_protocol(tether, 1, 4).encode(), CANDIDATE.encode()],
        "channels": [
            encode_open("conflux.link.1", "", Reliability()),
            encode_open("conflux.tether.1", channel_protocol(tether, 1, 4), Reliability(False, lifetime_ms_max=250)),
        ],
        "cbor": [encode([1, [None, True, -7, 2**40], "text", b"bytes" * 9, [[[[]]]]])],
        "config": [b"\0" + _CONFIG, bytes((1, CONFIG_KEYS.index("stream.idle_timeout"), 1, 2, 130, 128))],
        "feedback": [Report(9, 5, 1, 5000, 77, 8, 9).encode(), encode_interval(0.5)],
        "frame": [b"\1" + bundle],
        "jwt": _jwts(),
        "lan-frame": [b"\4" + b"".join(encode_frame(kind, b"body") for kind in FrameType)],
        "lan-stranger": _strangers(),
        "names": [b"alpha-1", b"[2001:db8::7]:7464", b"host.example:1", format_node_id(alpha.node_id).encode()],
        "nats": [bytes((size,)) + _nats() for size in (3, 255)],
        "onion": [
            bytes((1,)) + chunk(slot) + chunk(bytes(9)),
            bytes((1,)) + chunk(b"\0" + slot[1:]) + chunk(b""),
            bytes((4,)) + chunk(slot) + chunk(b""),
        ],
        "packet": [udp(tos=1), udp("fd00::a", "fd00::b", tos=1), udp(body=b"x" * 9, tos=2)],
        "policy": [file.read_bytes() for file in sorted((DOCS / "examples" / "policy").glob("*.toml"))],
        "route": [shorten(encode_message(message)) for message in messages],
        "web": [
            b"GET / HTTP/1.1\r\nHost: attic.local:7480\r\nAccept: text/html, */*\r\nUser-Agent: a (b; c)",
            b"HEAD /state.json?x=1 HTTP/1.0\r\nhost:[fd00::1]:7480\r\ncontent-length: 0",
            b"GET /metrics HTTP/1.1\r\nX: y\r\nHost: \tevil.example. ",
        ],
        "token": [b"\0" + token.format().encode(), b"\1" + shorten(token.encode())],
    }


def _strangers() -> list[bytes]:
    """Return what a stranger says to one that accepts, and to one that dials, in large pieces and in small ones."""
    first = {type(sample): sample.encode() for sample in reversed(_samples())}
    greeting = encode_frame(FrameType.GREETING, first[Greeting])
    accepting = (
        encode_frame(FrameType.HELLO, first[Hello]),
        encode_frame(FrameType.JOIN, first[JoinRequest]) + encode_frame(FrameType.ENVELOPE, b"too early"),
        encode_frame(FrameType.RENEW, first[RenewRequest]),
    )
    dialling = (
        greeting + encode_frame(FrameType.WELCOME, first[Welcome]),
        greeting + encode_frame(FrameType.REVOKED, deny_list(make_member(make_realm(), "alpha").node_id).encode()),
    )
    return [
        bytes((pieces << 1 | dials,)) + shorten(stream)
        for dials, streams in enumerate((accepting, dialling))
        for stream in streams
        for pieces in (3, 127)
    ]


def _jwts() -> list[bytes]:
    """Return the claims of one JWT of each kind, one JWT as it is, and a subject."""
    operator, account, user = OPERATOR_KEY.public, ACCOUNT_KEY.public, b"u" * 32
    texts = [
        OperatorJwt(operator, account, "home", NOW_UNIX).encode(OPERATOR_KEY),
        AccountJwt(account, "home", NOW_UNIX, (account,), {user: NOW_UNIX}).encode(OPERATOR_KEY),
        Signer(account, ACCOUNT_KEY).leaf_jwt(user, issued_at=NOW_UNIX),
    ]
    bodies = [base64.urlsafe_b64decode(text.split(".")[1] + "==") for text in texts]
    return [
        *(bytes((kind,)) + body for kind, body in enumerate(bodies)),
        bytes((len(JWTS) + 2,)) + texts[2].encode(),
        bytes((len(JWTS) + 1,)) + subjects.message(user, user).encode(),
    ]


def machines() -> dict[str, list[bytes]]:
    """Return scripts that bring each machine to a state from which the fuzzer can go on."""
    first = {type(sample): short(sample) for sample in reversed(_samples())}

    def said(*parts: int | type[Record] | bytes) -> bytes:
        return b"".join(
            bytes((part,)) if isinstance(part, int) else chunk(part) if isinstance(part, bytes) else _chunk(first[part])
            for part in parts
        )

    asked = Inner(NodeId(b"\2" * 16), FIRST_BOOT, 7, Kind.WHO, 0, b"body", bytes(64)).encode()

    def question(payload: bytes, hop_limit: int = 3) -> bytes:
        return Envelope(None, bytes(16), hop_limit, None, payload, 7).encode()

    onward = Envelope(NodeId(b"\1" * 16), bytes(16), 3, bytes(8), b"sealed").encode()
    card = said(4, b"", Kind.CARD, 1, 1, 0)
    return {
        "machine-datapath": [
            said(4, b"packet", 1, b"\1\0\x1c" + udp(), 0, b"\7\0\x30" + Report(0, 1, 0, 30, 7, 8, 9).encode()),
            said(1, b"\7\0\4" + encode_interval(0.5), 0x71, b"\5\0\1x", 1, b"\4\0\0"),
        ],
        "machine-lan": [said(1, 0, Hello), said(1, 1, Hello), said(0, 0, Greeting, Welcome)],
        "machine-link": [
            said(0, 3, 6, 1, Answer, 3, 4, 6, 2, Candidates, 5, 2, 200),
            said(7, 0, Offer, 3, 4, 135, 0, Offer, 3, 6, 3, Refusal, 1),
        ],
        "machine-plane": [
            card + said(5, b"body", Kind.OPEN, 2, 1, 0, 1) + said(5, b"body", Kind.ACCEPT, 3, 1, 1, 0, 255),
            said(4, b"", Kind.WHO, 1, 1, 0, 4, b"\x82\1\1", Kind.PRESENCE, 9, 2, 0, 0, 8, 1, Envelope, 2, Inner),
            card + said(4, bytes(32), Kind.CARD, 2, 2, 0, 3, 0, b"body"),
        ],
        "machine-bridge": [said(1, Envelope, 0, onward, 2, onward)],
        "machine-crossing": [
            said(0, onward, 1, Envelope, 2, onward, 3, Envelope, 3, onward),
            said(1, question(asked), 3, question(b"rubbish"), 0, question(b"x", hop_limit=0)),
        ],
        "machine-route": [
            # Deliver, and tear down; relay, by the other link, confirmed; refuse; our own, confirmed.
            said(0, 1, 5, 9, 7, 7, 4, 1, b"last"),
            said(0, 0, 5, 9, 7, 7, 135, 2) + said(5, 6, 0, 2, 9, b"", 4, 1, b""),
            said(0, 0, 5, 9, 7, 7, 5, 3, b"", b"busy", 7, 6, 0, 2, 9, b"", 8, 255, 9),
        ],
        "machine-stream": [said(1, Open, 4, 0, RekeyOffer, 2, Accept, 3, Refused, 5, 2, 4, 1, RekeyAnswer)],
    }


def _chunk(shortened: bytes) -> bytes:
    return len(shortened).to_bytes(2) + shortened


_REQUESTS = (
    {"do": "status"},
    {"do": "ping", "name": "sensor", "count": 2, "interval": 0.5, "all": True},
    {"do": "ping", "name": "s", "interval": 1},
)
_CONFIG = b"""[node]
name = "alpha"
[tun]
mtu = 1400
[control.nats]
servers = ["tls://b.example:4222", "tls://[::1]"]
ca = "/ca.pem"
area = "main"
[control.lan]
peers = ["192.0.2.1:7464"]
[stream]
idle_timeout = 2.5
"""


def seeds() -> dict[str, list[bytes]]:
    """Every seed, by target."""
    return {**records(), **others(), **machines()}
