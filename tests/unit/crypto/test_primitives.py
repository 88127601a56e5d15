"""What each function of conflux.crypto promises, and what it does with bytes of an unknown sender."""

import pytest
from kit.builders import signing_key

from conflux.crypto import kdf, kem, seal, sign
from conflux.errors import AuthError, LocalProtocolError, RemoteProtocolError

CONTEXT = sign.context("test", bytes(16))


# ── signatures ──


def test_sizes_are_those_of_the_protocol():
    key = signing_key("a")
    assert len(key.public.encode()) == sign.PUBLIC_BYTES == 1984
    assert len(key.sign(CONTEXT, b"m")) == sign.SIGNATURE_BYTES == 3373
    assert len(key.sign_ed25519(CONTEXT, b"m")) == 64
    assert len(key.seed) == sign.SEED_BYTES == 64


def test_seed_determines_the_key():
    key = sign.SigningKey.generate()
    assert sign.SigningKey.from_seed(key.seed).public == key.public
    assert sign.SigningKey.from_seed(bytearray(key.seed)).public == key.public


def test_two_keys_differ():
    assert sign.SigningKey.generate().public != sign.SigningKey.generate().public


def test_signature_verifies_after_the_key_crossed_the_wire():
    key = signing_key("a")
    public = sign.VerifyKey.decode_untrusted(key.public.encode())
    public.verify(CONTEXT, b"m", key.sign(CONTEXT, b"m"))
    public.verify_ed25519(CONTEXT, b"m", key.sign_ed25519(CONTEXT, b"m"))
    assert public == key.public
    assert hash(public) == hash(key.public)
    assert public.fingerprint == kdf.sha256(key.public.encode())


@pytest.mark.parametrize("flip", [0, 63, 64, 3372])
def test_either_half_forged_is_refused(flip):
    key = signing_key("a")
    signature = bytearray(key.sign(CONTEXT, b"m"))
    signature[flip] ^= 1
    with pytest.raises(AuthError):
        key.public.verify(CONTEXT, b"m", bytes(signature))


def test_one_good_half_is_not_enough():
    mine, other = signing_key("a"), signing_key("b")
    good, bad = mine.sign(CONTEXT, b"m"), other.sign(CONTEXT, b"m")
    for mixed in (good[:64] + bad[64:], bad[:64] + good[64:]):
        with pytest.raises(AuthError):
            mine.public.verify(CONTEXT, b"m", mixed)


def test_signature_of_another_purpose_or_realm_is_refused():
    key = signing_key("a")
    signature = key.sign(sign.context("test", bytes(16)), b"m")
    for other in (sign.context("tesu", bytes(16)), sign.context("test", b"\1" * 16)):
        with pytest.raises(AuthError):
            key.public.verify(other, b"m", signature)


def test_context_is_a_prefix_of_purpose_zero_realm():
    assert sign.context("card", b"R" * 16) == b"conflux/1/card\0" + b"R" * 16


@pytest.mark.parametrize("size", [0, 63, 65, 3372, 3374])
def test_signature_of_wrong_size_is_refused(size):
    with pytest.raises(AuthError):
        signing_key("a").public.verify(CONTEXT, b"m", bytes(size))


@pytest.mark.parametrize("size", [0, 63, 65])
def test_ed25519_signature_of_wrong_size_is_refused(size):
    with pytest.raises(AuthError):
        signing_key("a").public.verify_ed25519(CONTEXT, b"m", bytes(size))


@pytest.mark.parametrize("size", [0, 32, 1983, 1985])
def test_public_key_of_wrong_size_is_refused(size):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        sign.VerifyKey.decode_untrusted(bytes(size))


def test_public_key_of_nonsense_is_refused_or_verifies_nothing():
    for filling in (b"\0", b"\xff"):
        try:
            key = sign.VerifyKey.decode_untrusted(filling * 1984)
        except RemoteProtocolError:
            continue
        with pytest.raises(AuthError):
            key.verify(CONTEXT, b"m", bytes(3373))


def test_seed_of_wrong_size_is_a_local_protocol_error():
    with pytest.raises(LocalProtocolError):
        sign.SigningKey.from_seed(bytes(63))


# ── X-Wing ──


def test_both_ends_of_xwing_agree():
    key = kem.PrivateKey.generate()
    ciphertext, secret = kem.encapsulate(key.public)
    assert (len(key.public), len(ciphertext), len(secret)) == (1216, 1120, 32)
    assert key.decapsulate(ciphertext) == secret


def test_every_encapsulation_is_fresh():
    key = kem.PrivateKey.generate()
    assert kem.encapsulate(key.public)[1] != kem.encapsulate(key.public)[1]


@pytest.mark.parametrize("flip", [0, 1087, 1088, 1118])
def test_altered_xwing_ciphertext_gives_another_secret(flip):
    key = kem.PrivateKey.generate()
    ciphertext, secret = kem.encapsulate(key.public)
    altered = bytearray(ciphertext)
    altered[flip] ^= 1
    assert key.decapsulate(bytes(altered)) != secret


@pytest.mark.parametrize("size", [0, 1119, 1121])
def test_xwing_ciphertext_of_wrong_size_is_refused(size):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        kem.PrivateKey.generate().decapsulate(bytes(size))


@pytest.mark.parametrize("size", [0, 1215, 1217])
def test_xwing_key_of_wrong_size_is_refused(size):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        kem.encapsulate(bytes(size))


def test_xwing_key_out_of_range_is_refused():
    # FIPS 203, section 7.2: a coefficient at or above q fails the modulus check.
    with pytest.raises(RemoteProtocolError, match="malformed"):
        kem.encapsulate(b"\xff" * 1216)


# The points of small order that a peer could send, RFC 7748 and https://cr.yp.to/ecdh.html#validate.
SMALL_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_x25519_points_of_small_order_are_refused_at_both_ends(point):
    key = kem.PrivateKey.generate()
    with pytest.raises(RemoteProtocolError, match="small order"):
        kem.encapsulate(key.public[:1184] + point)
    ciphertext, _ = kem.encapsulate(key.public)
    with pytest.raises(RemoteProtocolError, match="small order"):
        key.decapsulate(ciphertext[:1088] + point)
    with pytest.raises(RemoteProtocolError, match="malformed"):
        seal.seal(key.public[:1184] + point, b"m", b"")


def test_erased_xwing_key_holds_nothing():
    key = kem.PrivateKey.generate()
    ciphertext, _ = kem.encapsulate(key.public)
    key.erase()
    key.erase()
    assert key.is_erased
    with pytest.raises(LocalProtocolError):
        key.decapsulate(ciphertext)


# ── sealing ──


def test_sealed_message_opens_with_the_same_info_only():
    key = seal.SealKey.generate()
    sealed = seal.seal(key.public, b"hello", b"info")
    assert len(sealed) == 5 + seal.OVERHEAD_BYTES == 5 + 1136
    assert key.unseal(sealed, b"info") == b"hello"
    with pytest.raises(AuthError):
        key.unseal(sealed, b"other")
    with pytest.raises(AuthError):
        seal.SealKey.generate().unseal(sealed, b"info")


def test_empty_message_can_be_sealed():
    key = seal.SealKey.generate()
    assert key.unseal(seal.seal(key.public, b"", b""), b"") == b""


@pytest.mark.parametrize("flip", [0, 1087, 1088, 1119, 1120, 1140])
def test_altered_sealed_message_is_refused(flip):
    key = seal.SealKey.generate()
    altered = bytearray(seal.seal(key.public, b"hello", b"info"))
    altered[flip] ^= 1
    with pytest.raises(AuthError):
        key.unseal(bytes(altered), b"info")


@pytest.mark.parametrize("size", [0, 1, 1119, 1120, 1135, 1136, 5000])
def test_sealed_nonsense_is_refused(size):
    with pytest.raises(AuthError):
        seal.SealKey.generate().unseal(bytes(size), b"info")


@pytest.mark.parametrize("key", [b"", bytes(1215), bytes(1217), b"\xff" * 1216])
def test_sealing_to_a_bad_key_is_refused(key):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        seal.seal(key, b"m", b"")


def test_erased_sealing_key_opens_nothing():
    key = seal.SealKey.generate()
    sealed = seal.seal(key.public, b"m", b"")
    key.erase()
    with pytest.raises(LocalProtocolError):
        key.unseal(sealed, b"")


# ── the rest ──


def test_no_secret_shows_in_a_repr():
    key = sign.SigningKey.generate()
    shown = repr(key) + repr(key.public) + repr(kem.PrivateKey.generate()) + repr(seal.SealKey.generate())
    assert key.seed.hex()[:16] not in shown
    assert key.seed.hex()[64:80] not in shown
    assert len(shown) < 200


def test_hkdf_size_and_inputs_matter():
    base = kdf.hkdf(b"secret", salt=b"s", info=b"i", size=44)
    assert len(base) == 44
    assert base != kdf.hkdf(b"secret", salt=b"t", info=b"i", size=44)
    assert base != kdf.hkdf(b"secret", salt=b"s", info=b"j", size=44)
    assert base == kdf.hkdf(bytearray(b"secret"), salt=b"s", info=b"i", size=44)


def test_sha256_joins_its_parts():
    assert kdf.sha256(b"a", b"bc") == kdf.sha256(b"abc")


def test_equal_compares():
    assert kdf.equal(b"ab", b"ab")
    assert not kdf.equal(b"ab", b"ac")
    assert not kdf.equal(b"ab", b"abc")
