"""A reload hands each changed key to what uses it; a broken configuration changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from conflux.config.settings import Config, Origin, every_key
from conflux.daemon.reloading import Reloading, takers
from conflux.errors import ConfigError


@pytest.fixture
def took() -> list[tuple[str, Config]]:
    return []


@pytest.fixture
def reloading(tmp_path: Path, took: list[tuple[str, Config]]) -> Reloading:
    keys = [key for key, _, entry in every_key() if entry.live]
    table = {key: (lambda config, key=key: took.append((key, config))) for key in keys}
    return Reloading(Config(), Origin(tmp_path / "conflux.toml"), table)


def test_each_live_key_that_changed_is_taken_once_and_others_are_not(reloading, took):
    done = reloading.reload('[node]\nlog_level = "debug"\n[tun]\nmtu = 1500\n')
    assert (done.changed, done.restart) == (("node.log_level",), ("tun.mtu",))
    assert [key for key, _ in took] == ["node.log_level"]
    assert took[0][1].node.log_level == "debug"
    assert reloading.reload('[node]\nlog_level = "debug"\n').changed == ()


def test_a_broken_configuration_changes_nothing_and_a_signal_logs_it(reloading, took, tmp_path, caplog):
    with pytest.raises(ConfigError, match=r":2: tun\.mtu"):
        reloading.reload('[tun]\nmtu = 1\n[node]\nlog_level = "debug"\n')
    (tmp_path / "conflux.toml").write_text("[node\n")
    reloading.on_signal()
    (tmp_path / "conflux.toml").unlink()
    reloading.on_signal()
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert (took, reloading.config) == ([], Config())


def test_a_signal_reads_the_file(reloading, took, tmp_path):
    (tmp_path / "conflux.toml").write_text("[stream]\nidle_timeout = 3\n")
    reloading.on_signal()
    assert [key for key, _ in took] == ["stream.idle_timeout"]


def test_the_state_directory_of_the_command_line_stays(tmp_path):
    origin = Origin(None, tmp_path)
    assert origin.parse('[node]\nstate_dir = "/other"\n').node.state_dir == tmp_path


def test_every_live_key_has_what_takes_it_and_no_other_key():
    table = takers(*[None] * 5)
    assert set(table) == {key for key, _, entry in every_key() if entry.live}
