"""All that is wrong in a configuration, and the values that count."""

from __future__ import annotations

import json

import pytest

from conflux.config.settings import Fault, every_key, faults_of, parse, valued
from conflux.errors import ConfigError

BROKEN = """\
[node]
nam = "x"
log_level = "loud"
[tun]
mtu = 100
ipv4 = = true
[control.lan]
port = 80
[relay]
bytes_per_s = 5
"""


def lines(text: str) -> list[int | None]:
    return [fault.line for fault in faults_of(text)]


def test_every_mistake_of_a_file_is_found_with_its_line():
    assert lines(BROKEN) == [2, 3, 5, 6, 8, 10]
    assert faults_of(BROKEN)[2] == Fault(5, "tun.mtu must be a whole number from 1280 to 65000, not 100")


def test_a_good_file_has_no_fault_and_the_first_fault_is_the_one_that_a_daemon_stops_at():
    assert faults_of("[node]\nname = 'a'\n") == []
    text = "[tun]\nmtu = 1\n[nod]\n"
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value) == f"conflux.toml:2: {faults_of(text)[0].text}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[node\nname = 'A B'\n[tun]\nmtu = 1\n", [1, 4]),  # what stands under a broken header has no section
        ("[control.lan]\npeers = [\n  'a:1',\n", [4]),
        ("x = 1\ny = 2\n", [1, 2]),
        ("]\n]\n]\n", [1, 2, 3]),
        ("a = 1" + 5000 * "0", [None]),
    ],
)
def test_what_is_no_toml_is_said_and_the_rest_is_looked_at(text, expected):
    assert lines(text) == expected, faults_of(text)


def test_a_broken_ice_server_shows_no_password():
    for value in ('{ url = "turn:x", credential = "hidden-word" }', '[{ url = "x", credential = "hidden-word" }]'):
        assert faults_of(f"[link]\nice_servers = {value}\n")
        assert not any("hidden-word" in fault.text for fault in faults_of(f"[link]\nice_servers = {value}\n"))


def test_every_key_is_shown_with_the_value_that_counts_and_the_line_that_sets_it():
    text = "[tun]\n\nmtu = 1400\n[control.lan]\npeers = ['a:1', '[fe80::1]:2']\n"
    found = {each.key: each for each in valued(text)}
    assert list(found) == [key for key, _, _ in every_key()]
    assert (found["tun.mtu"].value, found["tun.mtu"].line) == (1400, 3)
    assert (found["control.lan.peers"].value, found["control.lan.peers"].line) == (["a:1", "[fe80::1]:2"], 5)
    assert (found["stream.idle_timeout_max"].value, found["stream.idle_timeout_max"].line) == (120.0, None)
    json.dumps([each.value for each in found.values()])


def test_no_secret_is_shown():
    text = (
        '[realm]\ntoken = "cfx1hidden"\n[link]\n'
        'ice_servers = [{ url = "turn:t", username = "hidden", credential = "hidden" }]\n'
    )
    shown = json.dumps([each.value for each in valued(text)])
    assert "hidden" not in shown
    assert "turn:t:3478" in shown
