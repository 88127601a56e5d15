"""What the doctor makes of what it saw; nothing is looked at here."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

import pytest

from conflux.config.settings import Config, Fault
from conflux.doctor import board, clock, firewall, host, journal, multicast, node
from conflux.doctor.finding import Check, Finding, Grade
from conflux.doctor.subject import Answer, Daemon, Subject
from conflux.host.networks import Taken

NOW = 1_800_000_000
DAY = 86400
CONFIG = Path("/etc/conflux/conflux.toml")
UP = {
    "pid": 7,
    "uptime_s": 60,
    "warnings": [],
    "control": [{"name": "lan", "up": True, "detail": "", "neighbours": []}],
}


def subject(**given: object) -> Subject:
    daemon = given.pop("daemon", Daemon(Answer.STATUS, UP))
    return Subject(Config(), CONFIG, (), "", daemon, None, None, "")._replace(**given)


def grades(found: Iterable[Finding]) -> list[Grade]:
    every = list(found)
    assert all(each.remedy for each in every if each.grade is Grade.BAD), every
    return [each.grade for each in every]


GOOD, BAD, UNSEEN = Grade.GOOD, Grade.BAD, Grade.UNSEEN
STATE = node.State(Path("/s"), 0o700, True, True, 0, 0, (), True, "")
CLOCK = clock.Clock(NOW, NOW - DAY, True, NOW, 0)
DISK = host.Disk(Path("/s"), 1 << 30, True, False)
DEVICE = host.Device("conflux0", True, True, True, True)
MTUS = host.Mtus("conflux0", 4000, 4000, (("eth0", 1500),))
FACES = host.Interfaces(True, None, (("eth0", ("10.7.1.11",)),))
PREFIX = ip_network("100.90.0.0/16")
PREFIXES = host.Prefixes("conflux0", (PREFIX,), (Taken(ip_network("10.7.1.0/24"), "eth0"),), (), ())
KERNEL = host.Kernel(0, 2, ("eth0", "eth1"), 212992)
PORT = firewall.Port(True, 7464, True, True, ("10.7.1.11",))
SPOKEN = multicast.Spoken("eth0", "10.7.1.11", "", True, ("10.7.1.12",), ("bravo",))
VERSIONS = node.Versions("1.0", "1.0", "3.11", "6.1", "OpenSSL 3")
NOTHING = {"nftables": []}
WALL = firewall.Firewall(7464, True, "conflux0", ("eth0",), NOTHING, "", False, True)


@pytest.mark.parametrize(
    ("judge", "seen", "expected"),
    [
        (board.judge, (), []),
        (board.judge, ("conflux.toml:2: unknown key 'tokn' in [board]",), [BAD]),
        (node.configuration, subject(), [GOOD]),
        (node.configuration, subject(file=None), [GOOD]),
        (node.configuration, subject(faults=(Fault(3, "a"), Fault(None, "b"))), [BAD, BAD]),
        (node.configuration, subject(unread="cannot read it"), [BAD]),
        (node.daemon, subject(), [GOOD]),
        (node.daemon, subject(daemon=Daemon(Answer.STATUS, {**UP, "warnings": ["no-address: x"]})), [GOOD, BAD]),
        (node.daemon, subject(daemon=Daemon(Answer.STATUS, {**UP, "warnings": ["clock-behind: x"]})), [GOOD]),
        (node.daemon, subject(daemon=Daemon(Answer.STATUS, {"control": [{"name": "lan", "up": False}]})), [GOOD, BAD]),
        (node.daemon, subject(daemon=Daemon(Answer.NOT_RUNNING, {})), [BAD]),
        (node.daemon, subject(daemon=Daemon(Answer.HANGS, {}, "hangs")), [BAD]),
        (node.daemon, subject(daemon=Daemon(Answer.FORBIDDEN, {}, "no")), [UNSEEN]),
        (node.neighbours, subject(), [UNSEEN]),
        (node.neighbours, subject(daemon=Daemon(Answer.NOT_RUNNING, {})), []),
        (
            node.neighbours,
            subject(daemon=Daemon(Answer.STATUS, {"control": [{"neighbours": [{"name": "b"}]}]})),
            [GOOD],
        ),
        (node.versions, VERSIONS, [GOOD]),
        (node.versions, VERSIONS._replace(daemon=None), [GOOD]),
        (node.versions, VERSIONS._replace(daemon="0.9"), [BAD]),
        (node.state, STATE, [GOOD]),
        (node.state, STATE._replace(mode=None), [BAD]),
        (node.state, STATE._replace(mode=None, is_readable=False), [UNSEEN]),
        (node.state, STATE._replace(is_directory=False), [BAD]),
        (node.state, STATE._replace(mode=0o755), [BAD]),
        (node.state, STATE._replace(is_readable=False), [UNSEEN]),
        (node.state, STATE._replace(loose=("/s/node.key",)), [BAD]),
        (node.state, STATE._replace(owner=5), [BAD]),
        (node.state, STATE._replace(is_member=False), [BAD]),
        (node.state, STATE._replace(untold="damaged"), [BAD]),
        (clock.judge, CLOCK, [GOOD]),
        (clock.judge, CLOCK._replace(synchronised=None, rtc_unix=None), [GOOD]),
        (clock.judge, CLOCK._replace(floor_unix=NOW + 59), [GOOD]),
        (clock.judge, CLOCK._replace(floor_unix=NOW + 60), [BAD]),
        (clock.judge, CLOCK._replace(rtc_unix=NOW - 12 * 3600), [GOOD]),
        (clock.judge, CLOCK._replace(rtc_unix=0), [BAD]),
        (clock.judge, CLOCK._replace(refused_early=2), [BAD]),
        (host.disk, DISK, [GOOD]),
        (host.disk, DISK._replace(free_bytes=4096), [BAD]),
        (host.disk, DISK._replace(has_files=False), [BAD]),
        (host.disk, DISK._replace(is_read_only=True), [BAD]),
        (host.device, DEVICE, [GOOD]),
        (host.device, DEVICE._replace(is_there=False, runs=False, up=None), [GOOD]),
        (host.device, DEVICE._replace(has_node=False, up=None), [BAD]),
        (host.device, DEVICE._replace(has_node=False), [GOOD]),
        (host.device, DEVICE._replace(up=False), [BAD]),
        (host.device, DEVICE._replace(runs=False, up=None), [BAD]),
        (host.device, DEVICE._replace(is_there=False), [BAD]),
        (host.mtus, MTUS, [GOOD]),
        (host.mtus, MTUS._replace(device=1500), [BAD]),
        (host.mtus, MTUS._replace(device=None, underlay=()), [GOOD]),
        (host.mtus, MTUS._replace(underlay=(("wg0", 1200),)), [BAD]),
        (host.judge_interfaces, FACES, [GOOD]),
        (host.judge_interfaces, FACES._replace(usable=()), [BAD]),
        (host.judge_interfaces, FACES._replace(absent="no interface 'x' here"), [BAD, GOOD]),
        (host.prefixes, PREFIXES, [GOOD]),
        (host.prefixes, PREFIXES._replace(others=("wg0",)), [GOOD]),
        (host.prefixes, PREFIXES._replace(own=()), [UNSEEN]),
        (host.prefixes, PREFIXES._replace(used=(Taken(ip_network("100.90.1.0/24"), "eth0"),)), [BAD]),
        (host.prefixes, PREFIXES._replace(tailscale_drops=(PREFIX,)), [BAD]),
        (host.prefixes, PREFIXES._replace(astray=(PREFIX,)), [BAD]),
        (host.kernel, KERNEL, [GOOD]),
        (host.kernel, KERNEL._replace(ipv6_off=1), [BAD]),
        (host.kernel, KERNEL._replace(ipv6_off=None), [BAD]),
        (host.kernel, KERNEL._replace(rp_filter=1), [BAD]),
        (host.kernel, KERNEL._replace(rp_filter=1, shared=()), [GOOD]),
        (firewall.judge_port, PORT, [GOOD]),
        (firewall.judge_port, PORT._replace(enabled=False), [GOOD]),
        (firewall.judge_port, PORT._replace(runs=False), [BAD]),
        (firewall.judge_port, PORT._replace(runs=None), [GOOD]),
        (firewall.judge_port, PORT._replace(runs=False, taken=False), [GOOD]),
        (firewall.judge_port, PORT._replace(taken=False), [BAD]),
        (firewall.judge_port, PORT._replace(silent=("10.7.1.11",)), [BAD]),
        (firewall.judge_port, PORT._replace(refused=("10.7.1.11",)), [BAD]),
        (firewall.firewall, WALL, [GOOD]),
        (firewall.firewall, WALL._replace(rules=None, why_not="only root"), [UNSEEN]),
        (firewall.firewall, WALL._replace(port=None), [GOOD]),
        (firewall.firewall, WALL._replace(legacy=True), [UNSEEN]),
        (firewall.fence, WALL, [BAD]),
        (firewall.fence, WALL._replace(runs=False), []),
        (firewall.fence, WALL._replace(rules=None), [UNSEEN]),
        (
            firewall.fence,
            WALL._replace(rules={"nftables": [{"table": {"family": "inet", "name": "conflux-conflux0"}}]}),
            [GOOD],
        ),
        (multicast.judge, multicast.Multicast(True, (SPOKEN,)), [GOOD]),
        (multicast.judge, multicast.Multicast(False, ()), [GOOD]),
        (multicast.judge, multicast.Multicast(True, ()), [BAD]),
        (multicast.judge, multicast.Multicast(True, (SPOKEN._replace(refused="no route"),)), [BAD]),
        (multicast.judge, multicast.Multicast(True, (SPOKEN._replace(returned=False),)), [BAD]),
        (multicast.judge, multicast.Multicast(True, (SPOKEN._replace(others=()),)), [BAD]),
        (multicast.judge, multicast.Multicast(True, (SPOKEN._replace(others=(), expected=()),)), [UNSEEN]),
        (journal.judge, journal.Journal(3, "", "info"), [GOOD]),
        (journal.judge, journal.Journal(None, "only root may", "info"), [UNSEEN]),
        (journal.judge, journal.Journal(601, "", "info"), [BAD]),
        (journal.judge, journal.Journal(601, "", "debug"), [GOOD]),
    ],
)
def test_what_was_seen_is_good_or_bad_and_what_is_bad_has_a_remedy(judge, seen, expected):
    assert grades(judge(seen)) == expected


@pytest.mark.parametrize(
    ("now", "expected"), [(NOW, [GOOD]), (NOW + 20 * DAY, [BAD]), (NOW + 30 * DAY, [BAD]), (NOW + 90 * DAY, [BAD])]
)
def test_a_credential_is_good_until_it_should_have_been_renewed(now, expected):
    assert grades(node.credential(node.Dates(NOW + 30 * DAY, NOW + 20 * DAY), now_unix=now)) == expected


def test_a_credential_that_cannot_be_read_is_not_seen():
    assert grades(node.credential(None)) == [UNSEEN]


def test_a_firewall_is_opened_by_the_program_that_manages_it():
    assert firewall.open_port("ufw", "udp", 5353) == "sudo ufw allow 5353/udp"
    assert "firewall-cmd --add-port=7464/tcp" in firewall.open_port("firewall-cmd", "tcp", 7464)
    assert all(name in (*firewall.MANAGERS, "") for name in ("ufw", "firewall-cmd"))


def test_every_check_has_a_judgement_here():
    judged = {each.check for judge, seen, _ in CASES for each in judge(seen)}
    assert judged | {Check.CREDENTIAL, Check.BROKER} == set(Check)


CASES = next(mark.args[1] for mark in test_what_was_seen_is_good_or_bad_and_what_is_bad_has_a_remedy.pytestmark)
