"""A masked configuration: no secret is in it, and all else means what it meant."""

from __future__ import annotations

import re

import pytest
from kit.tree import TREE

from conflux.config import settings
from conflux.config.mask import masked
from conflux.config.settings import Config, parse
from conflux.errors import ConfigError

TOKEN = "cfx1" + "Ab-_9" * 8
WHOLE = f"""
[node]
name = "attic"
state_dir = "/srv/conf\\u0022lux \\\\ caf\u00e9"
log_level = "debug"
nice = -5
[realm]
token = "{TOKEN}"
renew_expired = 30
[tun]
name = "conflux1"
mtu = 2000
ipv4 = false
forward_from = ["docker0"]
fail_closed = false
[datapath]
name = "reference"
[control.lan]
enabled = false
port = 7000
interfaces = ["eth0", "wlan0"]
mdns = false
ring = true
peers = ["attic.lan", "[fd00::1]:7464"]
[control.nats]
enabled = false
servers = ["tls://a.example", "tls://b.example:4223"]
ca = '/etc/conflux/ca.pem'
area = "north"
[stream]
idle_timeout = 1.5
idle_timeout_min = 6
idle_timeout_max = 60
metered = true
queue_bytes = 70_000
resumption = "always-kem"
queue_age = 3
[budget]
day = "50 MB"
month = "1 GB"
month_starts = 15
[link]
ice_servers = [{{ url = "turn:turn.example", username = "Us3r", credential = "pa55w0rd" }}]
dial_count_max = 3
dial_timeout = 5
linger = 1
[relay]
enabled = false
public = true
bytes_per_s = 100000
[api]
socket = "/srv/s.sock"
[page]
listen = ["overlay", "eth0"]
port = 8000
names = ["board.example"]
"""
UNIT = TREE / "packaging" / "conflux-page.service"


def bare(config: Config) -> Config:
    """Return a configuration with the secret keys as they are by default."""
    usual = Config()
    return config._replace(
        realm=config.realm._replace(token=usual.realm.token),
        link=config.link._replace(ice_servers=usual.link.ice_servers),
    )


def test_the_example_sets_every_key_and_every_secret():
    set_here = {each.key for each in settings.valued(WHOLE) if each.line is not None}
    assert set_here == {key for key, _, _ in settings.every_key()}
    assert {key for key, _, entry in settings.every_key() if entry.secret} == {"realm.token", "link.ice_servers"}


def test_no_secret_is_in_a_masked_configuration():
    text = masked(WHOLE)
    assert [secret for secret in (TOKEN, "Us3r", "pa55w0rd", "turn.example") if secret in text] == []


def test_all_else_means_what_it_meant():
    assert parse(masked(WHOLE)) == bare(parse(WHOLE)) != parse(WHOLE)
    assert masked(masked(WHOLE)) == masked(WHOLE)


@pytest.mark.parametrize("text", ["", "# nothing", "[realm]\n", "realm = {}", "node.name = 'a'"])
def test_a_small_one_is_masked_too(text):
    assert parse(masked(text)) == parse(text)


@pytest.mark.parametrize("text", ["[node", "[node]\nnice = 99", "[nod]", f"[realm]\ntokn = '{TOKEN}'"])
def test_of_a_broken_one_there_is_no_copy(text):
    with pytest.raises(ConfigError):
        masked(text)


def test_the_page_of_the_unit_gets_the_masked_copy_alone():
    unit = UNIT.read_text()
    lines = [line for line in unit.splitlines() if not line.startswith("#")]
    copy = "%t/conflux-page/conflux.toml"
    assert f"ExecStartPre=+/usr/bin/conflux config mask {copy} --force" in lines
    assert f"ExecStart=/usr/bin/conflux page --config {copy}" in lines
    assert "RuntimeDirectory=conflux-page" in lines
    (closed,) = re.findall(r"^InaccessiblePaths=(.*)$", unit, re.MULTILINE)
    assert closed == "-/etc/conflux"
    assert [line for line in lines if line.startswith(("LoadCredential", "BindPaths", "ReadWritePaths"))] == []
