"""Known answers for NATS keys and JWTs, from the tests of clients that others wrote.

Sources, read 2026-11-30: github.com/nats-io/nats.java, NKeyTests.java (CRC-16) and JwtUtilsTests.java (keys and JWTs);
github.com/nats-io/nkeys.net, README.md (the operator's key).
"""

from __future__ import annotations

import pytest

from conflux.crypto.nkey import KeyPair, Kind, crc16, decode_untrusted, encode
from conflux.realm.broker.jwt import open_untrusted, signature_of

USER_SEED = "SUAGL3KX4ZBBD53BNNLSHGAAGCMXSEYZ6NTYUBUCPZQGHYNK3ZRQBUDPRY"
USER = "UA6KOMQ67XOE3FHE37W4OXADVXVYISBNLTBUT2LSY5VFKAIJ7CRDR2RZ"
ACCOUNT_SEED = "SAANJIBNEKGCRUWJCPIWUXFBFJLR36FJTFKGBGKAT7AQXH2LVFNQWZJMQU"
ACCOUNT = "ADQ4BYM5KICR5OXDSP3S3WVJ5CYEORGQKT72SVRF2ZDVA7LTFKMCIPGY"
OPERATOR_SEED = "SOAELH6NJCEK4HST5644G4HK7TOAFZGRRJHNM4EUKUY7PPNDLIKO5IH4JM"
OPERATOR = "ODPWIBQJVIQ42462QAFI2RKJC4RZHCQSIVPRDDHWFCJAP52NRZK6Z2YC"

JWT = (
    "eyJ0eXAiOiJKV1QiLCAiYWxnIjoiZWQyNTUxOS1ua2V5In0."
    "eyJleHAiOjE2MzMwNDM0NzgsImlhdCI6MTYzMzA0MzM3OCwianRpIjoiNDNGWEcyRktLN09ZMlFIN09KR1lPRDdCRjJVRlU0NDdFREpaRVBPM1ZT"
    "Qk5KSlZBS0pDQSIsImlzcyI6IkFEUTRCWU01S0lDUjVPWERTUDNTM1dWSjVDWUVPUkdRS1Q3MlNWUkYyWkRWQTdMVEZLTUNJUEdZIiwibmFtZSI6"
    "Im5hbWUiLCJuYXRzIjp7Imlzc3Vlcl9hY2NvdW50IjoiQUNYWlJBTElMMjJXUkVURFJYWUtPWURCN1hDM0U3TUJTVlVTVU1GQUNPNk9NNVZQUk5G"
    "TU9PTzYiLCJ0YWdzIjpbInRhZzEiLCJ0YWdcXHR3byJdLCJ0eXBlIjoidXNlciIsInZlcnNpb24iOjJ9LCJzdWIiOiJVQTZLT01RNjdYT0UzRkhF"
    "MzdXNE9YQURWWFZZSVNCTkxUQlVUMkxTWTVWRktBSUo3Q1JEUjJSWiJ9."
    "NdCdguIm89sg07PIlwdjkWesjHzKNQ2XYUd_t_Pfz7BFNz3gNbdcm5L-4mzvzH4l7NMI2Hbp0I7v_P26zU5cCQ"
)


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0x0000),
        (b"abc", 0x9DD6),
        (b"ABC", 0x3994),
        (b"This is a string", 0x21E3),
        (b"123456789", 0x31C3),
        (b"abcdefghijklmnopqrstuvwxyz0123456789", 0xCBDE),
        (b"\x7f", 0x8F78),
        (b"\x80", 0x9188),
        (b"\xff", 0x1EF0),
        (b"\x00\x01\x7d\x7e\x7f\x80\xfe\xff", 0xE26F),
    ],
)
def test_the_checksum_is_that_of_others(data, crc):
    assert crc16(data) == crc


@pytest.mark.parametrize(
    ("kind", "seed", "public"),
    [
        (Kind.USER, USER_SEED, USER),
        (Kind.ACCOUNT, ACCOUNT_SEED, ACCOUNT),
        (Kind.OPERATOR, OPERATOR_SEED, OPERATOR),
    ],
)
def test_a_seed_has_the_public_key_that_others_find(kind, seed, public):
    key = KeyPair.from_seed_untrusted(kind, seed)
    assert key.word == public
    assert key.seed == seed
    assert encode(kind, decode_untrusted(kind, public)) == public


def test_the_jwt_of_another_program_is_read():
    opened = open_untrusted(JWT)
    assert (opened.issuer, opened.subject, opened.kind) == (ACCOUNT, USER, "user")
    assert (opened.issued_at, opened.expires_at) == (1633043378, 1633043478)
    assert opened.claims["nats"]["tags"] == ["tag1", "tag\\two"]


def test_the_signature_is_the_one_that_another_program_made():
    signed = JWT.rpartition(".")[0]
    assert KeyPair.from_seed_untrusted(Kind.ACCOUNT, ACCOUNT_SEED).sign(signed.encode()) == signature_of(JWT)
