"""A daemon takes a changed configuration while it carries packets, and says what it cannot take.

alpha --- br0 --- bravo
"""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from rig import gauge
from rig.rows import read
from rig.topology import SETTINGS, Host, Lab, Realm, wait_for

from conflux.api.rows import Reloaded, Status, Streams

PINGS = 600  # at 100 a second


def write(host: Host, settings: dict[str, dict[str, Any]]) -> None:
    """Configure a host; what the lab sets stays unless settings say otherwise."""
    host.configure({**SETTINGS, **settings})


@pytest.fixture
def realm(lab: Lab) -> Realm:
    lan = lab.lan()
    return lab.realm(lab.host("alpha", lan), lab.host("bravo", lan))


def test_every_live_key_changes_under_a_stream_and_no_packet_is_lost(realm: Realm) -> None:
    alpha, bravo = (realm.daemons[name].host for name in ("alpha", "bravo"))
    daemon = realm.daemons["alpha"]
    _, there = bravo.overlay_addresses()
    alpha.first_answer_ms(there)
    pings = alpha.spawn("ping", "ping", "-n", "-q", "-i", "0.01", "-c", str(PINGS), there)
    changes: list[dict[str, dict[str, Any]]] = [
        {"node": {"log_level": "error"}},  # the lab has debug
        {"relay": {"enabled": False}},
        {"relay": {"enabled": True, "public": True}},
        {"control.lan": {"peers": ["10.7.1.99:7464", "nowhere.invalid:7464"]}},
        {"stream": {"idle_timeout": 7.5}, "link": {"linger": 1.5, "dial_timeout": 5, "dial_count_max": 3}},
        {"realm": {"renew_expired": 5}},
    ]
    for change in changes:
        write(alpha, change)
        done = alpha.ask(Reloaded, "reload")
        keys = {f"{section}.{key}" for section, values in change.items() for key in values}
        assert keys - {"relay.enabled"} <= set(done.changed), done
        assert done.restart == ()
        assert alpha.status().relaying == ("off" if change == changes[1] else "on")
    assert pings.wait(PINGS * 0.01 + 20) == 0, pings.tail()
    report = gauge.pings(pings.output())
    assert (report.received, report.lost) == (PINGS, 0)
    assert daemon.exit_code is None


def test_a_shorter_idle_time_ends_a_stream_that_is_open(realm: Realm) -> None:
    alpha, bravo = (realm.daemons[name].host for name in ("alpha", "bravo"))
    write(alpha, {"stream": {"idle_timeout": 600.0}})
    alpha.conflux("reload")
    alpha.first_answer_ms(bravo.overlay_addresses()[1])
    write(alpha, {"stream": {"idle_timeout": 1.0}})
    realm.daemons["alpha"].signal(signal.SIGHUP)

    def ended() -> bool:
        return not [row for row in alpha.ask(Streams, "streams").streams if row.direction == "out"]

    wait_for(ended, "the end of the stream", within_s=10, logs=realm.logs())


def test_what_needs_a_restart_is_named_and_a_broken_file_changes_nothing(realm: Realm) -> None:
    alpha, daemon = realm.root, realm.daemons["alpha"]
    write(alpha, {"tun": {"mtu": 1500}, "control.lan": {"port": 7777}})
    assert "needs a restart: tun.mtu, control.lan.port" in alpha.conflux("reload").stdout
    assert alpha.status().device.mtu_bytes != 1500
    alpha.config.write_text(alpha.config.read_text() + '\n[relay]\nenabled = false\nrate = "x"\n')
    refused = alpha.conflux("reload", check=False)
    assert (refused.returncode, "unknown key 'rate' in [relay]" in refused.stderr) == (1, True)
    daemon.signal(signal.SIGHUP)
    wait_for(lambda: "all stays as it is" in daemon.output(), "the error in the log", within_s=5, logs=(daemon,))
    assert daemon.exit_code is None
    said = alpha.run(alpha.lab.program, "status", "--json", "--state-dir", alpha.state / "state").stdout
    assert read(Status, json.loads(said)).relaying == "on"
