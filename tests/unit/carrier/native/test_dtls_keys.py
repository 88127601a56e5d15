"""The PRF that expands the key block gives a published answer."""

from __future__ import annotations

import hashlib

from conflux.carrier.native.dtls_keys import SUITES, expand
from conflux.carrier.wire import DtlsKeys

# "Test vectors for TLS 1.2 PRF", IETF TLS mailing list, 2009, P_SHA256.
SECRET = bytes.fromhex("9bbe436ba940f017b17652849a71db35")
SEED = bytes.fromhex("a0ba9f936cda311827a6f796ffd5198c")
LABEL = b"test label"
OUTPUT = bytes.fromhex(
    "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af"
    "0fa022f7077def17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701"
    "87347b66"
)


def test_expansion_gives_the_published_answer() -> None:
    assert expand(SECRET, LABEL + SEED, len(OUTPUT), "sha256") == OUTPUT


def test_a_shorter_expansion_is_the_beginning_of_a_longer_one() -> None:
    whole = expand(SECRET, SEED, 200, "sha384")
    assert all(expand(SECRET, SEED, size, "sha384") == whole[:size] for size in (1, 47, 48, 49, 96))


def test_every_suites_digest_is_known() -> None:
    assert {suite.prf for suite in SUITES.values()} <= hashlib.algorithms_available


def test_keys_are_not_shown() -> None:
    keys = DtlsKeys(1, b"secret-out", b"secret-in", b"ivxx", b"ivyy", 32)
    assert "secret" not in repr(keys)
    assert "iv" not in repr(keys)
