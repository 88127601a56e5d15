"""conflux.toml: which values are taken, and with which error and line the others are refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conflux.carrier.ice.server import IceServer
from conflux.config import place, settings
from conflux.config.settings import Config, parse
from conflux.config.source import Source
from conflux.errors import ConfigError


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


def test_an_empty_file_is_the_defaults():
    assert parse("") == Config()
    assert parse("# nothing\n\n") == Config()


def test_every_section_is_read():
    got = parse("""
[node]
name = "pi-4"
state_dir = "/srv/conflux"
log_level = "debug"
[realm]
token = "cfx1AAAA"
[tun]
name = "cfx7"
mtu = 1400
ipv4 = false
[control.lan]
enabled = false
port = 7000
interfaces = ["eth0", "wlan0"]
mdns = false
peers = ["10.0.0.1:7464", "[fe80::1]:7465", "gate.example:1"]
[control.nats]
servers = ["tls://a.example", "tls://192.0.2.1:4223", "tls://[2001:db8::1]", "tls://[::1]:1", "tls://a.example:4222"]
ca = "/etc/conflux/ca.pem"
area = "site-7"
[stream]
idle_timeout = 3
[link]
ice_servers = ["stun:s.example:3478", { url = "stun:t.example" }, { url = "turn:t", username = "u", credential = "c" }]
linger = 0.5
[relay]
enabled = false
bytes_per_s = 1_250_000
[api]
socket = "/run/conflux/x.sock"
""")
    assert got.node.name == "pi-4"
    assert got.node.state_dir == Path("/srv/conflux")
    assert got.tun.mtu == 1400
    assert not got.tun.ipv4
    assert got.control.lan.interfaces == ("eth0", "wlan0")
    assert got.control.lan.peers == (("10.0.0.1", 7464), ("fe80::1", 7465), ("gate.example", 1))
    nats = got.control.nats
    places = (("a.example", 4222), ("192.0.2.1", 4223), ("2001:db8::1", 4222), ("::1", 1))
    assert (nats.enabled, nats.servers, nats.ca, nats.area) == (True, places, Path("/etc/conflux/ca.pem"), "site-7")
    assert got.stream.idle_timeout == 3.0
    assert got.link.ice_servers == (
        IceServer.parse("stun:s.example:3478"),
        IceServer.parse("stun:t.example"),
        IceServer.parse("turn:t", "u", "c"),
    )
    assert (got.relay.enabled, got.relay.bytes_per_s) == (False, 1_250_000)
    assert got.socket == Path("/run/conflux/x.sock")


def test_the_socket_stands_in_the_state_directory_unless_named():
    assert parse('[node]\nstate_dir = "/a"').socket == Path("/a/conflux.sock")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[nod]", 1, "unknown key 'nod' at the top level; did you mean 'node'?"),
        ("\n[node]\nnam = 'x'", 3, "unknown key 'nam' in [node]; did you mean 'name'?"),
        ('[node]\n"nam" = "x"', 2, "'nam'"),
        ('["node"]\nname = "x"\n"zz" = "x"', 3, "unknown key 'zz' in [node]; known: name"),
        ("node.nam = 'x'", 1, "'nam'"),
        ("[node]\nname = 'x'\n[tun]\nmtu = 1300\nname = 'y'\nnam = 1", 6, "unknown key 'nam' in [tun]"),
        ("control.lan = { prot = 1 }", 1, "unknown key 'prot' in [control.lan]"),
        ("[control]\n\nwan = 1", 3, "unknown key 'wan' in [control]"),
        ("[control.lan]\npeers = [\n  'a:1', # [x]\n  'b:2',\n]\nprot = 1", 6, "'prot'"),
        ('[node]\nname = """a\nprot = 1"""\nx = 1', 2, "node.name must be a name"),
        ("[[node]]", 1, "'node' is a table: write [node]"),
        ("control = 3", 1, "'control' is a table: write [control]"),
        ("[tun]\nmtu = '1280'", 2, "tun.mtu must be a whole number from 1280 to 65000, not '1280'"),
        ("[tun]\nmtu = true", 2, "not true"),
        ("[tun]\nmtu = 100", 2, "not 100"),
        ("[tun]\nipv4 = 1", 2, "tun.ipv4 must be true or false, not 1"),
        ("[tun]\nname = 'a/b'", 2, "tun.name must be a device name"),
        ("[tun]\nname = 'sixteen-letters-'", 2, "1 to 15 characters"),
        ("[node]\nstate_dir = 'var'", 2, "must be an absolute path"),
        ("[node]\nlog_level = 'loud'", 2, 'one of "debug", "info"'),
        ("[node]\nname = 'Pi 4'", 2, "not 'Pi 4'"),
        ("[stream]\nidle_timeout = inf", 2, "from 1 to 3600, not inf"),
        ("[stream]\nidle_timeout = 0", 2, "not 0"),
        ("[stream]\nidle_timeout = nan", 2, "not nan"),
        ("[stream]\nidle_timeout = 1" + 400 * "0", 2, "from 1 to 3600, not 1000"),
        ("[tun]\nmtu = 0x" + 4000 * "f", 2, "not a number of thousands of digits"),
        ("[control.lan]\npeers = 'a:1'", 2, 'a list of "host:port"'),
        ("[control.lan]\npeers = ['a:']", 2, "not 'a:'"),
        ("[control.lan]\npeers = ['a:0']", 2, "a port from 1 to 65535"),
        ("[control.lan]\npeers = ['fe80::1:7464']", 2, "[ipv6]:port"),
        ("[control.lan]\nport = 80", 2, "from 1024 to 65535"),
        ("[control.nats]\nservers = 'tls://a'", 2, 'a list of "tls://host:port"'),
        ("[control.nats]\nservers = ['a:4222']", 2, 'a list of "tls://host:port"'),
        ("[control.nats]\nservers = ['nats://a:4222']", 2, "not 'nats://a:4222'"),
        ("[control.nats]\nservers = ['tls://']", 2, "each port from 1 to 65535"),
        ("[control.nats]\nservers = ['tls://a:0']", 2, "each port from 1 to 65535"),
        ("[control.nats]\nservers = ['tls://a:b']", 2, "each port from 1 to 65535"),
        ("[control.nats]\nservers = ['tls://u:p@a:1']", 2, "each port from 1 to 65535"),
        ("[control.nats]\nservers = ['tls://2001:db8::1']", 2, "tls://[ipv6]:port"),
        ("[control.nats]\nservers = ['tls://[x]']", 2, "tls://[ipv6]:port"),
        ("[control.nats]\nservers = [7]", 2, "not 7"),
        ("[control.nats]\nca = 'ca.pem'", 2, "an absolute path of a file"),
        ("[control.nats]\narea = 'A'", 2, "a name of 1 to 32 characters"),
        ("[control.nats]\narea = 'a.b'", 2, "not 'a.b'"),
        ("[control.nats]\nserver = []", 2, "did you mean 'servers'?"),
        ("[link]\nice_servers = [7]", 2, 'a list of "stun:host:port" and of tables'),
        ("[link]\nice_servers = ['turn:x']", 2, "needs a username"),
        ("[link]\nice_servers = [{ url = 'http://x' }]", 2, "'http://x' is not stun:"),
        ("[link]\nice_servers = [{ url = 'turn:x' }]", 2, "needs a username"),
        ("[link]\nice_servers = [{}]", 2, "'' is not stun:"),
        ("[link]\n\n[[link.ice_servers]]\nuri = 'stun:x'", 3, "unknown key 'uri'"),
        ("[api]\nsocket = '/" + 107 * "x" + "'", 2, "at most 107 bytes"),
        ("[relay]\nenabled = 'no'", 2, "relay.enabled must be true or false, not 'no'"),
        ("[relay]\nbytes_per_s = 0", 2, "from 10000 to 10000000000, not 0"),
        ("[relay]\nrate = 1", 2, "unknown key 'rate' in [relay]"),
        ("[node]\nname = ", 2, "invalid value"),
        ("[node]\nname = 'a'\nname = 'b'", 3, "overwrite"),
    ],
)
def test_an_error_names_its_line_and_what_is_expected_there(text, line, words):
    said = refusal(text)
    assert said.startswith(f"conflux.toml:{line}: ")
    assert words in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tun]\nmtu = " + 5000 * "1", "4300 digits"),
        ("[tun]\nmtu = " + 5000 * "[", "nested"),
        ("a" + 5000 * ".a" + " = 1", "parts"),
    ],
)
def test_a_text_beyond_a_limit_of_the_toml_reader_is_refused_with_its_text(text, words):
    said = refusal(text)
    assert said.startswith("conflux.toml: ")
    assert words in said


def test_windows_line_ends_do_not_move_the_line():
    assert refusal("[node]\r\n\r\nnam = 1\r\n").startswith("conflux.toml:3: ")


def test_an_invitation_never_stands_in_an_error_or_a_log():
    assert "cfx2SECRET" not in refusal("[realm]\ntoken = 'cfx2SECRET'")
    assert "SECRET" not in repr(parse("[realm]\ntoken = 'cfx1SECRET'"))


def test_a_file_is_read_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "conflux.toml"
    path.write_bytes(b"\xef\xbb\xbf[node]\nname = 'a'\n")
    assert settings.load(path).node.name == "a"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[node]\n\nname = '\xff'", ":3: not UTF-8"),
        (b"#" * (place.FILE_BYTES_MAX + 1), "larger than"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path, data, words):
    path = tmp_path / "c.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=words):
        settings.load(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*gone.toml: No such file"):
        settings.load(tmp_path / "gone.toml")


KEY = st.sampled_from(["a", "b", '"q.r"', "'s'", "c-d"])
VALUE = st.sampled_from(
    ["1", '"""x\ny\n[z]\n"""', "[\n 1,\n [2,\n 3] # ]\n]", "{ k = 1 }", "'''\n#\n'''", "1979-05-27"]
)


@given(st.lists(st.tuples(KEY, VALUE, st.sampled_from(["", "\n", "# a = [\n"])), max_size=6, unique_by=lambda e: e[0]))
def test_a_key_is_found_on_the_line_it_stands_on(entries):
    lines, expected = ["[table]"], {}
    for key, value, before in entries:
        lines += before.split("\n")[:-1]
        expected[("table", key.strip("\"'"))] = len(lines) + 1
        lines += f"{key} = {value}".split("\n")
    source = Source("t", "\n".join(lines))
    assert {path: source.line(path) for path in expected} == expected


@given(st.text(max_size=80))
def test_any_text_is_a_configuration_or_a_config_error(text):
    said = "conflux.toml:"
    try:
        parse(text)
    except ConfigError as error:
        said = str(error)
    assert said.startswith("conflux.toml:")
