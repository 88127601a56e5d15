"""`conflux up` and `conflux down`: what they hand to the daemon, and what they wait for."""

from argparse import Namespace

import pytest

import conflux.daemon.run
from conflux.api.client import ApiClient
from conflux.cli import daemon
from conflux.daemon import waiting
from conflux.errors import ConfigError
from conflux.host import netlink


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "for_realm", lambda config, notifier: True)
    monkeypatch.setattr(netlink.Child, "start", lambda self: None)
    config = tmp_path / "conflux.toml"
    config.write_text(f'[node]\nstate_dir = "{tmp_path}/configured"\n')
    return Namespace(config=config, state_dir=None, foreground=True, json=False)


def test_up_runs_a_daemon_of_the_configuration_and_returns_its_exit_code(options, monkeypatch):
    ran = []
    monkeypatch.setattr(conflux.daemon.run, "run", lambda config, *_, child, origin: ran.append(config) or 75)
    assert daemon.up(options) == 75
    assert [str(config.node.state_dir) for config in ran] == [str(options.config.parent / "configured")]


def test_the_state_dir_of_the_command_line_takes_the_place_of_the_configured_one(options, monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(conflux.daemon.run, "run", lambda config, *_, child, origin: ran.append(config) or 0)
    daemon.up(Namespace(config=options.config, state_dir=tmp_path / "other", foreground=True, json=False))
    assert ran[0].node.state_dir == tmp_path / "other"


def test_a_mistake_in_the_configuration_is_told_before_a_daemon_is_run(options, monkeypatch):
    monkeypatch.setattr(conflux.daemon.run, "run", lambda *_, child, origin: pytest.fail("came too far"))
    options.config.write_text("[node]\nnice = 99\n")
    with pytest.raises(ConfigError, match=r"node\.nice must be"):
        daemon.up(options)


def test_down_asks_the_daemon_and_waits_for_its_end(options, monkeypatch):
    asked = []
    monkeypatch.setattr(ApiClient, "call_to_end", lambda self, do, timeout_s: asked.append((self._path, do, timeout_s)))
    assert daemon.down(options) == 0
    ((path, do, timeout_s),) = asked
    assert (str(path), do) == (str(options.config.parent / "configured" / "conflux.sock"), "down")
    assert timeout_s == daemon.DOWN_TIMEOUT_S


@pytest.mark.parametrize(
    ("broken", "warns"),
    [
        ("[node]\nstate_dir = '{dir}'\nnice = 99\n", False),
        ("[node]\nnicee = 1\nstate_dir = '{dir}'\n", False),
        ("[node\n[node]\nstate_dir = '{dir}'\n", True),
        ("[tun]\nmtu = = 4\n\n[node]\nstate_dir = '{dir}'  # here\n", True),
        ("node.state_dir = '{dir}'\n[link]\nlinger = 'x'\n", False),
    ],
)
def test_a_broken_configuration_does_not_keep_a_daemon_from_being_ended(
    options, monkeypatch, capsys, broken, warns, tmp_path
):
    asked = []
    monkeypatch.setattr(ApiClient, "call_to_end", lambda self, do, timeout_s: asked.append(self._path))
    options.config.write_text(broken.replace("{dir}", f"{tmp_path}/configured"))
    assert daemon.down(options) == 0
    assert list(map(str, asked)) == [str(tmp_path / "configured" / "conflux.sock")]
    assert (str(options.config) in capsys.readouterr().err) is warns  # only what cannot be read as it is meant
    with pytest.raises(ConfigError):
        daemon.up(options)


def test_a_broken_configuration_keeps_its_socket(options, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(ApiClient, "call_to_end", lambda self, do, timeout_s: asked.append(self._path))
    options.config.write_text(f"[api]\nsocket = '{tmp_path}/s.sock'\n[node]\nstate_dir = 7\nnice = 99\n")
    assert daemon.down(options) == 0
    assert list(map(str, asked)) == [str(tmp_path / "s.sock")]
