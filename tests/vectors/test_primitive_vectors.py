"""Known answers for every primitive, from the PyPI package cryptography_vectors.

Source: cryptography_vectors 50.0.2 (2026), read 2026-11-22.  It carries, under its own file names: NIST CAVP GCM and
ChaCha20-Poly1305 (BoringSSL, RFC 8439) vectors, RFC 7748 (X25519), RFC 5869 (HKDF), Bernstein's sign.input (Ed25519),
the known-answer files of FIPS 203 and FIPS 204, and the vectors of draft-ietf-hpke-pq, whose KEM 0x647A is X-Wing.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
from collections.abc import Iterator
from typing import Any

import cryptography_vectors
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from pqcrypto.kem import ml_kem_768  # type: ignore[import-untyped]
from pqcrypto.sign import ml_dsa_65  # type: ignore[import-untyped]

from conflux.crypto import kdf, kem, seal, sign
from conflux.crypto.exchange import Share


def blocks(path: str, separator: str = "=") -> Iterator[dict[str, str]]:
    """Every block of "KEY = value" lines; a repeated key begins the next one."""
    block: dict[str, str] = {}
    with cryptography_vectors.open_vector_file(path, "r") as file:
        for line in file:
            text = line.strip()
            if text.startswith(("#", "[")) or separator not in text:
                continue
            key, _, value = text.partition(separator)
            key = key.strip().lower()
            if key in block:
                yield block
                block = {}
            block[key] = value.strip()
    if block:
        yield block


def raw(block: dict[str, Any], key: str) -> bytes:
    return bytes.fromhex(block.get(key, ""))


def hpke_vectors() -> list[dict[str, Any]]:
    with cryptography_vectors.open_vector_file("HPKE/hpke-pq-test-vectors.json", "r") as file:
        return [vector for vector in json.load(file) if vector["kem_id"] == 0x647A]


# ── ML-KEM-768, FIPS 203 ──

ML_KEM = list(itertools.islice(blocks("asymmetric/MLKEM/kat_MLKEM_768.rsp"), 40))


def test_ml_kem_key_generation_of_cryptography():
    for block in ML_KEM:
        key = MLKEM768PrivateKey.from_seed_bytes(raw(block, "d") + raw(block, "z"))
        assert key.public_key().public_bytes_raw() == raw(block, "pk")
        assert key.decapsulate(raw(block, "ct")) == raw(block, "ss")


def test_ml_kem_decapsulation_of_pqcrypto():
    assert len(ML_KEM) == 40
    for block in ML_KEM:
        assert ml_kem_768.decaps(raw(block, "sk"), raw(block, "ct")) == raw(block, "ss")


def test_ml_kem_implicit_rejection_of_pqcrypto():
    for block in ML_KEM:
        assert ml_kem_768.decaps(raw(block, "sk"), raw(block, "ct_n")) == raw(block, "ss_n")


def test_ml_kem_pqcrypto_encapsulates_and_cryptography_decapsulates():
    for _ in range(20):
        key = MLKEM768PrivateKey.generate()
        ciphertext, secret = ml_kem_768.encaps(key.public_key().public_bytes_raw())
        assert key.decapsulate(ciphertext) == secret


def test_ml_kem_cryptography_encapsulates_and_pqcrypto_decapsulates():
    for _ in range(20):
        public, private = ml_kem_768.keygen()
        secret, ciphertext = MLKEM768PublicKey.from_public_bytes(public).encapsulate()
        assert ml_kem_768.decaps(private, ciphertext) == secret


# ── ML-DSA-65, FIPS 204 ──

ML_DSA = list(itertools.islice(blocks("asymmetric/MLDSA/kat_MLDSA_65_det_pure.rsp"), 20))


def test_ml_dsa_known_signatures_verify_in_both_libraries():
    assert len(ML_DSA) == 20
    for block in ML_DSA:
        message, public = raw(block, "msg"), raw(block, "pk")
        signed, ctx = raw(block, "sm"), raw(block, "ctx")
        signature = signed[:3309]
        assert signed[3309:] == message
        MLDSA65PublicKey.from_public_bytes(public).verify(signature, message, ctx or None)
        ml_dsa_65.verify(public, message, signature, context=ctx or None)


def test_ml_dsa_key_generation_of_cryptography():
    for block in ML_DSA:
        assert MLDSA65PrivateKey.from_seed_bytes(raw(block, "xi")).public_key().public_bytes_raw() == raw(block, "pk")


def test_ml_dsa_cryptography_signs_and_pqcrypto_verifies():
    for number in range(10):
        key = MLDSA65PrivateKey.generate()
        message = bytes(number)
        ml_dsa_65.verify(key.public_key().public_bytes_raw(), message, key.sign(message))


def test_ml_dsa_pqcrypto_signs_and_cryptography_verifies():
    for number in range(3):  # 10 ms each
        public, private = ml_dsa_65.keygen()
        message = bytes(number)
        MLDSA65PublicKey.from_public_bytes(public).verify(ml_dsa_65.sign(private, message), message)


# ── X25519, RFC 7748; Ed25519, RFC 8032 ──


def test_x25519():
    tested = list(blocks("asymmetric/X25519/rfc7748.txt"))
    assert len(tested) >= 2
    for block in tested[:2]:
        public = X25519PublicKey.from_public_bytes(raw(block, "input_u"))
        assert X25519PrivateKey.from_private_bytes(raw(block, "input_scalar")).exchange(public) == raw(
            block, "output_u"
        )


def test_ed25519_signs_as_bernstein_does():
    with cryptography_vectors.open_vector_file("asymmetric/Ed25519/sign.input", "r") as file:
        lines = list(itertools.islice(file, 128))
    for line in lines:
        seed_and_public, public, message, signed, _ = line.split(":")
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed_and_public)[:32])
        assert key.public_key().public_bytes_raw().hex() == public
        assert key.sign(bytes.fromhex(message)) + bytes.fromhex(message) == bytes.fromhex(signed)


def test_hybrid_signature_is_the_two_known_ones_side_by_side():
    block = ML_DSA[0]
    seed = bytes(range(32)) + raw(block, "xi")
    key = sign.SigningKey.from_seed(seed)
    assert key.seed == seed
    assert key.public.encode()[32:] == raw(block, "pk")
    signature = key.sign(b"context", b"message")
    assert signature[:64] == Ed25519PrivateKey.from_private_bytes(seed[:32]).sign(b"contextmessage")
    ml_dsa_65.verify(raw(block, "pk"), b"contextmessage", signature[64:])


# ── HKDF, RFC 5869; HMAC, RFC 4231 ──


def test_hkdf():
    tested = list(blocks("KDF/rfc-5869-HKDF-SHA256.txt"))
    assert len(tested) == 3
    for block in tested:
        okm = kdf.hkdf(raw(block, "ikm"), salt=raw(block, "salt"), info=raw(block, "info"), size=int(block["l"]))
        assert okm == raw(block, "okm")


def test_hmac():
    tested = [block for block in blocks("HMAC/rfc-4231-sha256.txt") if len(block["md"]) == 64]
    assert len(tested) >= 6
    for block in tested:
        assert kdf.hmac_sha256(raw(block, "key"), raw(block, "msg")) == raw(block, "md")


# ── AEADs ──


def test_aes_256_gcm_seals():
    tested = [b for b in blocks("ciphers/AES/GCM/gcmEncryptExtIV256.rsp") if len(b["iv"]) == 24 and len(b["tag"]) == 32]
    assert len(tested) > 300
    for block in tested:
        sealed = AESGCM(raw(block, "key")).encrypt(raw(block, "iv"), raw(block, "pt"), raw(block, "aad"))
        assert sealed == raw(block, "ct") + raw(block, "tag")


def quoted(block: dict[str, str], key: str) -> bytes:
    """A value that is hexadecimal, or text in quotes."""
    value = block[key]
    return value[1:-1].encode() if value.startswith('"') else bytes.fromhex(value)


def test_chacha20_poly1305_seals_and_refuses_another_tag():
    tested = [b for b in blocks("ciphers/ChaCha20Poly1305/boringssl.txt") if "tag" in b]
    assert len(tested) > 60
    for block in tested:
        aead, nonce, data = ChaCha20Poly1305(quoted(block, "key")), quoted(block, "nonce"), quoted(block, "ad")
        ciphertext, tag = quoted(block, "ct"), quoted(block, "tag")
        assert aead.encrypt(nonce, quoted(block, "in"), data) == ciphertext + tag
        with pytest.raises(InvalidTag):
            aead.decrypt(nonce, ciphertext + bytes([tag[0] ^ 1]) + tag[1:], data)


# ── X-Wing and HPKE, draft-ietf-hpke-pq: suite MLKEM768-X25519, HKDF-SHA-256, ChaCha20-Poly1305 ──

SUITE_ID = b"HPKE" + bytes.fromhex("647a00010003")
HPKE = [vector for vector in hpke_vectors() if vector["kdf_id"] == 1 and vector["aead_id"] == 3]


def extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
    """LabeledExtract of RFC 9180, section 4."""
    return hmac.digest(salt, b"HPKE-v1" + SUITE_ID + label + ikm, "sha256")


def expand(prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    """LabeledExpand of RFC 9180, section 4; one or two blocks."""
    labeled = size.to_bytes(2, "big") + b"HPKE-v1" + SUITE_ID + label + info
    first = hmac.digest(prk, labeled + b"\1", "sha256")
    return (first + hmac.digest(prk, first + labeled + b"\2", "sha256"))[:size]


def key_schedule(secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Return (key, base nonce) of base mode, written from RFC 9180, section 5.1, and sharing no code with ours."""
    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    prk = extract(secret, b"secret", b"")
    return expand(prk, b"key", context, 32), expand(prk, b"base_nonce", context, 12)


def components(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """X-Wing's expansion of its 32-byte seed."""
    expanded = hashlib.shake_256(seed).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])


def test_xwing_secret():
    assert len(hpke_vectors()) == 2
    for vector in hpke_vectors():
        ml, x = components(raw(vector, "skRm"))
        public, ciphertext = raw(vector, "pkRm"), raw(vector, "enc")
        assert ml.public_key().public_bytes_raw() + x.public_key().public_bytes_raw() == public
        x_secret = x.exchange(X25519PublicKey.from_public_bytes(ciphertext[1088:]))
        secret = kem.combine(ml.decapsulate(ciphertext[:1088]) + x_secret, ciphertext[1088:], public[1184:])
        assert secret == raw(vector, "shared_secret")


def test_xwing_private_key_over_a_known_ml_kem_key():
    block, x, ephemeral = ML_KEM[0], X25519PrivateKey.generate(), X25519PrivateKey.generate()
    key = kem.PrivateKey(Share(x, raw(block, "pk"), raw(block, "sk")))
    x_ciphertext, x_public = ephemeral.public_key().public_bytes_raw(), x.public_key().public_bytes_raw()
    expected = hashlib.sha3_256(
        raw(block, "ss") + ephemeral.exchange(x.public_key()) + x_ciphertext + x_public + bytes.fromhex("5c2e2f2f5e5c")
    )
    assert key.decapsulate(raw(block, "ct") + x_ciphertext) == expected.digest()


def test_hpke_seal_key_opens_what_the_known_key_and_nonce_seal():
    (vector,) = HPKE
    key = seal.SealKey(*components(raw(vector, "skRm")))
    assert key.public == raw(vector, "pkRm")
    ciphertext = ChaCha20Poly1305(raw(vector, "key")).encrypt(raw(vector, "base_nonce"), b"known", b"")
    assert key.unseal(raw(vector, "enc") + ciphertext, raw(vector, "info")) == b"known"


def test_hpke_key_schedule_of_these_tests():
    (vector,) = HPKE
    assert key_schedule(raw(vector, "shared_secret"), raw(vector, "info")) == (
        raw(vector, "key"),
        raw(vector, "base_nonce"),
    )


def test_our_xwing_opens_what_hpke_of_cryptography_sealed():
    key = kem.PrivateKey.generate()
    sealed = seal.seal(key.public, b"crossed", b"info")
    aead_key, nonce = key_schedule(key.decapsulate(sealed[:1120]), b"info")
    assert ChaCha20Poly1305(aead_key).decrypt(nonce, sealed[1120:], b"") == b"crossed"


def test_hpke_of_cryptography_opens_what_our_xwing_sealed():
    key = seal.SealKey.generate()
    ciphertext, secret = kem.encapsulate(key.public)
    aead_key, nonce = key_schedule(secret, b"info")
    assert key.unseal(ciphertext + ChaCha20Poly1305(aead_key).encrypt(nonce, b"crossed", b""), b"info") == b"crossed"
