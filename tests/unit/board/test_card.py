"""What is read of conflux.toml on a card, whatever a person wrote into it."""

from __future__ import annotations

import pytest
from kit.flashed import PUBLIC_KEY

from conflux.board import daemon_file
from conflux.board.card import BoardSection, Card, WifiSection, read_untrusted
from conflux.board.settle import Kept, decode_untrusted, encode, name_for, settled, token_of
from conflux.board.wifi import Network
from conflux.config import settings

TOKEN = "cfx1abcDEF"
WHOLE = f"""\
[board]
name = "Attic"
time_zone = "Europe/Berlin"
ssh_key = ["{PUBLIC_KEY}"]
token = "{TOKEN}"
[wifi]
ssid = "home"
password = "correct horse"
country = "de"
[conflux.control.lan]
port = 7465
"""


def read(text: str) -> Card:
    return read_untrusted(text.encode(), zones=lambda name: name != "Europe/Nowhere")


def said(text: str) -> list[str]:
    return [str(fault) for fault in read(text).faults]


def test_a_whole_card_is_read():
    card = read(WHOLE)
    assert card.faults == ()
    assert card.board == BoardSection("attic", "Europe/Berlin", (PUBLIC_KEY,), TOKEN)
    assert card.wifi == WifiSection("home", "correct horse", "DE")
    assert card.conflux == {"control": {"lan": {"port": 7465}}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[board]\ntokn = "x"', "conflux.toml:2: unknown key 'tokn' in [board]; did you mean 'token'?"),
        ('[boards]\nname = "a"', "conflux.toml:1: unknown key 'boards' at the top level; did you mean 'board'?"),
        ('\n[board]\nname = "a_b"', "conflux.toml:3: board.name must be a name"),
        ('[board]\ntime_zone = "Europe/Nowhere"', "conflux.toml:2: board.time_zone: there is no time zone"),
        ('[board]\ntime_zone = "../etc/passwd"', "conflux.toml:2: board.time_zone must be a time zone"),
        (
            '[board]\ntoken = "hello"',
            'conflux.toml:2: board.token must be an invitation, a text that begins with "cfx1"',
        ),
        ('[board]\nconsole = "yes"', "conflux.toml:2: board.console must be one of"),
        ('[board]\nssh_key = "ssh-ed25519 AAAA"', "conflux.toml:2: board.ssh_key holds a ssh-ed25519 key that was cut"),
        ('[board]\nssh_key = "command=\\"sh\\" ssh-rsa A"', "conflux.toml:2: board.ssh_key must begin with the kind"),
        (
            '[board]\nssh_key = "-----BEGIN OPENSSH PRIVATE KEY-----"',
            "conflux.toml:2: board.ssh_key must be the public",
        ),
        ('[wifi]\nssid = "home"\npassword = "short"', "conflux.toml:3: wifi.password must be the network's password"),
        ('[wifi]\npassword = "long enough"', "conflux.toml:1: wifi.ssid is missing"),
        ('[wifi]\nssid = ""', "conflux.toml:2: wifi.ssid must be the network's name"),
        ('[wifi]\nssid = "a"\ncountry = "Germany"', "conflux.toml:3: wifi.country must be a country of two letters"),
        ("[page]\nport = 80", "conflux.toml:1: [page] is of the daemon's configuration: write [conflux.page] here"),
        ("[conflux.page]\nport = 80", "conflux.toml:2: page.port must be a whole number"),
        ('[conflux.realm]\ntoken = "cfx1a"', "conflux.toml:2: realm.token: on the card the token is board.token"),
        ('[conflux.node]\nstate_dir = "/x"', "conflux.toml:2: node.state_dir: on a flashed board"),
        ("conflux = 3", "conflux.toml:1: 'conflux' is a table"),
        ("board = 3", "conflux.toml:1: 'board' is a table: write [board]"),
        ("[board]\nname = attic", "conflux.toml:2: "),
    ],
)
def test_a_mistake_is_named_with_its_line(text, expected):
    assert any(line.startswith(expected) for line in said(text)), said(text)


def test_no_error_shows_a_secret():
    text = WHOLE.replace("correct horse", "kurz\\u00fc").replace(TOKEN, "secret words") + "\n[conflux.realm]\ntoken = 5"
    assert "kurz" not in " ".join(said(text))
    assert "secret" not in " ".join(said(text))
    assert TOKEN not in repr(read(WHOLE).board)
    assert "horse" not in repr(read(WHOLE))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_any_editor_is_read(encoding):
    text = WHOLE.replace("home", "höme").replace("\n", "\r\n")
    card = read_untrusted(text.encode(encoding), zones=lambda name: True)
    assert card.wifi.ssid == "höme"
    assert card.faults == ()


def test_a_line_that_is_not_utf_8_spoils_itself_alone():
    card = read_untrusted(WHOLE.replace("home", "h\xf6me").encode("latin-1"), zones=lambda name: True)
    assert card.board.name == "attic"
    assert "conflux.toml:7: is not UTF-8 text: save the file as UTF-8" in [str(fault) for fault in card.faults]


def test_a_wrong_key_of_conflux_is_left_out_and_the_others_count():
    card = read("[conflux.control.lan]\nport = 7465\nprot = 3\n[conflux.page]\nport = 1\n")
    assert card.conflux == {"control": {"lan": {"port": 7465}}, "page": {}}
    assert len(card.faults) == 2


def test_hours_are_not_spent_on_nonsense():
    assert len(read("=\n" * 30_000).faults) <= settings.BROKEN_LINE_COUNT_MAX


# ── what counts ──

LAST = Kept("cellar", "Europe/Paris", (PUBLIC_KEY,), Network("old", "old password", None))


def test_the_card_counts_and_a_key_that_is_gone_is_unset():
    now = settled(read('[board]\nname = "attic"\n'), LAST)
    assert now == Kept("attic", None, (), None)


def test_without_a_card_the_last_one_counts():
    assert settled(None, LAST) == LAST


def test_a_wrong_value_leaves_the_last_good_one():
    now = settled(
        read('[board]\nname = "a b"\ntime_zone = "x y"\nssh_key = 3\n[wifi]\nssid = "home"\npassword = "x"\n'), LAST
    )
    assert now == LAST


def test_a_wrong_password_never_makes_an_open_network():
    assert settled(read('[wifi]\nssid = "home"\npassword = "x"\n'), Kept()).network is None
    assert settled(read('[wifi]\nssid = "home"\npassword = x\n'), Kept()).network is None
    assert settled(read('[wifi]\nssid = "home"\n'), Kept()).network == Network("home", None, None)


def test_a_broken_line_may_have_been_any_key_so_none_is_taken_for_unset():
    assert settled(read('[board]\nname = "attic\n'), LAST)._replace(conflux={}) == LAST


def test_what_is_kept_is_read_as_it_was_written():
    now = settled(read(WHOLE), Kept())
    assert decode_untrusted(encode(now)) == now


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"version": 2}', b'{"version": 1, "network": {"x": 1}}', b"[" * 9999]
)
def test_damaged_settings_are_none(data):
    assert decode_untrusted(data) == Kept()


def test_a_name_that_nobody_gave_is_of_the_board():
    assert name_for("a" * 32) == name_for("a" * 32) != name_for("b" * 32)
    settled(read(f'[board]\nname = "{name_for("a" * 32)}"'), Kept())


def test_a_used_token_is_none():
    assert token_of(read(WHOLE)) == TOKEN
    assert token_of(read('[board]\ntoken = "used      "')) is None
    assert said('[board]\ntoken = "used      "') == []


# ── the daemon's configuration ──


def test_the_daemons_configuration_is_what_the_card_says():
    text = daemon_file.text_of(daemon_file.table_of(read(WHOLE).conflux, "attic"), TOKEN)
    config = settings.parse(text)
    assert config.node.name == "attic"
    assert config.realm.token == TOKEN
    assert config.control.lan.port == 7465
    assert config.page.listen == ("eth0", "wlan0")


def test_the_card_wins_over_what_a_board_has_by_default():
    table = daemon_file.table_of({"page": {"listen": ["overlay"]}, "node": {"name": "mine"}}, "attic")
    config = settings.parse(daemon_file.text_of(table, None))
    assert (config.page.listen, config.node.name) == (("overlay",), "mine")


def test_toml_is_read_back_as_it_was():
    import tomli

    table = {
        "a": {"b": {"c d": 'quo"te\\ \n \x01', "list": [1, "x", {"k": True}], "f": 1.5}},
        "link": {"ice_servers": [{"url": "turn:h", "username": "u", "credential": "ü"}]},
        "x": False,
    }
    assert tomli.loads(daemon_file.toml_of(table)) == table


def test_a_used_token_leaves_the_rest_of_the_configuration():
    text = daemon_file.text_of({"node": {"name": "a"}, "realm": {"renew_expired": 3}}, TOKEN)
    rest = settings.parse(daemon_file.without_token(text, TOKEN))
    assert (rest.realm.token, rest.realm.renew_expired, rest.node.name) == (None, 3, "a")
