"""Makes protocol.json: known answers for everything in docs/reference/protocol.md that is not a frame.

Written from docs/reference/protocol.md alone: nothing of conflux is imported, so that a field that moves is noticed.
What chance has no part in ("fixed") is the same in every run; signatures with ML-DSA and seals with HPKE ("made_once")
differ, and each run replaces them by others that are as good:

    python tests/vectors/make_protocol.py
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey, Suite

PROTOCOL = Path(__file__).with_name("protocol.json")
SOURCE = "Conflux's own; made by tests/vectors/make_protocol.py with cryptography 50.0.2, 2026-11-22"

# ── the pieces docs/reference/protocol.md names ──────────────────────────────────────────────────────────────────────


def cbor(value: object) -> bytes:
    """Canonical CBOR of what records are made of (RFC 8949, section 4.2.1)."""
    match value:
        case None:
            return b"\xf6"
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return head(0, value) if value >= 0 else head(1, -1 - value)
        case bytes():
            return head(2, len(value)) + value
        case str():
            return head(3, len(value.encode())) + value.encode()
        case list():
            return head(4, len(value)) + b"".join(map(cbor, value))
    raise TypeError(type(value))


def head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    size = next(size for size in (1, 2, 4, 8) if argument < 1 << 8 * size)
    return bytes([major << 5 | 24 + size.bit_length() - 1]) + argument.to_bytes(size, "big")


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hkdf(secret: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869 with SHA-256."""
    key = hmac.digest(salt or bytes(32), secret, "sha256")
    output, block = b"", b""
    for number in range(1, 256):
        block = hmac.digest(key, block + info + bytes([number]), "sha256")
        output += block
        if len(output) >= size:
            return output[:size]
    raise ValueError(size)


def pattern(name: str, size: int) -> bytes:
    """Bytes a name determines, where any would do."""
    return hashlib.shake_256(name.encode()).digest(size)


def context(purpose: str) -> bytes:
    return b"conflux/1/" + purpose.encode() + b"\0" + REALM_ID


class Signer:
    """Both keys of a node or root."""

    def __init__(self, name: str) -> None:
        self.seed = pattern(f"seed of {name}", 64)
        self.ed25519 = Ed25519PrivateKey.from_private_bytes(self.seed[:32])
        self.mldsa = MLDSA65PrivateKey.from_seed_bytes(self.seed[32:])
        self.public = self.ed25519.public_key().public_bytes_raw() + self.mldsa.public_key().public_bytes_raw()
        self.id = sha256(self.public)[:16]

    def sign(self, message: bytes) -> bytes:
        return self.ed25519.sign(message) + self.mldsa.sign(message)


class Hop:
    """A node's hop key."""

    def __init__(self, name: str) -> None:
        self.mlkem_seed, self.x25519 = pattern(f"hop ml-kem of {name}", 64), pattern(f"hop x25519 of {name}", 32)
        self.ml, self.x = (
            MLKEM768PrivateKey.from_seed_bytes(self.mlkem_seed),
            X25519PrivateKey.from_private_bytes(self.x25519),
        )
        self.public = self.ml.public_key().public_bytes_raw() + self.x.public_key().public_bytes_raw()
        self.id = sha256(self.public)[:8]

    def seal(self, plaintext: bytes, info: bytes) -> bytes:
        suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
        return suite.encrypt(plaintext, MLKEM768X25519PublicKey(self.ml.public_key(), self.x.public_key()), info)


ROOT, ISSUER, ALICE, BOB = Signer("root"), Signer("issuer"), Signer("alice"), Signer("bob")
REALM_ID = ROOT.id
HOPS = [Hop(name) for name in ("relay one", "relay two", "bob")]
RELAYS = [Signer("relay one").id, Signer("relay two").id]
IPV4_PREFIX = bytes((100, 64 + REALM_ID[5] % 64, 0, 0)) + bytes([16])
BOOT = (1_800_000_000).to_bytes(5, "big") + b"abc"
STREAM = pattern("stream", 16)


# ── what chance has no part in ───────────────────────────────────────────────────────────────────────────────────────


def record(kind: str, *fields: object) -> dict[str, str]:
    return {"record": kind, "encoded": cbor([1, *fields]).hex()}


def description() -> list[object]:
    candidate = "1 1 udp 2130706431 192.0.2.1 50000 typ host"
    return [1, "abcd", "p" * 22, pattern("dtls", 32), 5000, 65536, [candidate], pattern("start", 8)]


def records() -> list[dict[str, str]]:
    """Records without a hybrid signature, and link messages ([type, record])."""
    greeting = cbor([1, pattern("acceptor nonce", 32)])
    return [
        record("Who", bytes([100, 64, 0, 1]), None, None, None),
        record("Who", None, "kitchen", None, None),
        record("Who", None, None, BOB.id, None),
        record("Who", None, None, None, "public"),
        record("Presence", 7, pattern("lists", 8)),
        record("Envelope", BOB.id, pattern("envelope", 16), 8, HOPS[2].id, pattern("payload", 40), None, 1),
        record("Envelope", None, pattern("envelope", 16), 0, None, b"\0", None, 0),
        record("Envelope", None, pattern("envelope", 16), 0, None, b"\0", 4095, 1),
        record("Asking", [[1, 1, ISSUER.id, 1_800_000_000, pattern("list", 8)]], True),
        record("PolicyTold", 1_800_000_000, pattern("policy", 32)),
        record("PolicyAsked", pattern("policy", 32), 0),
        record("PolicyPiece", pattern("policy", 32), 1, pattern("piece", 40)),
        {"record": "Greeting", "encoded": greeting.hex()},
        record("JoinRefused", "used-up"),
        record("Admit", True, pattern("binding", 32), b"a request"),
        record("Admitted", b"", b"used-up"),
        record("Refused", STREAM, "busy"),
        record("RekeyOffer", 1, pattern("kem public", 1216)),
        record("RekeyAnswer", 1, pattern("kem ciphertext", 1120)),
        record("Offer", pattern("attempt", 8), 3, description(), pattern("lists", 8)),
        record("Answer", pattern("attempt", 8), description(), pattern("lists", 8)),
        record("Candidates", pattern("attempt", 8), ["2 1 udp 1694498815 198.51.100.2 50001 typ srflx"]),
        record("Refusal", pattern("attempt", 8), 3, "glare"),
    ]


def lists_digest() -> dict[str, Any]:
    """The digest of two lists that a node holds, and of none."""
    checks = pattern("one list", 8), pattern("another", 8)
    rows: list[object] = [[1, ISSUER.id, 1_800_000_000, checks[0]], [2, REALM_ID, 7, checks[1]]]
    return {
        "checks": [check.hex() for check in checks],
        "digest": sha256(b"conflux/1/lists\0" + cbor(rows))[:8].hex(),
        "of_none": sha256(b"conflux/1/lists\0" + cbor([]))[:8].hex(),
    }


def link_messages() -> list[dict[str, Any]]:
    request, tether = pattern("request", 8), pattern("tether", 8)
    bodies: list[tuple[str, int, list[object]]] = [
        ("Setup", 1, [1, request, tether, 4, 0x01020304, pattern("onion", 4916)]),
        ("Confirm", 2, [1, request, 0xFFFFFFFF, pattern("sealed", 51)]),
        ("Refuse", 3, [1, request, b"", b"stale-key"]),
        ("Teardown", 4, [1, 0x01020304, pattern("last", 35)]),
    ]
    return [{"record": name, "encoded": cbor([kind, cbor(body)]).hex()} for name, kind, body in bodies]


def refused_encodings() -> list[dict[str, str]]:
    """What is no encoding of Presence ([1, 7, 8 bytes] is 83 01 07 48 and the bytes)."""
    lists = "48" + pattern("lists", 8).hex()
    return [
        {"encoded": encoded + end, "why": why}
        for encoded, end, why in [
            ("830107", lists + "00", "a byte left over"),
            ("8301", lists, "a field missing"),
            ("84010707", lists, "a field too many"),
            ("830207", lists, "another version"),
            ("83011807", lists, "a number longer than need be"),
            ("9f0107", lists + "ff", "an indefinite length"),
            ("8301f97c00", lists, "a float"),
            ("a10107", "", "a map"),
            ("8301c107", lists, "a tag"),
            ("83f507", lists, "a boolean for the version"),
            ("830126", lists, "a negative number"),
            ("8301f7", lists, "undefined"),
            ("830107", "47" + lists[2:-2], "a digest too short"),
        ]
    ]


def token() -> dict[str, Any]:
    fields: list[Any] = [sha256(ROOT.public), ISSUER.id, pattern("invite", 8), pattern("secret", 16), 1_800_086_400, 1]
    data = cbor([1, *fields, ["192.0.2.1:7464"]])
    text = "cfx1" + base64url(data + sha256(data)[:4])
    return {
        "root_fingerprint": fields[0].hex(),
        "issuer": ISSUER.id.hex(),
        "invite_id": fields[2].hex(),
        "secret": fields[3].hex(),
        "not_after": fields[4],
        "count": fields[5],
        "hints": ["192.0.2.1:7464"],
        "text": text,
    }


def join_proof() -> dict[str, str]:
    """binding, key and proof of a JoinRequest; signed_tail is what the proof and the signature cover after it."""
    greeting = cbor([1, pattern("acceptor nonce", 32)])
    binding = sha256(b"conflux/1/lan-join\0" + pattern("certificate digest", 32) + sha256(greeting))
    fields = [ISSUER.id, pattern("invite", 8), ALICE.public, "kitchen", pattern("joiner nonce", 32)]
    key = hkdf(pattern("secret", 16), pattern("invite", 8), b"conflux/1/join-proof", 32)
    proof = hmac.digest(key, binding + cbor([1, *fields]), "sha256")
    return {
        "certificate_digest": pattern("certificate digest", 32).hex(),
        "greeting": greeting.hex(),
        "binding": binding.hex(),
        "nonce": pattern("joiner nonce", 32).hex(),
        "key": key.hex(),
        "proof": proof.hex(),
        "signed": (context("join") + binding + cbor([1, *fields, proof])).hex(),
    }


def crc16(data: bytes) -> int:
    """CRC-16/XMODEM, bit by bit."""
    found = 0
    for byte in data:
        found ^= byte << 8
        for _ in range(8):
            found = (found << 1 ^ 0x1021 if found & 0x8000 else found << 1) & 0xFFFF
    return found


def nkey(kind: int, public: bytes) -> str:
    """The word of a key of NATS.  kind: 0 for an account, 160 for a user."""
    body = bytes([kind]) + public
    return base64.b32encode(body + crc16(body).to_bytes(2, "little")).decode()


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def spelt(value: object) -> str:
    return base64url(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


ACCOUNT, ACCOUNT_SIGNER = (
    Ed25519PrivateKey.from_private_bytes(pattern(name, 32)) for name in ("account", "account's signing key")
)


def asking_jwt(user: bytes, invite: bytes, dates: tuple[int, int]) -> tuple[str, bytes]:
    """The JWT of a user that may ask on the subject of an invitation, and the signature at its end."""
    claims = {
        "exp": dates[1],
        "iat": dates[0],
        "iss": nkey(0, ACCOUNT_SIGNER.public_key().public_bytes_raw()),
        "nats": {
            "allowed_connection_types": ["STANDARD"],
            "data": -1,
            "issuer_account": nkey(0, ACCOUNT.public_key().public_bytes_raw()),
            "payload": 36864,
            "pub": {"allow": [f"cx.join.{invite.hex()}"]},
            "sub": {"allow": [f"cx.joined.{invite.hex()}"]},
            "subs": 4,
            "type": "user",
            "version": 2,
        },
        "sub": nkey(160, user),
    }
    signed = f"{spelt({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{spelt(claims)}"
    signature = ACCOUNT_SIGNER.sign(signed.encode())
    return f"{signed}.{base64url(signature)}", signature


def join_pass(invite: bytes, secret: bytes) -> tuple[list[object], str, bytes]:
    """What a token carries of a joiner's JWT, that JWT, and the public key of its user."""
    user = Ed25519PrivateKey.from_private_bytes(hkdf(secret, invite, b"conflux/1/broker-join", 32))
    public, dates = user.public_key().public_bytes_raw(), (1_800_000_000, 1_800_086_400)
    jwt, signature = asking_jwt(public, invite, dates)
    keys = [key.public_key().public_bytes_raw() for key in (ACCOUNT, ACCOUNT_SIGNER)]
    return [1, *keys, *dates, signature], jwt, public


def late_renewal() -> dict[str, str]:
    """Alice's admission to a late renewal, and what binds her request."""
    me, nonce, challenge = ALICE.public[:32], pattern("exchange", 32), pattern("challenge", 32)
    own, until = sha256(b"conflux/1/broker-renew\0" + me)[:8], 1_802_592_000 + 90 * 86400
    jwt, signature = asking_jwt(me, own, (1_800_000_000, until))
    binding = sha256(b"conflux/1/broker-join\0" + bytes(16) + own + nonce + challenge)
    key = hkdf(b"conflux/1/broker", binding, b"conflux/1/broker-join-request", 32)
    return {
        "id": own.hex(),
        "pass": base64url(cbor([1, until, signature])),
        "jwt": jwt,
        "binding": binding.hex(),
        "request": b"a request, as it is sealed".hex(),
        "box": ChaCha20Poly1305(key).encrypt(bytes(12), b"a request, as it is sealed", None).hex(),
    }


def token_of_a_realm_with_a_broker() -> dict[str, Any]:
    invite, secret, ca = pattern("invite", 8), pattern("secret", 16), sha256(pattern("ca", 40))
    admission, jwt, user = join_pass(invite, secret)
    servers: list[object] = ["broker.example:4222", "[2001:db8::1]:4222"]
    fields: list[object] = [sha256(ROOT.public), ISSUER.id, invite, secret, 1_800_086_400, 3, []]
    data = cbor([2, *fields, [1, servers, ca, admission]])
    return {
        "servers": servers,
        "ca_sha256": ca.hex(),
        "jwt": jwt,
        "user": user.hex(),
        "text": "cfx1" + base64url(data + sha256(data)[:4]),
    }


def broker_join() -> dict[str, str]:
    """Alice joins over a broker: what her request and the issuer's answers are bound to and sealed under."""
    invite, secret = pattern("invite", 8), pattern("secret", 16)
    nonce, challenge, salt = pattern("exchange", 32), pattern("challenge", 32), pattern("salt", 32)
    binding = sha256(b"conflux/1/broker-join\0" + ISSUER.id + invite + nonce + challenge)
    request_key = hkdf(secret, binding, b"conflux/1/broker-join-request", 32)
    answer_key = hkdf(secret, binding + salt, b"conflux/1/broker-join-answer", 32)
    fields = [ISSUER.id, invite, ALICE.public, "kitchen", pattern("joiner nonce", 32)]
    key = hkdf(secret, invite, b"conflux/1/join-proof", 32)
    proof = hmac.digest(key, binding + cbor([1, *fields]), "sha256")
    request, refusal = b"a request, as it is sealed", cbor([1, "used-up"])
    box = ChaCha20Poly1305(request_key).encrypt(bytes(12), request, None)
    told = ChaCha20Poly1305(answer_key).encrypt(bytes(12), bytes([2]) + refusal, None)
    return {
        "nonce": nonce.hex(),
        "challenge": challenge.hex(),
        "salt": salt.hex(),
        "binding": binding.hex(),
        "proof": proof.hex(),
        "signed": (context("join") + binding + cbor([1, *fields, proof])).hex(),
        "request": request.hex(),
        "box": box.hex(),
        "refusal": refusal.hex(),
        "question": cbor([1, ISSUER.id, nonce, b"", b""]).hex(),
        "challenged": cbor([1, nonce, challenge, b""]).hex(),
        "asked": cbor([1, ISSUER.id, nonce, challenge, box]).hex(),
        "told": cbor([1, nonce, salt, told]).hex(),
    }


def lan() -> dict[str, str]:
    """What both sides sign for a chain of three bytes, and one frame."""
    certificate, chain = pattern("certificate digest", 32), b"\x01\x02\x03"
    acceptor, dialler = pattern("acceptor nonce", 32), pattern("dialler nonce", 32)
    seed, hello = pattern("instance", 8), b"hello as sent"
    dial = cbor([certificate, acceptor, dialler, sha256(chain), BOOT, seed, b""])
    accept = cbor([certificate, acceptor, dialler, sha256(chain), BOOT, seed, sha256(hello)])
    return {
        "realm_tag": sha256(b"conflux/1/lan-realm\0" + REALM_ID)[:8].hex(),
        "certificate_digest": certificate.hex(),
        "acceptor_nonce": acceptor.hex(),
        "dialler_nonce": dialler.hex(),
        "chain": chain.hex(),
        "boot": BOOT.hex(),
        "seed": seed.hex(),
        "node_id": ALICE.id.hex(),
        "instance": sha256(b"conflux/1/lan-instance\0" + ALICE.id + BOOT + seed)[:8].hex(),
        "hello": hello.hex(),
        "dial_signed": (context("lan-dial") + dial).hex(),
        "accept_signed": (context("lan-accept") + accept).hex(),
        "bridge_frame": ((1).to_bytes(2, "big") + bytes([19]) + b"\1").hex(),
    }


def inner() -> tuple[bytes, bytes]:
    """(what is signed, the record) of an ACK of Alice to Bob that answers his message 41."""
    signed = context("control") + cbor([BOB.id, ALICE.id, BOOT, 7, 0, 41, b""])
    return signed, cbor([1, ALICE.id, BOOT, 7, 0, 41, b"", ALICE.ed25519.sign(signed)])


def keys_of(secret: bytes, salt: bytes, info: bytes) -> dict[str, str]:
    okm = hkdf(secret, salt, info, 104)
    cuts = {"data": (0, 32), "data_prefix": (32, 36), "feedback": (36, 68), "feedback_prefix": (68, 72)}
    return {name: okm[start:end].hex() for name, (start, end) in (cuts | {"chain": (72, 104)}).items()}


def key_schedule() -> dict[str, Any]:
    secret, open_, accept = pattern("first secret", 32), b"the open, as sent", b"the accept, as sent"
    first = keys_of(secret, sha256(sha256(open_) + sha256(accept)), context("stream-keys"))
    second, offer, answer = pattern("second secret", 32), b"the offer", b"the answer"
    info = context("stream-rekey") + sha256(sha256(offer) + sha256(answer))
    return {
        "first": {"secret": secret.hex(), "open": open_.hex(), "accept": accept.hex(), "keys": first},
        "rekey": {
            "secret": second.hex(),
            "offer": offer.hex(),
            "answer": answer.hex(),
            "keys": keys_of(second, bytes.fromhex(first["chain"]), info),
        },
    }


def route_keys() -> list[dict[str, str]]:
    return [
        {
            "route_key": key.hex(),
            "tag": hkdf(key, b"", b"conflux/1/route-tag", 16).hex(),
            "refusal_key": hkdf(key, b"", b"conflux/1/route-refusal", 32).hex(),
            "refusal_of_busy": ChaCha20Poly1305(hkdf(key, b"", b"conflux/1/route-refusal", 32))
            .encrypt(bytes(12), b"busy", None)
            .hex(),
            "keystream_sha256": sha256(keystream(key)).hex(),
        }
        for key in (pattern(f"route key {number}", 32) for number in range(3))
    ]


def fixed() -> dict[str, Any]:
    purposes = ("anchor", "credential", "grant", "card", "join", "joined", "offline-request", "lan-dial", "lan-accept")
    purposes += ("list", "control", "control-seal", "stream-open", "stream-accept", "stream-keys", "stream-rekey")
    purposes += ("route-slot",)
    signed, message = inner()
    return {
        "keys": {
            name: {"seed": key.seed.hex(), "public_sha256": sha256(key.public).hex(), "id": key.id.hex()}
            for name, key in {"root": ROOT, "issuer": ISSUER, "alice": ALICE, "bob": BOB}.items()
        },
        "hops": [{"mlkem_seed": hop.mlkem_seed.hex(), "x25519": hop.x25519.hex(), "id": hop.id.hex()} for hop in HOPS],
        "addresses": {
            "alice_id_text": base64.b32encode(ALICE.id).decode().rstrip("=").lower(),
            "alice_ipv6": (b"\xfd" + REALM_ID[:5] + ALICE.id[:10]).hex(),
            "ipv4_prefix": IPV4_PREFIX.hex(),
        },
        "contexts": {purpose: context(purpose).hex() for purpose in purposes},
        "records": records(),
        "link_messages": link_messages(),
        "refused_presence": refused_encodings(),
        "lists_digest": lists_digest(),
        "token": token(),
        "token_2": token_of_a_realm_with_a_broker(),
        "join_proof": join_proof(),
        "broker_join": broker_join(),
        "late_renewal": late_renewal(),
        "lan": lan(),
        "envelope": {"to": BOB.id.hex(), "signed": signed.hex(), "inner": message.hex()},
        "key_schedule": key_schedule(),
        "route_keys": route_keys(),
    }


# ── what comes out otherwise every time ──────────────────────────────────────────────────────────────────────────────


def signed_record(signer: Signer, purpose: str, fields: list[object]) -> list[object]:
    return [1, *fields, signer.sign(context(purpose) + cbor([1, *fields]))]


def credential_and_card() -> dict[str, str]:
    anchor = signed_record(ROOT, "anchor", [ROOT.public, "home", IPV4_PREFIX])
    block = IPV4_PREFIX[:4] + bytes([17])
    grant = signed_record(ROOT, "grant", [REALM_ID, ISSUER.public, block, 1_800_000_000, 1_957_680_000])
    address = IPV4_PREFIX[:3] + bytes([9])
    rights: list[object] = [["sensor"], ["relay"], address, "", 1_800_000_000, 1_802_592_000, 5, ISSUER.id]
    credential = signed_record(ISSUER, "credential", [REALM_ID, ALICE.public, "kitchen", *rights])
    chain = [1, credential, grant]
    hop = HOPS[0]
    card = signed_record(ALICE, "card", [chain, BOOT, hop.id, hop.public, 1, ["relay"]])
    lists = pattern("lists", 8)
    open_ = signed_record(
        ALICE,
        "stream-open",
        [ALICE.id, BOB.id, STREAM, BOOT, pattern("kem public", 1216), 86400, sha256(cbor(chain)), [], lists],
    )
    vantage = [1, RELAYS[1], 0, HOPS[1].id, HOPS[1].public]
    accept = signed_record(
        BOB,
        "stream-accept",
        [STREAM, sha256(cbor(open_)), pattern("kem ciphertext", 1120), 2, [], 120, 40, [vantage], lists],
    )
    rights = [[], [], None, "", 1_800_000_000, 1_802_592_000, 6, REALM_ID]
    root_chain = [1, signed_record(ROOT, "credential", [REALM_ID, BOB.public, "bob", *rights]), None]
    tag, seed = sha256(b"conflux/1/lan-realm\0" + REALM_ID)[:8], pattern("instance", 8)
    nonces = [pattern("certificate digest", 32), pattern("acceptor nonce", 32), pattern("dialler nonce", 32)]
    proof = ALICE.sign(context("lan-dial") + cbor([*nonces, sha256(cbor(chain)), BOOT, seed, b""]))
    hello = [1, tag, chain, BOOT, seed, nonces[2], proof]
    signed = cbor([*nonces, sha256(cbor(root_chain)), BOOT, seed, sha256(cbor(hello))])
    welcome = [1, root_chain, BOOT, seed, BOB.sign(context("lan-accept") + signed)]
    denials: list[object] = [[1, node, 1_800_000_000, "stolen"] for node in sorted([ALICE.id, BOB.id])]
    issuers_list = signed_record(ISSUER, "list", [REALM_ID, grant, 1, 1_800_000_000, cbor([1, denials])])
    notice = cbor([1, ["tls://broker.example:4222"], pattern("ca", 40), "main"])
    roots_list = signed_record(ROOT, "list", [REALM_ID, None, 2, 7, notice])
    named = {"anchor": anchor, "chain": chain, "root_chain": root_chain, "card": card, "open": open_, "accept": accept}
    named |= {"short_card": [card[0], [1, credential, sha256(cbor(grant))], *card[2:]]}
    named |= {"deny_list": issuers_list, "broker_notice": roots_list, "hello": hello, "welcome": welcome}
    return {name: cbor(value).hex() for name, value in named.items()}


def sealed_envelope() -> dict[str, str]:
    _, message = inner()
    payload = HOPS[2].seal(message, context("control-seal") + HOPS[2].id + BOB.id)
    return {"envelope": cbor([1, BOB.id, pattern("envelope", 16), 8, HOPS[2].id, payload, None, 1]).hex()}


def keystream(route_key: bytes) -> bytes:
    key = hkdf(route_key, b"", b"conflux/1/route-mask", 32)
    return Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(4 * 1229))


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def onions(hop_count: int, *, slot_count: int = 4) -> dict[str, Any]:
    """An onion for hop_count hops, and what each hop finds and passes on.

    slot_count: 1 for a single hop that takes such an onion.
    Made hop by hop from the far end.  What a hop will see behind its slot is: the next hop's onion, XORed with this
    hop's keystream and cut by a slot; the last hop's is free, but for the filler that the hops before it make.
    """
    hops, keys = HOPS[3 - hop_count :], [pattern(f"route key {number}", 32) for number in range(hop_count)]
    filler = b""
    for key in keys[:-1]:
        stream = keystream(key)
        filler = xor(filler + bytes(1229), stream[len(stream) - len(filler) - 1229 :])
    behind = pattern("free", (slot_count - 1) * 1229 - len(filler)) + filler
    found: list[dict[str, Any]] = []
    onion = b""
    for number in reversed(range(hop_count)):
        hop, key, last = hops[number], keys[number], number == hop_count - 1
        if not last:
            behind = xor(onion, keystream(key))[:-1229]
        target = STREAM if last else [*RELAYS[3 - hop_count :], BOB.id][number + 1]
        plain = bytes([last]) + target + (3600).to_bytes(4, "big") + key + sha256(behind)
        onion = hop.id + hop.seal(plain, context("route-slot") + hop.id) + behind
        found.insert(0, {"hop": 3 - hop_count + number, "deliver": last, "target": target.hex(), "onion": onion.hex()})
    return {"lifetime_s": 3600, "hops": found}


def make() -> dict[str, Any]:
    return {
        "source": SOURCE,
        "fixed": fixed(),
        "made_once": {
            "signed_records": credential_and_card(),
            "sealed": sealed_envelope(),
            "onions": [onions(1), onions(2), onions(3), onions(1, slot_count=1)],
        },
    }


if __name__ == "__main__":
    PROTOCOL.write_text(json.dumps(make(), indent=1) + "\n")
