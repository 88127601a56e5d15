"""A second board as a person brings it up: `up` in the background waits, `join` ends the wait, `ping` is answered.

gate --- br0 --- kitchen
"""

from __future__ import annotations

import time

import pytest
from rig.enter import deliver
from rig.topology import CONFLUX, Host, Lab

READY_WITHIN_S = 15  # what the project promises for join, wait and ping


class Site:
    """A realm of one, and a board whose daemon waits in the background."""

    def __init__(self, lab: Lab) -> None:
        lan = lab.lan()
        self.gate = lab.host("gate", lan)
        self.realm = lab.realm(self.gate)
        self.kitchen = lab.host("kitchen", lan)


@pytest.fixture
def site(lab: Lab) -> Site:
    """The site."""
    return Site(lab)


def test_a_board_with_a_waiting_daemon_needs_three_commands_to_be_answered(site: Site) -> None:
    kitchen = site.kitchen
    assert "waiting for a realm" in kitchen.conflux("up").stdout
    token = site.realm.invite()
    began = time.monotonic()
    try:
        assert "comes up by itself" in kitchen.conflux("join", token, "--name", "kitchen").stdout
        kitchen.conflux("status", "--wait-ready", str(READY_WITHIN_S))
        answered = kitchen.conflux("ping", site.gate.name, "-c", "1")
        took_s = time.monotonic() - began
    finally:
        log = (kitchen.state / "state" / "daemon.log").read_text()
        kitchen.conflux("down")
    assert "1 answered" in answered.stdout, log
    assert took_s < READY_WITHIN_S, (took_s, log)
    deliver("lab_up.json", f'{{"join_to_ping_s": {took_s:.2f}}}\n')


def test_up_returns_when_packets_pass_and_says_why_if_they_cannot(site: Site) -> None:
    kitchen = site.kitchen
    kitchen.conflux("join", site.realm.invite(), "--name", "kitchen")
    hidden = f"mount -t tmpfs tmpfs /dev/net && exec {CONFLUX} up --config {kitchen.config}"
    failed = kitchen.run("unshare", "--mount", "sh", "-c", hidden, check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("conflux: /dev/net/tun is missing")
    assert failed.stderr.count("\n") == 1
    said = kitchen.conflux("up").stdout
    try:
        assert said.startswith("up: kitchen in realm "), said
        assert "1 answered" in kitchen.conflux("ping", site.gate.name, "-c", "1").stdout
    finally:
        kitchen.conflux("down")
    assert not device(kitchen)


def test_up_with_a_token_that_needs_approval_returns_and_says_where_to_give_it(site: Site) -> None:
    kitchen = site.kitchen
    kitchen.configure({"node": {"name": "kitchen"}, "realm": {"token": site.realm.invite(1, "--approve")}})
    said = kitchen.conflux("up").stdout
    try:
        assert said.startswith("the daemon runs: waiting for approval as kitchen, "), said
        assert "conflux realm approve kitchen" in said
        site.gate.conflux("realm", "approve", "kitchen")
        kitchen.conflux("status", "--wait-ready", str(READY_WITHIN_S))
    finally:
        kitchen.conflux("down")


def device(host: Host) -> bool:
    """Return whether the host has the overlay's device."""
    return "conflux0" in host.run("ip", "link").stdout
