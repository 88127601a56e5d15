"""conflux.toml for a card: options over a file, and back again."""

from __future__ import annotations

import tomllib

import pytest

from conflux.board.compose import compose
from conflux.errors import ConfigError

TEXTS = ["attic", "", 'a "quoted" \\ one', "tab\tand\nline", "\x00\x1f\x7f", "Übermut 🐧", "#no comment", "'''"]


def read(data: bytes) -> dict:
    return tomllib.loads(data.decode())


def test_a_file_alone_goes_as_it_is():
    assert compose(b"# mine\n[board]\nname='a'\n", "f", {}) == b"# mine\n[board]\nname='a'\n"


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_is_read_as_it_was_given(text):
    tables = {"board": {"name": text, "ssh_key": [text, "k"]}, "wifi": {"ssid": text, "password": text}}
    assert read(compose(None, "f", tables)) == tables


def test_options_win_and_what_else_is_in_the_file_stays():
    file = b"""
[board]
name = "kitchen"
time_zone = "Europe/Berlin"
[conflux.control.lan]
interfaces = ["eth0"]
port = 7464
quiet = true
since = 2026-12-01
ratio = 0.5
[[conflux.link.ice_servers]]
url = "stun:192.0.2.1"
[conflux."odd key"]
"""
    found = read(compose(file, "f", {"board": {"name": "attic", "token": "cfx1x"}}))
    wanted = read(file)
    wanted["board"] |= {"name": "attic", "token": "cfx1x"}
    assert found == wanted


@pytest.mark.parametrize("file", [b"[board", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_file_that_is_no_toml_is_named(file):
    with pytest.raises(ConfigError, match=r"mine\.toml: "):
        compose(file, "mine.toml", {"board": {"name": "a"}})


def test_a_secret_ends_in_no_heading():
    data = compose(None, "f", {"board": {"token": "x\n[conflux]\ny = 1"}})
    assert list(read(data)) == ["board"]
