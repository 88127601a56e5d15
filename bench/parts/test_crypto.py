"""Handshake primitives, one call each.  Run: python -m pytest bench/parts/test_crypto.py --benchmark-only"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from conflux.crypto import kdf, kem, seal, sign

CONTEXT = sign.context("bench", bytes(16))
MESSAGE = bytes(2500)  # about an OPEN

SIGNING = sign.SigningKey.generate()
SIGNATURE = SIGNING.sign(CONTEXT, MESSAGE)
SIGNATURE_ED25519 = SIGNING.sign_ed25519(CONTEXT, MESSAGE)
PRIVATE = kem.PrivateKey.generate()
CIPHERTEXT, _ = kem.encapsulate(PRIVATE.public)
SEAL_KEY = seal.SealKey.generate()
SEALED = seal.seal(SEAL_KEY.public, MESSAGE, b"info")

CASES = {
    "sign_keygen": sign.SigningKey.generate,
    "sign_hybrid": lambda: SIGNING.sign(CONTEXT, MESSAGE),
    "verify_hybrid": lambda: SIGNING.public.verify(CONTEXT, MESSAGE, SIGNATURE),
    "sign_ed25519": lambda: SIGNING.sign_ed25519(CONTEXT, MESSAGE),
    "verify_ed25519": lambda: SIGNING.public.verify_ed25519(CONTEXT, MESSAGE, SIGNATURE_ED25519),
    "decode_verify_key": lambda: sign.VerifyKey.decode_untrusted(SIGNING.public.encode()),
    "xwing_keygen": kem.PrivateKey.generate,
    "xwing_encapsulate": lambda: kem.encapsulate(PRIVATE.public),
    "xwing_decapsulate": lambda: PRIVATE.decapsulate(CIPHERTEXT),
    "hpke_keygen": seal.SealKey.generate,
    "hpke_seal": lambda: seal.seal(SEAL_KEY.public, MESSAGE, b"info"),
    "hpke_unseal": lambda: SEAL_KEY.unseal(SEALED, b"info"),
    "hkdf_44": lambda: kdf.hkdf(bytes(32), salt=bytes(32), info=b"conflux/1/data", size=44),
}


@pytest.mark.parametrize("name", CASES)
def test_primitive(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.group = "handshake primitives"
    benchmark(CASES[name])
