"""Invitations as text: what a person may paste, and the errors that the person reads."""

import base64
import dataclasses
import hashlib

import pytest
from kit.builders import NOW_UNIX, make_realm

from conflux import record
from conflux.crypto.nkey import KeyPair, Kind
from conflux.errors import ConfigError
from conflux.ids import NodeId
from conflux.realm.broker.jwt import UserJwt
from conflux.realm.broker.users import Signer
from conflux.realm.credential import CREDENTIAL_LIFETIME_S
from conflux.realm.invite import LIFETIME_S_MAX, Invite, Token, make_invite, parse_hint

ANCHOR = make_realm().anchor
ISSUER = NodeId(b"I" * 16)


def entropy(size: int) -> bytes:
    return bytes(range(size))


INVITE, TOKEN = make_invite(ANCHOR, ISSUER, now_unix=NOW_UNIX, entropy=entropy, hints=("192.0.2.1:7464", "[fe80::1]:7"))


def token_text(data: bytes) -> str:
    check = hashlib.sha256(data).digest()[:4]
    return "cfx1" + base64.urlsafe_b64encode(data + check).decode().rstrip("=")


def test_token_names_realm_issuer_and_secret():
    assert TOKEN.root_fingerprint == ANCHOR.fingerprint
    assert TOKEN.realm_id == ANCHOR.realm_id
    assert TOKEN.issuer == ISSUER
    assert (TOKEN.invite_id, TOKEN.secret) == (INVITE.invite_id, INVITE.secret)
    assert TOKEN.not_after == INVITE.not_after == NOW_UNIX + 86400
    assert (TOKEN.count, INVITE.used, INVITE.lifetime_s) == (1, (), CREDENTIAL_LIFETIME_S)


def test_token_is_text_and_back():
    text = TOKEN.format()
    assert text.startswith("cfx1")
    assert text[4:].replace("-", "").replace("_", "").isalnum()
    assert len(text) < 220  # a QR code a phone camera reads
    assert Token.parse(text) == TOKEN
    assert Token.parse(f"  {text}\n") == TOKEN


def over_broker(token=TOKEN, servers=("nats.example.org:4222",)) -> Token:
    signer = Signer(b"A" * 32, KeyPair.from_seed_bytes(Kind.ACCOUNT, b"S" * 32))
    admission = signer.join_pass(token.invite_id, token.secret, issued_at=NOW_UNIX, expires_at=token.not_after)
    return token.with_broker(servers, b"F" * 32, admission)


def test_token_with_a_broker_is_text_and_back():
    token = over_broker()
    text = token.format()
    assert Token.parse(text) == token
    assert token.broker.servers == ("nats.example.org:4222",)
    assert dataclasses.replace(token, broker=None) == TOKEN
    jwt, key = token.broker.admission.rebuild(token.invite_id, token.secret)
    assert UserJwt.decode_untrusted(jwt).user == key.public
    assert len(text) < 500


def test_token_of_before_there_was_a_broker_is_read_and_written_as_it_was():
    fields = [TOKEN.root_fingerprint, ISSUER, TOKEN.invite_id, TOKEN.secret, TOKEN.not_after, 1, list(TOKEN.hints)]
    assert Token.parse(token_text(record.encode([1, *fields]))) == TOKEN
    assert TOKEN.format() == token_text(record.encode([1, *fields]))
    with pytest.raises(ConfigError, match="more than one spelling"):
        Token.parse(token_text(record.encode([2, *fields, None])))


@pytest.mark.parametrize(
    ("servers", "hints", "named"),
    [
        ([f"{index}.{'x' * 50}.example:4222" for index in range(9)], (), 4),
        ([f"{index}.{'x' * 65}.example:4222" for index in range(9)], ("h" * 60 + ":7464",) * 4, 2),
    ],
)
def test_token_names_as_many_servers_as_fit(servers, hints, named):
    token = over_broker(dataclasses.replace(TOKEN, hints=hints), servers)
    assert token.broker.servers == tuple(servers[:named])
    assert len(token.format()) < 1024
    assert Token.parse(token.format()) == token


@pytest.mark.parametrize("servers", [[], ["x" * 81 + ":4222"], ["nats.example.org"]])
def test_token_without_a_server_that_it_can_name_is_refused(servers):
    with pytest.raises(ConfigError):
        over_broker(servers=servers)


@pytest.mark.parametrize("broker", [[1, [], b"F" * 32], [1, ["a:1"] * 5, b"F" * 32], [1, ["a:1"], b"F" * 31]])
def test_token_with_a_broker_beyond_its_bounds_is_refused(broker):
    admission = over_broker().broker.admission._to_item()
    fields = TOKEN._to_item()[1:]
    with pytest.raises(ConfigError, match="does not fit this version"):
        Token.parse(token_text(record.encode([2, *fields, [*broker, admission]])))


def test_invite_crosses_a_file():
    used = dataclasses.replace(INVITE, used=(ISSUER,) * 1000)
    assert Invite.decode_untrusted(used.encode()) == used


def test_every_single_character_mistyped_is_noticed():
    text = TOKEN.format()
    for index in range(len(text)):
        wrong = text[:index] + ("A" if text[index] != "A" else "B") + text[index + 1 :]
        with pytest.raises(ConfigError):
            Token.parse(wrong)


def test_every_shortened_token_is_noticed():
    text = TOKEN.format()
    for length in range(len(text)):
        with pytest.raises(ConfigError):
            Token.parse(text[:length])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must begin with cfx1"),
        ("hello", "must begin with cfx1"),
        ("CFX1AAAA", "must begin with cfx1"),
        ("cfx1", "damaged"),
        ("cfx1é", "damaged"),
        ("cfx1====", "damaged"),
        ("cfx1" + "A" * 5000, "at most 1024"),
        (TOKEN.format() + "=", "damaged"),
        (TOKEN.format() + "AAAA", "damaged"),
        (TOKEN.format()[:40] + "\n" + TOKEN.format()[40:], "damaged"),
        (TOKEN.format().replace("_", "/").replace("-", "+") + " x", "damaged"),
    ],
)
def test_what_is_no_token_is_told_apart(text, told):
    with pytest.raises(ConfigError, match=told):
        Token.parse(text)


def test_token_of_another_version_or_shape_is_told_apart():
    for data in (b"", b"\x80", b"\x81\x02", TOKEN.encode().replace(b"\x88\x01", b"\x88\x02", 1)):
        with pytest.raises(ConfigError, match="does not fit this version"):
            Token.parse(token_text(data))


def test_token_with_a_bad_hint_is_refused():
    with pytest.raises(ConfigError, match="HOST:PORT"):
        Token.parse(dataclasses.replace(TOKEN, hints=("-oProxyCommand=x:1",)).format())


def test_secret_of_a_token_is_not_in_its_repr():
    for shown in (repr(TOKEN), repr(INVITE)):
        assert repr(TOKEN.secret) not in shown
        assert TOKEN.secret.hex() not in shown


@pytest.mark.parametrize(
    ("hint", "parsed"),
    [
        ("192.0.2.1:7464", ("192.0.2.1", 7464)),
        ("[2001:db8::1]:1", ("2001:db8::1", 1)),
        ("[fe80::1%eth0]:9", ("fe80::1%eth0", 9)),
        ("pi.local:65535", ("pi.local", 65535)),
    ],
)
def test_hints_are_host_and_port(hint, parsed):
    assert parse_hint(hint) == parsed


NO_HINTS = (
    ["", ":", "a", "a:", ":1", "a:0", "a:65536", "a:-1", "a:1x", "a b:1", "-a:1", "a\n:1", "a:\u0661"],
    ["::1:7", "[::1]", "[x]:1", "[::1:1", "a:" + "1" * 5000],
)


@pytest.mark.parametrize("hint", [hint for hints in NO_HINTS for hint in hints])
def test_other_hints_are_refused(hint):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parse_hint(hint)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"count": 0}, "1 to 1000"),
        ({"count": 1001}, "1 to 1000"),
        ({"valid_s": 0}, "valid for"),
        ({"valid_s": LIFETIME_S_MAX + 1}, "valid for"),
        ({"lifetime_s": 0}, "cannot last"),
        ({"lifetime_s": LIFETIME_S_MAX + 1}, "cannot last"),
        ({"hints": ("a:1",) * 5}, "at most 4"),
        ({"hints": ("nonsense",)}, "HOST:PORT"),
        ({"tags": ("Bad Tag",)}, "tag"),
        ({"tags": ("t",) * 17}, "at most 16"),
        ({"capabilities": ("fly",)}, "capability 'fly'"),
    ],
)
def test_invitation_out_of_its_bounds_is_refused(choice, told):
    with pytest.raises(ConfigError, match=told):
        make_invite(ANCHOR, ISSUER, now_unix=NOW_UNIX, entropy=entropy, **choice)
