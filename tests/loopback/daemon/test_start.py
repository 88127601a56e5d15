"""A daemon that cannot start says why in one clear error, before it changes anything."""

import os

import pytest

from conflux.config.settings import parse
from conflux.daemon import run
from conflux.errors import UserError
from conflux.host import privileges, tun
from conflux.host.netlink import Child
from conflux.state.directory import StateDir


@pytest.fixture(autouse=True)
def _harmless(monkeypatch):
    """Keep the privileges of the test run, should a start get as far as that."""
    monkeypatch.setattr(privileges, "drop", lambda: pytest.fail("came too far"))


def config(path, more: str = ""):
    return parse(f'[node]\nstate_dir = "{path}"\n{more}')


def refusal(settings) -> str:
    with pytest.raises(UserError) as caught:
        run.run(settings, child=Child())
    return str(caught.value)


def test_a_start_without_a_state_directory_is_refused(tmp_path):
    assert "no such state directory" in refusal(config(tmp_path / "gone"))


def test_a_start_without_a_realm_is_refused(tmp_path):
    StateDir.open(tmp_path / "state", create=True)
    said = refusal(config(tmp_path / "state"))
    assert "in no realm yet: `conflux join` or `conflux realm create` first" in said


def test_a_start_beside_another_daemon_of_the_same_directory_is_refused(member):
    held = StateDir.open(member)
    held.lock()
    assert f"in use by process {os.getpid()}" in refusal(config(member))
    held.close()


def test_a_start_in_a_directory_of_another_user_is_refused(member, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert "belongs to user" in refusal(config(member))


def test_a_start_without_a_tun_driver_is_refused_and_releases_the_lock(member, monkeypatch, tmp_path):
    monkeypatch.setattr(tun, "CLONE_DEVICE", tmp_path / "gone")
    assert "load the kernel module" in refusal(config(member))
    StateDir.open(member).lock()


def test_a_start_with_a_damaged_key_is_refused(member):
    data = bytearray((member / "node.key").read_bytes())
    data[20] ^= 1
    (member / "node.key").write_bytes(data)
    assert "node.key: damaged" in refusal(config(member))


def test_a_start_with_a_mistyped_token_in_the_configuration_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tun.Tun, "create", lambda name, offloads: pytest.fail("came too far"))
    said = refusal(config(tmp_path / "state", '[realm]\ntoken = "cfx1AAAA"\n'))
    assert said.startswith("realm.token: ")
