"""Known answers of the two AEADs, for the library behind the twin.

The compiled codec runs on another copy, the system's libcrypto; that the two agree is tested with the codec.

Source: PyPI cryptography_vectors 50.0.2.  AES-256-GCM: NIST CAVP gcmEncryptExtIV256.rsp and gcmDecrypt256.rsp (those of
96-bit IVs and 128-bit tags, as ours are).  ChaCha20-Poly1305: BoringSSL's test file, RFC 8439's example among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

CIPHERS = Path(cryptography_vectors.__file__).parent / "ciphers"


def cases(path: str, first_field: str) -> Iterator[dict[str, str]]:
    """The blocks of a vector file: every field after a line that names first_field."""
    case: dict[str, str] | None = None
    for line in (CIPHERS / path).read_text().splitlines():
        name, _, value = (part.strip() for part in line.partition("="))
        if name == first_field:
            if case:
                yield case
            case = {}
        elif case is not None and name and name[0] not in "#[":
            case[name] = value
    if case:
        yield case


def octets(value: str) -> bytes:
    """BoringSSL writes "text" in quotes and everything else in hex."""
    return value.strip('"').encode() if value.startswith('"') else bytes.fromhex(value)


@pytest.mark.parametrize("path", ["AES/GCM/gcmEncryptExtIV256.rsp", "AES/GCM/gcmDecrypt256.rsp"])
def test_aes_256_gcm_answers_as_nist_says(path: str) -> None:
    opened = refused = 0
    for case in cases(path, "Count"):
        if len(case["IV"]) != 24 or len(case["Tag"]) != 32:
            continue
        key, iv, aad, tag, sealed = (bytes.fromhex(case[name]) for name in ("Key", "IV", "AAD", "Tag", "CT"))
        cipher = AESGCM(key)
        if "FAIL" in case:
            with pytest.raises(InvalidTag):
                cipher.decrypt(iv, sealed + tag, aad)
            refused += 1
        else:
            plain = bytes.fromhex(case["PT"])
            assert cipher.encrypt(iv, plain, aad) == sealed + tag
            assert cipher.decrypt(iv, sealed + tag, aad) == plain
            opened += 1
    assert opened >= 150
    assert refused > 0 or "Encrypt" in path


def test_chacha20_poly1305_answers_as_rfc_8439_says() -> None:
    count = 0
    for case in cases("ChaCha20Poly1305/boringssl.txt", "COUNT"):
        key, nonce, plain, aad, sealed, tag = (octets(case[name]) for name in ("KEY", "NONCE", "IN", "AD", "CT", "TAG"))
        cipher = ChaCha20Poly1305(key)
        assert cipher.encrypt(nonce, plain, aad) == sealed + tag
        assert cipher.decrypt(nonce, sealed + tag, aad) == plain
        with pytest.raises(InvalidTag):
            cipher.decrypt(nonce, sealed + bytes([tag[0] ^ 1]) + tag[1:], aad)
        count += 1
    assert count > 50
