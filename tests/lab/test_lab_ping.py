"""Which way a ping goes, and why it does not: real daemons are asked by `conflux ping` and `conflux why`.

alpha ──a── rod ──b── bravo
  └─────a── ruth
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
from rig.days import pass_days
from rig.rows import read
from rig.topology import SETTINGS, Host, Lab, Process, Realm, wait_for

from conflux.api.why import Why

NO_RELAY = {"relay": {"enabled": False}}


class Street:
    """Two LANs, joined by rod."""

    def __init__(self, lab: Lab) -> None:
        a, b = lab.lan("a"), lab.lan("b")
        self.alpha, self.rod = lab.host("alpha", a), lab.host("rod", a, b)
        self.bravo, self.ruth = lab.host("bravo", b), lab.host("ruth", a)
        self.realm: Realm = lab.realm(self.rod, self.alpha, self.ruth, self.bravo)
        self.await_known("bravo", "ruth")

    def await_known(self, *names: str) -> None:
        """Wait until alpha knows nodes of these names."""
        for name in names:
            wait_for(
                lambda name=name: self.alpha.conflux("route", name, check=False).returncode == 0,  # type: ignore[misc]
                f"alpha knows {name}",
                within_s=15,
                logs=tuple(self.realm.daemons.values()),
            )


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    """One street for all tests of this file, in their order."""
    lab = Lab(SETTINGS)
    yield Street(lab)
    lab.close()


def ping(host: Host, name: str, *options: str) -> tuple[int, list[str], str]:
    """Return the exit code of a ping, its lines, and what stands on standard error."""
    done = host.conflux("ping", name, *options, check=False, within_s=60)
    return done.returncode, done.stdout.splitlines(), done.stderr.strip()


def why(host: Host, name: str) -> Why:
    """Return the answer of `conflux why NAME`, whatever its exit code."""
    return read(Why, json.loads(host.conflux("why", name, "--json", check=False).stdout))


def without_end(host: Host, name: str, *options: str) -> Process:
    """Start a ping that only a signal ends."""
    return host.spawn("ping", host.lab.program, "ping", name, "-c", "0", *options, "--config", host.config)


def test_each_line_says_which_way_and_the_set_up_is_no_round_trip(street: Street) -> None:
    code, lines, said = ping(street.alpha, "Ruth.local", "-c", "3", "-i", "0.3")
    assert (code, said) == (0, ""), (lines, said, street.realm.tails())
    first, *others = [line for line in lines if line.startswith("   ") and not line.startswith("     ")]
    assert first.endswith("  direct, with the set-up")
    assert all(line.endswith("  direct") for line in others), lines
    assert "open way: least" in lines[-1]

    code, lines, said = ping(street.alpha, "bravo", "-c", "3", "-i", "0.3")
    assert (code, said) == (0, ""), (lines, said, street.realm.tails())
    assert [line.split("  ")[-1] for line in lines if " ms  " in line] == [
        "by rod, with the set-up",
        "by rod",
        "by rod",
    ]


def test_both_families_and_json(street: Street) -> None:
    ipv4, ipv6 = street.bravo.overlay_addresses()
    for option, address in (("-4", ipv4), ("-6", ipv6)):
        done = street.alpha.conflux("ping", "bravo", "-c", "2", "-i", "0.1", option, "--json")
        target, *replies, last = [json.loads(line) for line in done.stdout.splitlines()]
        assert (target["name"], target["address"]) == ("bravo", address)
        assert [reply["path"] for reply in replies] == [["rod", "bravo"]] * 2
        assert (last["answers"], last["why"]) == (2, None)


def test_why_says_what_carries_and_whence_a_node_is_known(street: Street) -> None:
    running = without_end(street.alpha, "bravo", "-i", "0.2")
    wait_for(lambda: "   2  " in running.output(), "two answers", within_s=15, logs=(running,))
    got = why(street.alpha, "bravo")
    assert (got.verdict, got.path) == ("flowing", ("rod", "bravo"))
    assert [(source.by, source.via) for source in got.sources] == [("behind", "rod")]
    near = why(street.alpha, "ruth")
    assert [source.by for source in near.sources] == ["lan"]
    text = street.alpha.conflux("why", "bravo").stdout
    assert text.startswith("bravo is behind rod, which brought its last message")
    assert "Packets flow by rod" in " ".join(text.split())
    running.signal(signal.SIGINT)
    assert running.wait(5) == 0


def test_a_name_of_no_node_is_said_so(street: Street) -> None:
    code, lines, said = ping(street.alpha, "nobody")
    assert (code, lines) == (1, [])
    assert said == "conflux: no node of this realm answers to 'nobody': is it running, and is the name right?"
    assert why(street.alpha, "nobody").verdict == "unknown"


def test_a_relay_that_refuses_is_named_with_its_reason(street: Street) -> None:
    street.realm.daemons.pop("rod").down()
    street.rod.configure(NO_RELAY)
    street.realm.restart(street.rod)
    street.await_known("bravo", "rod")
    code, lines, said = ping(street.alpha, "bravo", "-c", "2", "-W", "20")
    assert code == 1, (lines, street.realm.tails())
    assert "rod does not relay (no-relay)" in said, (said, lines, street.realm.tails())
    assert "direct: " in said
    text = " ".join(street.alpha.conflux("why", "bravo").stdout.split())
    assert "By rod failed" in text
    assert "Direct had no answer" in text or "Direct failed" in text


def test_a_neighbour_that_was_killed_left_the_lan(street: Street) -> None:
    assert ping(street.alpha, "ruth", "-c", "1")[0] == 0
    street.realm.daemons.pop("ruth").kill()
    wait_for(lambda: why(street.alpha, "ruth").left_at is not None, "ruth has left", within_s=10)
    code, lines, said = ping(street.alpha, "ruth", "-c", "2", "-i", "0.2", "-W", "3")
    assert code == 1, lines
    assert said.startswith("conflux: ruth left the LAN "), (said, street.realm.tails())
    assert "It left the LAN" in street.alpha.conflux("why", "ruth").stdout.replace("\n", " ")


def test_a_ping_without_end_ends_at_ctrl_c_with_its_summary(street: Street) -> None:
    running = without_end(street.alpha, "rod", "-i", "0.05")
    wait_for(lambda: "  20  " in running.output(), "twenty answers", within_s=15, logs=(running,))
    running.signal(signal.SIGINT)
    assert running.wait(5) == 0
    assert "0 % lost" in running.output().splitlines()[-2]


def test_a_node_whose_credential_ended_is_said_so_by_one_that_never_knew_it(lab: Lab) -> None:
    lan = lab.lan()
    alpha, bravo = lab.host("alpha", lan), lab.host("bravo", lan)
    realm = lab.realm(alpha, bravo)
    for name in ("alpha", "bravo"):
        realm.daemons.pop(name).down()
    pass_days(32, alpha)
    alpha.configure({"realm": {"renew_expired": 0}})  # else it renews bravo as soon as they meet
    realm.restart(alpha)
    realm.restart(bravo)

    def asked() -> str:
        return ping(alpha, "bravo", "-c", "1")[2]

    said = "conflux: bravo: its credential ended 2 days ago"
    wait_for(lambda: asked().startswith(said), said, within_s=30, logs=tuple(realm.daemons.values()))
    assert why(alpha, "bravo").verdict == "expired"
    assert "bravo: its credential ended 2 d" in alpha.conflux("why", "bravo", check=False).stdout
