"""What keeps the daemon from starting is one clear error, before anything is changed."""

import asyncio
import os
from types import SimpleNamespace

import pytest

from conflux import daemon, privileges, tun
from conflux.config import parse
from conflux.daemon import Daemon
from conflux.errors import UserError
from conflux.node.relaying import may_relay
from conflux.realm.founding import found_realm, issuer_of
from conflux.realm.join import OfflineRequest
from conflux.realm.member import Member
from conflux.realm.store import StateDir


@pytest.fixture(autouse=True)
def _harmless(monkeypatch):
    """Should a start get as far as that, the test run keeps its privileges."""
    monkeypatch.setattr(privileges, "drop", lambda: pytest.fail("came too far"))


def config(path, more: str = ""):
    return parse(f'[node]\nstate_dir = "{path}"\n{more}')


@pytest.fixture
def member(tmp_path):
    path = tmp_path / "state"
    state = StateDir.open(path, create=True)
    found_realm(state, "home", "gate", now_unix=1_800_000_000, entropy=os.urandom)
    return path


def refusal(settings) -> str:
    with pytest.raises(UserError) as caught:
        daemon.run(settings)
    return str(caught.value)


def test_without_a_state_directory(tmp_path):
    assert "no such state directory" in refusal(config(tmp_path / "gone"))


def test_without_a_realm(tmp_path):
    StateDir.open(tmp_path / "state", create=True)
    said = refusal(config(tmp_path / "state"))
    assert "in no realm yet: `conflux join` or `conflux realm create` first" in said


def test_beside_another_daemon_of_the_same_directory(member):
    held = StateDir.open(member)
    held.lock()
    assert f"in use by process {os.getpid()}" in refusal(config(member))
    held.close()


def test_in_a_directory_of_somebody_else(member, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert "belongs to user" in refusal(config(member))


def test_without_a_tun_driver_the_lock_is_given_back(member, monkeypatch, tmp_path):
    monkeypatch.setattr(tun, "CLONE_DEVICE", tmp_path / "gone")
    assert "load the kernel module" in refusal(config(member))
    StateDir.open(member).lock()


def test_with_a_damaged_key(member):
    data = bytearray((member / "node.key").read_bytes())
    data[20] ^= 1
    (member / "node.key").write_bytes(data)
    assert "node.key: damaged" in refusal(config(member))


def test_with_a_mistyped_token_in_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setattr(tun.Tun, "create", lambda name, offloads: pytest.fail("came too far"))
    said = refusal(config(tmp_path / "state", '[realm]\ntoken = "cfx1AAAA"\n'))
    assert said.startswith("realm.token: ")


def built(settings) -> Daemon:
    """Return a daemon with everything made and nothing started."""
    state = StateDir.open(settings.node.state_dir)
    device = SimpleNamespace(name="none", fd=-1, segments_udp=False, write=lambda packet: None)

    async def build() -> Daemon:
        made = Daemon(settings, state, state.member(), device, None)
        made._build()
        made.datapath.stop()
        return made

    return asyncio.run(build())


def relays(made: Daemon) -> tuple[bool, bool]:
    """Say whether a daemon offers to pass routes on, and whether it would."""
    plane = made.pump.node.plane
    return may_relay(plane.own_card), made.pump.node.routes._relaying


def test_a_node_relays_unless_it_is_switched_off(member):
    assert relays(built(config(member))) == (True, True)
    assert relays(built(config(member, "[relay]\nenabled = false"))) == (False, False)


def test_a_node_whose_credential_does_not_allow_it_does_not_relay(member, tmp_path):
    home, plain = StateDir.open(member), StateDir.open(tmp_path / "plain", create=True)
    keys, gate = plain.make_node_keys(), home.member()
    request = OfflineRequest.build(keys, "plain", nonce=os.urandom(32))
    answer = issuer_of(home, gate).admit(request, now_unix=1_800_000_000)
    plain.save_member(Member(keys, gate.anchor, answer.chain))
    assert relays(built(config(plain.path))) == (False, False)


def test_what_a_neighbour_may_have_passed_on_is_bounded_as_configured(member):
    assert built(config(member)).pump.node.datapath._config.relay_bytes_per_s is None
    made = built(config(member, "[relay]\nbytes_per_s = 125000"))
    assert made.pump.node.datapath._config.relay_bytes_per_s == 125000


def test_one_destination_may_have_waiting_what_is_configured_whatever_all_may_have(member):
    for queue_bytes, queues_bytes in ((1 << 20, 64 << 20), (1 << 26, 128 << 20)):
        made = built(config(member, f"[stream]\nqueue_bytes = {queue_bytes}"))
        limits = made.pump.node.datapath._config
        assert (limits.queue_bytes_max, limits.queues_bytes_max) == (queue_bytes, queues_bytes)
