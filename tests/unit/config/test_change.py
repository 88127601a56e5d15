"""What differs between two configurations, and what a running daemon takes of it."""

from __future__ import annotations

from conflux.config.change import Changes, changes, merged
from conflux.config.settings import Config, every_key, parse

BEFORE = parse('[node]\nlog_level = "info"\n[tun]\nmtu = 1400\n')
AFTER = parse(
    '[node]\nlog_level = "debug"\n[tun]\nmtu = 1500\n[control.lan]\npeers = ["a:1"]\n[realm]\nrenew_expired = 7\n'
)


def test_what_differs_is_named_and_parted_by_whether_a_running_daemon_takes_it():
    live = ("node.log_level", "realm.renew_expired", "control.lan.peers")
    assert changes(BEFORE, AFTER) == Changes(live, ("tun.mtu",))
    assert changes(BEFORE, BEFORE) == Changes((), ())


def test_what_needs_a_restart_stays_and_is_named_again_at_the_next_reload():
    now = merged(BEFORE, AFTER)
    assert (now.node.log_level, now.control.lan.peers, now.realm.renew_expired) == ("debug", (("a", 1),), 7)
    assert now.tun.mtu == BEFORE.tun.mtu
    assert changes(now, AFTER) == Changes((), ("tun.mtu",))


def test_a_key_that_is_gone_from_the_file_has_its_default_again():
    assert merged(merged(BEFORE, AFTER), Config()).control.lan.peers == ()


def test_some_keys_are_live_and_none_that_the_device_or_the_sandbox_are_made_of():
    live = {key for key, _, entry in every_key() if entry.live}
    assert "stream.idle_timeout" in live
    assert not {key for key in live if key.startswith(("tun.", "api.", "datapath."))}
