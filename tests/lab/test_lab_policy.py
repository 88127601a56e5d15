"""The policy of a realm, with real daemons: published on one host, in force on all, and what it forbids is cut.

alpha ---+
bravo --- br0
carol ---+            alpha may publish
"""

from __future__ import annotations

import re
import time

import pytest
from rig.topology import Host, Lab, Realm, wait_for

DENY = 'version = 1\ndefault = "deny"\n'
IPERF = DENY + (
    '[[allow]]\nname = "measure"\nfrom = ["bravo"]\nto = ["carol"]\non = ["tcp/5201"]\n'
    '[[test]]\nfrom = "bravo"\nreaches = ["carol tcp/5201"]\nnot = ["alpha tcp/5201", "carol tcp/22"]\n'
)
CUT_WITHIN_S = 10.0


class Site:
    """Three hosts on one LAN, in one realm."""

    def __init__(self, lab: Lab) -> None:
        lan = lab.lan()
        self.alpha, self.bravo, self.carol = (lab.host(name, lan) for name in ("alpha", "bravo", "carol"))
        self.realm: Realm = lab.realm(self.alpha, self.bravo, self.carol)
        self.alpha.conflux("realm", "grant", "alpha", "--capability", "policy")
        self.address = self.carol.overlay_addresses()[1]

    def publish(self, text: str, *, check: bool = True) -> str:
        file = self.alpha.state / "rules.toml"
        file.write_text(text)
        return self.alpha.conflux("policy", "publish", str(file), check=check).stdout

    def passes(self, by: Host) -> bool:
        return by.ping(self.address, "-c", "1", "-W", "1").lost == 0

    def await_passing(self, by: Host, passing: bool) -> None:
        wait_for(
            lambda: self.passes(by) is passing,
            f"{by.name} {'reaches' if passing else 'does not reach'} carol",
            within_s=CUT_WITHIN_S,
            logs=self.realm.logs(),
        )


@pytest.fixture(scope="module")
def site(shared_lab: Lab) -> Site:
    """The site, for every test of this file."""
    return Site(shared_lab)


@pytest.fixture(autouse=True)
def _every_test_starts_with_an_open_realm(site: Site) -> None:
    site.publish('version = 1\ndefault = "allow"\n')
    site.await_passing(site.bravo, True)


def test_flow_under_way_is_cut_within_ten_seconds_and_the_program_is_told(site: Site) -> None:
    pings = site.bravo.spawn("ping", "ping", "-n", "-D", "-i", "0.1", "-c", "150", site.address)
    wait_for(lambda: "bytes from" in pings.output(), "an answer", within_s=5)
    published_at = time.time()
    site.publish(DENY)
    pings.wait(30)
    answered = [float(at) for at in re.findall(r"\[([0-9.]+)\] \d+ bytes from", pings.output())]
    assert answered[-1] - published_at < CUT_WITHIN_S, pings.tail()
    print(f"policy_cut_s {answered[-1] - published_at:.2f}")
    assert "prohibited" in pings.output() or "filtered" in pings.output().lower(), pings.tail()
    assert site.bravo.status().drops["policy-sent"] > 0
    assert site.bravo.status().policy_number == site.alpha.status().policy_number
    said = site.bravo.conflux("why", "carol", "icmp/echo").stdout
    assert "may not begin, as no rule allows it" in " ".join(said.split())


def test_rule_lets_its_flow_through_with_all_answers_and_nothing_else(site: Site) -> None:
    site.publish(IPERF)
    site.await_passing(site.bravo, False)
    assert site.bravo.iperf3(site.carol, site.address, seconds=2) > 1
    assert not site.passes(site.bravo)
    assert not site.passes(site.alpha)


def test_rules_hold_after_a_restart_and_a_rollback_takes_them_back(site: Site) -> None:
    site.publish(DENY)
    site.await_passing(site.bravo, False)
    site.realm.daemons["bravo"].down()
    site.realm.restart(site.bravo)
    assert site.bravo.conflux("policy", "show").stdout == DENY
    assert not site.passes(site.bravo)
    said = site.alpha.conflux("policy", "rollback").stdout
    assert "published as policy" in said
    site.await_passing(site.bravo, True)


def test_file_with_a_failing_test_and_a_member_without_the_right_publish_nothing(site: Site) -> None:
    said = site.publish(IPERF.replace('tcp/5201"]\n[[test', 'tcp/5202"]\n[[test'), check=False)
    assert "test fails" in said
    assert "not published" in said
    done = site.bravo.conflux("policy", "publish", str(site.alpha.state / "rules.toml"), check=False)
    assert done.returncode != 0
    good = site.bravo.state / "good.toml"
    good.write_text(DENY)
    done = site.bravo.conflux("policy", "publish", str(good), check=False)
    assert done.returncode == 1
    assert "realm grant bravo --capability policy" in done.stderr
    assert site.passes(site.bravo)
