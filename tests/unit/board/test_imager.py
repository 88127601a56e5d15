"""What Raspberry Pi Imager writes onto a card, as far as it maps."""

from __future__ import annotations

import pytest
from kit.flashed import PUBLIC_KEY

from conflux.board.card import read_untrusted
from conflux.board.imager import joined
from conflux.board.imager import read_untrusted as read_imager
from conflux.board.plain_yaml import PlainYamlError, parse

USER_DATA = f"""\
#cloud-config
hostname: attic
manage_etc_hosts: true
packages:
- avahi-daemon
apt:
  conf: |
    Acquire {{
      Check-Date "false";
    }};
timezone: Europe/Berlin
keyboard:
  model: pc105
  layout: "de"
users:
- name: pi
  groups: users,adm,dialout
  shell: /bin/bash
  lock_passwd: false
  passwd: $5$abc$def
  ssh_authorized_keys:
    - {PUBLIC_KEY}
  sudo: ALL=(ALL) NOPASSWD:ALL
enable_ssh: true
ssh_pwauth: false
"""
NETWORK = """\
network:
  version: 2
  wifis:
    wlan0:
      dhcp4: true
      regulatory-domain: "DE"
      access-points:
        "my home":
          password: "correct horse"
      optional: true
"""
CUSTOM = f"""\
config_version = 1
[system]
hostname = "attic"
[user]
name = "pi"
password = "$5$abc"
[ssh]
enabled = true
password_authentication = false
authorized_keys = ["{PUBLIC_KEY}"]
[wlan]
ssid = "my home"
password = "correct horse"
hidden = false
country = "DE"
[locale]
timezone = "Europe/Berlin"
"""
FIRSTRUN = f"""\
#!/bin/bash
set +e
CURRENT_HOSTNAME=`cat /etc/hostname | tr -d " \\t\\n\\r"`
if [ -f /usr/lib/raspberrypi-sys-mods/imager_custom ]; then
   /usr/lib/raspberrypi-sys-mods/imager_custom set_hostname attic
fi
if [ -f /usr/lib/raspberrypi-sys-mods/imager_custom ]; then
   /usr/lib/raspberrypi-sys-mods/imager_custom enable_ssh -k '{PUBLIC_KEY}'
   /usr/lib/raspberrypi-sys-mods/imager_custom set_wlan 'my home' 'correct horse' 'DE'
   /usr/lib/raspberrypi-sys-mods/imager_custom set_timezone 'Europe/Berlin'
fi
rm -f /boot/firstrun.sh
"""


def read(**files: str):
    names = {
        "user_data": "user-data",
        "network_config": "network-config",
        "custom": "custom.toml",
        "firstrun": "firstrun.sh",
    }
    return read_imager({names[key]: text.encode() for key, text in files.items()}, zones=lambda name: True)


@pytest.mark.parametrize(
    "files",
    [{"user_data": USER_DATA, "network_config": NETWORK}, {"custom": CUSTOM}, {"firstrun": FIRSTRUN}],
    ids=["cloud-init", "custom.toml", "firstrun.sh"],
)
def test_what_a_person_entered_is_read(files):
    card = read(**files)
    assert card.board.name == "attic"
    assert card.board.time_zone == "Europe/Berlin"
    assert card.board.ssh_key == (PUBLIC_KEY,)
    assert (card.wifi.ssid, card.wifi.password, card.wifi.country) == ("my home", "correct horse", "DE")


def test_a_password_is_not_taken_and_that_is_said():
    said = [str(fault) for fault in read(user_data=USER_DATA).faults]
    assert any(line.startswith("user-data: passwords are not taken") for line in said)
    assert any("packages" in line for line in said)
    assert any("passwords are not taken" in str(fault) for fault in read(custom=CUSTOM).faults)
    assert not any("$5$" in line for line in said)


def test_a_wrong_value_is_said_with_its_file():
    card = read(user_data="hostname: a_b\n", network_config=NETWORK.replace("correct horse", "x"))
    said = [str(fault) for fault in card.faults]
    assert any(line.startswith("user-data: board.name must be a name") for line in said)
    assert any(line.startswith("network-config: wifi.password must be") for line in said)
    assert "wifi" in card.wrong


def test_what_conflux_toml_says_comes_first():
    own = read_untrusted(b'[board]\nname = "cellar"\n')
    both = joined(own, read(user_data=USER_DATA, network_config=NETWORK))
    assert both.board.name == "cellar"
    assert both.board.ssh_key == (PUBLIC_KEY,)
    assert both.wifi.ssid == "my home"
    assert joined(None, None) is None
    assert joined(own, None) == own


def test_no_file_is_no_card():
    assert read() is None


@pytest.mark.parametrize(
    "text", ["a: &x 1", "a: {b: 1}", "a: !x y", "a: 'x", "\ta: 1", "a: 1\n  b: 2", "a: 1\na: 2", "a: [1"]
)
def test_what_is_not_of_the_part_that_is_read_is_refused_with_its_line(text):
    with pytest.raises(PlainYamlError, match=r"line [12]"):
        parse(text)
    assert any("not understood" in str(fault) for fault in read(user_data=text).faults)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("# nothing\n---\n", None),
        (
            "a: 1\nb: 'it''s'\nc: \"q\\\"\"\nd: ~\ne: yes it is # no",
            {"a": 1, "b": "it's", "c": 'q"', "d": None, "e": "yes it is"},
        ),
        ("- a\n- b: 1\n  c: 2\n-\n  - d", ["a", {"b": 1, "c": 2}, ["d"]]),
        ("a:\n- 1\n- 2\nb: [x, 'y']", {"a": [1, 2], "b": ["x", "y"]}),
        ("a: |\n  x\n   y: z\nb: >-\n  p\n  q\n", {"a": "x\ny: z", "b": "p q"}),
        ("url: http://x:8/y", {"url": "http://x:8/y"}),
        ("a: true\nb: False\nc:", {"a": True, "b": False, "c": None}),
    ],
)
def test_the_part_of_yaml_that_imager_writes_is_read(text, expected):
    assert parse(text) == expected


def test_hostile_files_end_in_a_line_for_a_person():
    for text in ("- " * 5000, "a:\n" * 3000, "x" * 60_000, "\x00\x01", "a: " + "[" * 5000, "  " * 5000 + "a"):
        for name in ("user-data", "network-config", "custom.toml", "firstrun.sh"):
            assert read_imager({name: text.encode()}, zones=lambda name: True) is not None
