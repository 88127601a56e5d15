"""What has the form of a secret goes out of a report, and what is none stays."""

from __future__ import annotations

import base64

import pytest

from conflux.doctor.scrub import GONE, scrubbed, without_values

SEED = bytes(range(7, 39))
B32 = base64.b32encode(SEED).decode().rstrip("=")


@pytest.mark.parametrize(
    "secret",
    [
        "cfx1" + "A9-_" * 30,
        SEED.hex(),
        SEED.hex().upper(),
        base64.b64encode(SEED).decode(),
        base64.urlsafe_b64encode(SEED).decode().rstrip("="),
        "SU" + B32,
        "eyJ0eXAiOiJKV1QifQ.eyJzdWIiOiJ4In0.c2lnbmF0dXJl",
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----",
    ],
)
def test_what_has_the_form_of_a_secret_is_taken_out(secret):
    for text in (secret, f"token = '{secret}'", f"a {secret} b", f"({secret})"):
        assert secret not in scrubbed(text)
        assert GONE in scrubbed(text)


@pytest.mark.parametrize(
    "text",
    [
        "up: alpha at fd40:53af:d59:1ec5:eec2:89d5:507b:a6b1 (d3c65quj2vihxjvrojowrdvpzq)",
        "/usr/lib/python3/dist-packages/conflux/control/lan/channel.py",
        "tcp LISTEN 0 64 [::]:7464 [::]:*",
    ],
)
def test_what_is_no_secret_stays(text):
    assert scrubbed(text) == text


def test_known_secrets_are_taken_out_whatever_their_form_the_longest_first():
    assert scrubbed("pass=word; password", ["word", "password", ""]) == f"pass={GONE}; {GONE}"


def test_a_broken_configuration_keeps_its_keys_alone():
    text = '[realm]\ntoken = "cfx1secret\n# secret\n[link]\nice_servers = [\n  { credential = "secret" },\n]\n'
    kept = without_values(text)
    assert "secret" not in kept
    assert kept.splitlines()[:2] == ["[realm]", "token = ..."]
    assert "ice_servers = ..." in kept
