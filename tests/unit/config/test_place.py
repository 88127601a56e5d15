"""Where a command that looks finds the daemon: what it reads quickly is what settings say, or it says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from conflux.config import place, settings
from conflux.errors import ConfigError

PLAIN = [
    "",
    "# state_dir = '/elsewhere'\n",
    "[node]\nstate_dir = '/srv/conflux'\n",
    "[node]\nstate_dir = '/var/lib/conflux'\n",
    "[api]\nsocket = '/srv/s.sock'\n",
    "[api]\nsocket = '/srv/s.sock'\n[node]\nstate_dir = '/srv/conflux'\n",
    "node.state_dir = '/srv/conflux'\n",
    "node = { state_dir = '/srv/conflux' }\n",
    '[node]\n"st\\u0061te_dir" = "/srv/conflux"\n',
    "[tun]\nmtu = 2000\n",
    "[node]\nname = 'socket'\n",
    "\ufeff[node]\nstate_dir = '/srv/conflux'\n",
]


@pytest.mark.parametrize("text", PLAIN)
@pytest.mark.parametrize("given", [None, "/given", "/var/lib/conflux"])
def test_it_is_where_settings_say(tmp_path, text, given):
    file = tmp_path / "c.toml"
    file.write_text(text)
    loaded = settings.load(file)
    expected = loaded if given is None else loaded.with_state_dir(Path(given))
    assert place.socket_of(str(file), given) == str(expected.socket)


def test_a_directory_is_below_the_one_of_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text("")
    assert place.socket_of("c.toml", "here") == f"{tmp_path}/here/conflux.sock"


@pytest.mark.parametrize(
    "text",
    [
        "[node]\nstate_dir = 7\n",
        "[node]\nstate_dir = 'relative'\n",
        "[node]\nstate_dir = '/srv//conflux/'\n",  # no fault, but two spellings of one path
        "[node]\nstate_dir = '/srv/con\x7fflux'\n",
        "[api]\nsocket = '/" + "x" * 200 + "'\n",
        "api = 'socket'\n",
        "[node\nstate_dir = '/srv/conflux'\n",
        "[node]\nstate_dir = '/a'\nstate_dir = '/b'\n",
    ],
)
def test_what_is_not_plain_is_left_to_settings(tmp_path, text):
    file = tmp_path / "c.toml"
    file.write_text(text)
    assert place.socket_of(str(file), None) is None


def test_what_cannot_be_read_is_left_to_settings(tmp_path):
    (tmp_path / "c.toml").write_bytes(b"[node]\nstate_dir = '\xff'\n")
    (tmp_path / "large.toml").write_bytes(b"#" * (place.FILE_BYTES_MAX + 1))
    for name in ("c.toml", "large.toml", "absent.toml", "."):
        assert place.socket_of(str(tmp_path / name), None) is None
        with pytest.raises(ConfigError):
            settings.load(tmp_path / name)


def test_without_a_file_it_is_the_usual_one(tmp_path, monkeypatch):
    monkeypatch.setattr(place, "FILE", str(tmp_path / "absent.toml"))
    assert place.socket_of(None, None) == str(settings.Config().socket)
