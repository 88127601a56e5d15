"""The light, the lines on the console, Wi-Fi, and the bytes that erase a token."""

from __future__ import annotations

import pytest

from conflux.board import wifi
from conflux.board.erase import applied, filler, is_mixture, leftovers, patches
from conflux.board.light import SILENT_S, UNINVITED, Light, Look, Watcher, light_of
from conflux.board.places import CHAIN, NODE_KEY, shared_of
from conflux.board.wifi import Network, Wifi, notice, ssid_of, state_of, text_of
from conflux.state import directory

UP = {
    "device": {"up": True, "name": "conflux0"},
    "control": [{"up": True, "name": "lan", "detail": ""}],
    "node": {"name": "attic", "addresses": ["fd00::1"], "id": "n"},
    "relays": [],
}
DOWN = {**UP, "control": [{"up": False, "name": "lan", "detail": "no interface"}]}
MEMBER = Look(UP, runs=True, has_realm=True)


def test_ready_is_said_once_and_again_after_it_was_not():
    watcher = Watcher(now=0)
    assert watcher.see(MEMBER, now=1).lines == ("conflux-board: ready: attic fd00::1",)
    assert watcher.see(MEMBER, now=2).lines == ()
    assert watcher.see(MEMBER._replace(status=DOWN), now=3).lines == ()
    assert watcher.see(MEMBER, now=4).lines == ("conflux-board: ready: attic fd00::1",)


def test_a_fault_is_said_once_and_the_light_shows_it():
    watcher, look = Watcher(now=0), MEMBER._replace(notices=("conflux.toml:2: unknown key",))
    first = watcher.see(look, now=1)
    assert first.lines[0] == "conflux-board: fault: conflux.toml:2: unknown key"
    assert first.light is Light.FAULT
    assert watcher.see(look, now=2).lines == ()
    assert watcher.see(MEMBER, now=3).light is Light.UP
    assert watcher.see(look, now=4).lines == first.lines[:1]


def test_a_board_that_waits_to_be_let_in_is_joining():
    look = Look(None, "joining", runs=True, invited=True)
    shown = Watcher(now=0).see(look, now=500)
    assert (shown.light, shown.own) == (Light.JOINING, ())


def test_a_board_without_an_invitation_says_so():
    shown = Watcher(now=0).see(Look(None, "waiting for a realm", runs=True), now=1)
    assert (shown.light, shown.own) == (Light.FAULT, (UNINVITED,))


def test_a_daemon_that_is_gone_for_a_minute_is_a_fault_with_its_last_words():
    watcher = Watcher(now=0)
    gone = Look(None, "no daemon listens", has_realm=True, last_error="conflux: the invitation has expired")
    assert watcher.see(gone, now=SILENT_S - 1).own == ()
    assert watcher.see(gone, now=SILENT_S).own == ("Conflux does not run: conflux: the invitation has expired",)
    assert watcher.see(MEMBER, now=SILENT_S + 1).own == ()


def test_packets_that_do_not_pass_are_a_fault_after_a_while():
    watcher, look = Watcher(now=0), MEMBER._replace(status=DOWN)
    assert watcher.see(look, now=59).own == ()
    assert watcher.see(look, now=61).own == ("packets do not pass: no control channel is up (lan: no interface)",)


def test_the_light_shows_relaying_while_frames_pass():
    watcher = Watcher(now=0)

    def passing(frames: int) -> Look:
        return MEMBER._replace(status={**UP, "relays": [{"ahead_frames": frames, "back_frames": 1}]})

    assert watcher.see(passing(0), now=1).light is Light.RELAYING
    assert watcher.see(passing(0), now=7).light is Light.UP
    assert watcher.see(passing(9), now=8).light is Light.RELAYING


def test_the_console_is_not_flooded():
    watcher = Watcher(now=0)
    shown = watcher.see(MEMBER._replace(notices=tuple(f"fault {number} {'x' * 999}" for number in range(500))), now=1)
    assert len(shown.lines) <= 65
    assert all(len(line) <= 300 for line in shown.lines)


@pytest.mark.parametrize(
    ("lights", "expected"),
    [
        ({"ACT": "none timer [mmc0]", "PWR": "none timer"}, "ACT"),
        ({"led0": "none timer", "led1": "timer"}, "led0"),
        ({"green:status": "timer", "input0::capslock": "timer"}, "green:status"),
        ({"input0::numlock": "timer", "phy0-led": "timer"}, None),
        ({"ACT": "none"}, None),
        ({}, None),
    ],
)
def test_the_light_is_the_one_for_a_person(lights, expected):
    assert light_of(lights) == expected


# ── Wi-Fi ──


def test_a_name_and_a_password_cannot_break_out_of_the_file():
    text = text_of(Network('a"\n}\nnetwork={', 'pass" word#\\', "DE"))
    assert text.count("network={") == 1
    assert f"ssid={b'a'.hex()}" in text
    assert '\tpsk="pass" word#\\"\n' in text
    assert ssid_of(text) == 'a"\n}\nnetwork={'


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (Network("a", None, None), "key_mgmt=NONE"),
        (Network("a", "0" * 64, None), f"psk={'0' * 64}\n"),
        (Network("a", "longenough", "DE"), "country=DE"),
        (Network("a", "longenough", None), "country=00"),
        (Network("a", "longenough", "DE", True), "scan_ssid=1"),
    ],
)
def test_each_kind_of_network_has_its_lines(network, expected):
    assert expected in text_of(network)
    assert "longenough" not in repr(network)


@pytest.mark.parametrize(
    ("status", "networks", "state", "word"),
    [
        ("wpa_state=COMPLETED\nssid=a\n", "", Wifi.UP, None),
        ("wpa_state=SCANNING\n", "0\ta\tany\t[TEMP-DISABLED]\n", Wifi.REFUSED, "wifi.password"),
        ("wpa_state=SCANNING\n", "0\ta\tany\t\n", Wifi.SEARCHING, "wifi.ssid"),
        (None, None, Wifi.UNSEEN, "wlan0"),
    ],
)
def test_what_wifi_says_comes_to_a_line_for_a_person(status, networks, state, word):
    assert state_of(status, networks) is state
    said = notice(state, "home", wifi.SEARCH_S)
    assert said is None if word is None else word in said
    if state is Wifi.SEARCHING:
        assert notice(state, "home", 1.0) is None


# ── erasing ──

TOKEN = b"cfx1" + b"aB3_-" * 60
FILE = b"# " + TOKEN + b'\r\n[board]\r\ntoken = "' + TOKEN + b'"\r\nname = "a"\r\n'


def test_every_copy_of_a_token_is_overwritten_in_place():
    after = applied(FILE, patches(FILE, TOKEN.decode()))
    assert TOKEN not in after
    assert len(after) == len(FILE)
    assert after.endswith(b'"\r\nname = "a"\r\n')
    assert patches(after, TOKEN.decode()) == leftovers(after) == []


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("cut", [1, 4, 5, 100, 303])
def test_an_erasure_that_was_cut_short_is_found_and_finished(cut, first):
    whole, end = TOKEN, filler(len(TOKEN))
    mixed = end[:cut] + whole[cut:] if first else whole[:cut] + end[cut:]
    data = b'[board]\n  token="' + mixed + b'"\n'
    assert applied(data, leftovers(data)) == b'[board]\n  token="' + end + b'"\n'


def test_a_token_that_is_whole_is_no_leftover():
    assert not is_mixture(TOKEN)
    assert not is_mixture(filler(20))
    assert leftovers(FILE) == []


# ── names that other rooms have too ──


def test_files_of_the_state_directory_have_its_names():
    assert (NODE_KEY, CHAIN) == (directory.NODE_KEY, directory.CHAIN)


def test_the_list_of_state_is_read_or_refused():
    assert [(str(each.at), each.place, each.mode) for each in shared_of("# x\n/a b 0700\n")] == [("/a", "b", 0o700)]
    for line in ("/a b", "a b 0700", "/a ../b 0700", "/a /b 0700", "/a b 9"):
        with pytest.raises(ValueError, match=r"list of state|invalid literal"):
            shared_of(line)
