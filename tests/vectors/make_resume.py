"""Makes resume.json: known answers for a resumption, step by step.

Written from docs/reference/protocol.md, "Resumption", alone: nothing of conflux is imported.  HKDF is made of HMAC, and
AEAD, X25519 and ML-KEM are those of `cryptography`.  The ML-KEM ciphertext is random, so each run makes another one.

    PYTHONPATH=tests python -m vectors.make_resume
"""

from __future__ import annotations

import hmac
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from vectors.make_protocol import cbor, pattern, sha256

RESUME = Path(__file__).with_name("resume.json")
SOURCE = "Conflux's own; made by tests/vectors/make_resume.py with cryptography 50.0.2, 2026-12-01"

REALM = pattern("resume realm", 16)
A, B = pattern("resume A", 16), pattern("resume B", 16)
BOOT_A, BOOT_B = pattern("boot A", 8), pattern("boot B", 8)


def extract(salt: bytes, key: bytes) -> bytes:
    """RFC 5869, section 2.2."""
    return hmac.digest(salt, key, "sha256")


def expand(key: bytes, label: str, data: bytes = b"", size: int = 32) -> bytes:
    """RFC 5869, section 2.3, with the info of protocol.md."""
    info = b"conflux/1/" + label.encode() + b"\0" + REALM + data
    made, block, number = b"", b"", 1
    while len(made) < size:
        block = hmac.digest(key, block + info + bytes([number]), "sha256")
        made, number = made + block, number + 1
    return made[:size]


def box(key: bytes, plaintext: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(12), plaintext, None)


def exchange(rs: bytes, *, kem: bool, name: str) -> dict[str, str]:
    """One resumption, of both sides at once."""
    x_a = X25519PrivateKey.from_private_bytes(pattern(f"{name} x A", 32))
    x_b = X25519PrivateKey.from_private_bytes(pattern(f"{name} x B", 32))
    pub_a, pub_b = x_a.public_key().public_bytes_raw(), x_b.public_key().public_bytes_raw()
    ml_public, ciphertext, ml_secret = b"", b"", bytes(32)
    if kem:
        ml = MLKEM768PrivateKey.from_seed_bytes(pattern(f"{name} ml", 64))
        ml_public = ml.public_key().public_bytes_raw()
        ml_secret, ciphertext = ml.public_key().encapsulate()
        assert ml.decapsulate(ciphertext) == ml_secret
    fresh = ml_secret + x_a.exchange(x_b.public_key())
    lists, chain_a, chain_b = pattern("lists", 8), pattern("chain A", 16), pattern("chain B", 16)
    ahead = cbor([1, pattern("stream A", 16), 2, [2], chain_a, lists, [], 2, 7, 20, b"offer"])
    back = cbor([1, pattern("stream B", 16), 1, [2], chain_b, lists, [], 2, 0, 21, b"answer"])

    early = extract(bytes(32), rs + A + B + BOOT_A + BOOT_B)
    ahead_key = expand(early, "resume-ahead", sha256(pub_a + ml_public))
    resume = cbor([1, pub_a, ml_public, box(ahead_key, ahead)])
    hs = extract(expand(early, "resume-derived"), fresh)
    back_key = expand(hs, "resume-back", sha256(resume) + sha256(pub_b + ciphertext))
    resumed = cbor([1, pub_b, ciphertext, box(back_key, back)])
    master = extract(expand(hs, "resume-derived"), sha256(sha256(resume) + sha256(resumed)))
    made = {
        "rs": rs,
        "ask_id": expand(rs, "resume-id", A + B, 8),
        "back_id": expand(rs, "resume-back-id", A + B, 8),
        "fresh": fresh,
        "early": early,
        "ahead": ahead,
        "resume": resume,
        "hs": hs,
        "back": back,
        "resumed": resumed,
        "master": master,
        "stream_of_asker": expand(master, "resume-stream", b"\0", 104),
        "stream_of_answerer": expand(master, "resume-stream", b"\1", 104),
        "link": expand(master, "resume-link", b"", 88),
        "next": expand(master, "resume-next"),
    }
    return {key: value.hex() for key, value in made.items()}


def main() -> None:
    open_, accept, secret = pattern("open", 300), pattern("accept", 200), pattern("x-wing secret", 32)
    rs = expand(extract(sha256(sha256(open_) + sha256(accept)), secret), "resume-first")
    first = exchange(rs, kem=False, name="first")
    second = exchange(bytes.fromhex(first["next"]), kem=True, name="second")
    ends = {"realm": REALM, "a": A, "b": B, "boot_a": BOOT_A, "boot_b": BOOT_B}
    handshake = {"open": open_, "accept": accept, "secret": secret, "rs": rs}
    RESUME.write_text(
        json.dumps(
            {
                "source": SOURCE,
                "ends": {key: value.hex() for key, value in ends.items()},
                "handshake": {key: value.hex() for key, value in handshake.items()},
                "without_kem": first,
                "with_kem": second,
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
