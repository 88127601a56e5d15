"""Wycheproof's and CCTV's vectors against every primitive that is used, malformed input above all.

A part of them is in published/, with its source.  VECTORS=DIR runs whole files instead: `make vectors`.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from pqcrypto.kem import ml_kem_768  # type: ignore[import-untyped]  # it ships no types

from conflux.crypto import exchange, kdf, kem, seal, sign
from conflux.errors import AuthError, RemoteProtocolError

DIRECTORY = Path(os.environ.get("VECTORS", Path(__file__).parent / "published"))
X_PUBLIC = X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()


def cases(name: str, *, wanted: Callable[[dict[str, Any]], bool] | None = None) -> list[Any]:
    """Return group and test in one for each test of a file, under the file's own number."""
    suite = json.loads((DIRECTORY / f"{name}_test.json").read_text())
    found = [{**group, **test} for group in suite["testGroups"] for test in group["tests"]]
    return [pytest.param(test, id=str(test["tcId"])) for test in found if wanted is None or wanted(test)]


def raw(test: dict[str, Any], key: str) -> bytes:
    return bytes.fromhex(test[key])


def outcome(work: Callable[[], bytes], errors: tuple[type[Exception], ...]) -> bytes | None:
    """Return what work returns, or None if it refuses."""
    try:
        return work()
    except errors:
        return None


def expected(test: dict[str, Any], key: str) -> bytes | None:
    """Return what a test says should come out; None: it is to be refused."""
    return raw(test, key) if test["result"] == "valid" else None


# ── ML-KEM-768 ──


@pytest.mark.parametrize("test", cases("mlkem_768_encaps"))
def test_a_malformed_ml_kem_key_is_refused_by_all_that_encapsulate(test: dict[str, Any]) -> None:
    key, is_valid = raw(test, "ek"), test["result"] == "valid"
    public = key + X_PUBLIC
    assert (outcome(lambda: ml_kem_768.encaps(key)[0], (ValueError,)) is not None) == is_valid
    assert (
        outcome(lambda: MLKEM768PublicKey.from_public_bytes(key).public_bytes_raw(), (ValueError,)) == key
    ) == is_valid
    assert (outcome(lambda: kem.encapsulate(public)[0], (RemoteProtocolError,)) is not None) == is_valid
    sealed = outcome(lambda: seal.seal(public, b"info", b"plain"), (RemoteProtocolError,))
    assert (sealed is not None) == is_valid


def modulus_keys() -> Iterable[bytes]:
    """Yield keys of which one number is the modulus or above it (FIPS 203, section 7.2)."""
    whole = DIRECTORY / "cctv-ML-KEM-modulus-ML-KEM-768.txt.gz"
    text = gzip.decompress(whole.read_bytes()).decode() if whole.exists() else whole.with_suffix("").read_text()
    return map(bytes.fromhex, text.splitlines())


def test_a_key_with_a_number_beyond_the_modulus_is_refused() -> None:
    keys = list(modulus_keys())
    assert len(keys) >= 5
    for key in keys:
        for work in (
            lambda key=key: ml_kem_768.encaps(key)[0],
            lambda key=key: MLKEM768PublicKey.from_public_bytes(key).public_bytes_raw(),
            lambda key=key: kem.encapsulate(key + X_PUBLIC)[0],
            lambda key=key: seal.seal(key + X_PUBLIC, b"info", b"plain"),
        ):
            assert outcome(work, (ValueError, RemoteProtocolError)) is None


@pytest.mark.parametrize("test", cases("mlkem_768_semi_expanded_decaps"))
def test_pqcrypto_refuses_a_malformed_key_or_ciphertext(test: dict[str, Any]) -> None:
    secret = outcome(lambda: ml_kem_768.decaps(raw(test, "dk"), raw(test, "c")), (ValueError,))
    assert secret == expected(test, "K")


@pytest.mark.parametrize("test", cases("mlkem_768"))
def test_cryptography_decapsulates_as_published(test: dict[str, Any]) -> None:
    def work() -> bytes:
        return MLKEM768PrivateKey.from_seed_bytes(raw(test, "seed")).decapsulate(raw(test, "c"))

    assert outcome(work, (ValueError,)) == expected(test, "K")


@pytest.mark.parametrize("test", cases("mlkem_768_keygen_seed"))
def test_a_seed_gives_the_published_key_and_pqcrypto_takes_its_expanded_form(test: dict[str, Any]) -> None:
    key = MLKEM768PrivateKey.from_seed_bytes(raw(test, "seed"))
    assert key.public_key().public_bytes_raw() == raw(test, "ek")
    ciphertext, secret = ml_kem_768.encaps(raw(test, "ek"))
    assert ml_kem_768.decaps(raw(test, "dk"), ciphertext) == key.decapsulate(ciphertext) == secret


def cctv(name: str) -> dict[str, bytes]:
    lines = (DIRECTORY / f"cctv-ML-KEM-{name}-ML-KEM-768.txt").read_text().splitlines()
    return {key: bytes.fromhex(value) for key, _, value in (line.partition(" = ") for line in lines)}


@pytest.mark.parametrize("name", ["strcmp", "unluckysample"])
def test_ciphertexts_with_zero_bytes_and_unlucky_samples_are_no_exception(name: str) -> None:
    vector = cctv(name)
    assert ml_kem_768.decaps(vector["dk"], vector["c"]) == vector["K"]


# ── X25519 ──


@pytest.mark.parametrize("test", cases("x25519"))
def test_x25519_agrees_with_the_published_secret_or_refuses_the_point(test: dict[str, Any]) -> None:
    private = X25519PrivateKey.from_private_bytes(raw(test, "private"))
    wanted = None if raw(test, "shared") == bytes(32) else raw(test, "shared")
    assert (
        outcome(lambda: private.exchange(X25519PublicKey.from_public_bytes(raw(test, "public"))), (ValueError,))
        == wanted
    )
    assert outcome(lambda: exchange._exchange(private, raw(test, "public")), (RemoteProtocolError,)) == wanted


# ── signatures ──


@pytest.mark.parametrize("test", cases("ed25519"))
def test_ed25519_verifies_what_is_published_and_nothing_else(test: dict[str, Any]) -> None:
    public = raw(test["publicKey"], "pk")
    errors = (InvalidSignature, ValueError)

    def work() -> bytes:
        Ed25519PublicKey.from_public_bytes(public).verify(raw(test, "sig"), raw(test, "msg"))
        return b"verified"

    def ours() -> bytes:
        mldsa = MLDSA65PrivateKey.from_seed_bytes(bytes(32)).public_key().public_bytes_raw()
        sign.VerifyKey.decode_untrusted(public + mldsa).verify_ed25519(b"", raw(test, "msg"), raw(test, "sig"))
        return b"verified"

    wanted = b"verified" if test["result"] == "valid" else None
    assert outcome(work, errors) == wanted
    assert outcome(ours, (AuthError, RemoteProtocolError)) == wanted


@pytest.mark.parametrize("test", cases("mldsa_65_verify", wanted=lambda test: "msg" in test))
def test_ml_dsa_verifies_what_is_published_and_nothing_else(test: dict[str, Any]) -> None:
    def work() -> bytes:
        key = MLDSA65PublicKey.from_public_bytes(raw(test, "publicKey"))
        key.verify(raw(test, "sig"), raw(test, "msg"), raw(test, "ctx") if "ctx" in test else None)
        return b"verified"

    wanted = b"verified" if test["result"] == "valid" else None
    assert outcome(work, (InvalidSignature, ValueError)) == wanted


@pytest.mark.parametrize("test", cases("mldsa_65_sign_seed", wanted=lambda test: "msg" in test))
def test_ml_dsa_signs_with_the_key_of_a_published_seed(test: dict[str, Any]) -> None:
    context = raw(test, "ctx") if "ctx" in test else None

    def work() -> bytes:
        key = MLDSA65PrivateKey.from_seed_bytes(raw(test, "privateSeed"))
        public = key.public_key()
        assert public.public_bytes_raw() == raw(test, "publicKey")
        public.verify(key.sign(raw(test, "msg"), context), raw(test, "msg"), context)
        public.verify(raw(test, "sig"), raw(test, "msg"), context)
        return b"signed"

    assert outcome(work, (ValueError,)) == (b"signed" if test["result"] == "valid" else None)


# ── hashes ──


@pytest.mark.parametrize("test", cases("hkdf_sha256"))
def test_hkdf_gives_what_is_published(test: dict[str, Any]) -> None:
    def work() -> bytes:
        return kdf.hkdf(raw(test, "ikm"), salt=raw(test, "salt"), info=raw(test, "info"), size=test["size"])

    assert outcome(work, (ValueError,)) == expected(test, "okm")


@pytest.mark.parametrize("test", cases("hmac_sha256"))
def test_hmac_gives_what_is_published(test: dict[str, Any]) -> None:
    tag = kdf.hmac_sha256(raw(test, "key"), raw(test, "msg"))[: test["tagSize"] // 8]
    assert kdf.equal(tag, raw(test, "tag")) == (test["result"] == "valid")
    assert hmac.new(raw(test, "key"), raw(test, "msg"), hashlib.sha256).digest().startswith(tag)


# ── AEADs: 96-bit nonces and 128-bit tags, as frames, records and seals have ──


@pytest.mark.parametrize(
    ("cipher", "test"),
    [
        pytest.param(cipher, param.values[0], id=f"{name}-{param.id}")
        for name, cipher in (("aes_gcm", AESGCM), ("chacha20_poly1305", ChaCha20Poly1305))
        for param in cases(name, wanted=lambda test: test["ivSize"] == 96 and test["keySize"] in (128, 256))
    ],
)
def test_an_aead_opens_what_is_published_and_nothing_else(
    cipher: type[AESGCM] | type[ChaCha20Poly1305], test: dict[str, Any]
) -> None:
    aead = cipher(raw(test, "key"))
    sealed = raw(test, "ct") + raw(test, "tag")
    plain = outcome(lambda: aead.decrypt(raw(test, "iv"), sealed, raw(test, "aad")), (InvalidTag, ValueError))
    assert plain == expected(test, "msg")
    if plain is not None:
        assert aead.encrypt(raw(test, "iv"), plain, raw(test, "aad")) == sealed
