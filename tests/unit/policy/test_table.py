"""The table of one board: few classes, its own addresses first, and no moment in it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from kit.policy import NOW, node, policy, rule

from conflux.errors import ConfigError
from conflux.policy import table as of
from conflux.policy.rules import OPEN
from conflux.policy.table import NO_CLASS, Here, next_change, table_of
from conflux.policy.terms import key_of

OWN = (ip_address("100.64.0.9"), ip_address("fd99::9"))
HERE = Here(node("me", "here"), OWN)
SSH = key_of(6, 22)


def test_peers_that_may_do_the_same_are_one_class():
    rules = policy('default = "deny"\n' + rule("tag:a tag:b", "me", "tcp/22"))
    peers = [node(f"n{number}", "ab"[number % 2]) for number in range(100)] + [node("other")]
    table, classes = table_of(rules, HERE, peers, at_unix=NOW)
    assert set(classes) == {NO_CLASS, 1}
    assert classes[-1] == NO_CLASS
    assert table.allows(1, OWN[0], SSH)
    assert not table.allows(1, OWN[0], SSH + 1)
    assert not table.allows(NO_CLASS, OWN[1], SSH)


def test_without_a_policy_members_reach_the_board_and_nothing_behind_it():
    here = HERE._replace(subnets=(ip_network("10.0.0.0/8"),), offers_exit=True)
    table, (peer,) = table_of(OPEN, here, [node("a")], at_unix=NOW)
    assert [table.allows(peer, ip_address(each), SSH) for each in ("100.64.0.9", "10.0.0.1", "8.8.8.8")] == [
        *(True, False, False)
    ]


def test_an_own_address_inside_a_granted_subnet_is_the_board_itself():
    here = Here(node("me"), (ip_address("10.0.0.1"),), (ip_network("10.0.0.0/24"),))
    rules = policy(rule("a", "10.0.0.0/24", "tcp/80"))
    table, (peer, closed) = table_of(rules._replace(is_open=False), here, [node("a"), node("b")], at_unix=NOW)
    assert not table.allows(peer, ip_address("10.0.0.1"), key_of(6, 80))
    assert table.allows(peer, ip_address("10.0.0.2"), key_of(6, 80))
    assert table.allows(peer, ip_address("10.0.0.0"), key_of(6, 80))
    assert closed == NO_CLASS


def test_a_rule_to_a_subnet_that_is_not_here_passes_nothing():
    rules = policy(rule("a", "10.0.0.0/8 192.168.0.0/16"))
    table, (peer,) = table_of(rules, HERE._replace(subnets=(ip_network("10.1.0.0/16"),)), [node("a")], at_unix=NOW)
    assert table.allows(peer, ip_address("10.1.255.255"), SSH)
    assert not table.allows(peer, ip_address("10.2.0.0"), SSH)
    assert not table.allows(peer, ip_address("192.168.0.1"), SSH)


def exit_leads_to(address: str) -> bool:
    table, (peer,) = table_of(policy(rule("a", "exit")), HERE._replace(offers_exit=True), [node("a")], at_unix=NOW)
    return table.allows(peer, ip_address(address), SSH)


@pytest.mark.parametrize("text", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "192.0.1.1", "100.128.0.1", "172.32.0.1"])
def test_an_exit_leads_to_hosts_of_the_internet(text):
    assert exit_leads_to(text)


@pytest.mark.parametrize(
    "text",
    [
        *("10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "127.0.0.1", "0.0.0.0"),
        *("224.0.0.251", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.9"),
        *("fd00::1", "fe80::1", "ff02::fb", "::1", "::", "64:ff9b::1", "2001:db8::1"),
        *("2002:a00:1::", "2001::1", "3fff::1", "4000::1"),
    ],
)
def test_an_exit_leads_to_no_site_no_link_no_overlay_and_no_tunnel_that_hides_one(text):
    """netbird#5797: the whole LAN behind an exit was open."""
    assert not exit_leads_to(text)


def test_a_public_subnet_behind_a_gateway_is_a_subnet_and_not_the_exit():
    here = HERE._replace(subnets=(ip_network("8.8.0.0/16"),), offers_exit=True)
    table, (peer,) = table_of(policy(rule("a", "exit")), here, [node("a")], at_unix=NOW)
    assert not table.allows(peer, ip_address("8.8.8.8"), SSH)
    assert table.allows(peer, ip_address("8.9.0.0"), SSH)


def test_a_host_behind_a_gateway_has_the_class_of_its_prefixes():
    rules = policy(rule("10.0.0.0/8", "me", "tcp/1", "wide") + rule("10.1.0.0/16", "me", "tcp/2", "narrow"))
    table, _ = table_of(rules, HERE, [], at_unix=NOW)
    wide, narrow, none = (table.class_of(ip_address(each)) for each in ("10.0.0.1", "10.1.0.1", "11.0.0.1"))
    assert [table.allows(each, OWN[0], key_of(6, 2)) for each in (wide, narrow, none)] == [False, True, False]
    assert [table.allows(each, OWN[0], key_of(6, 1)) for each in (wide, narrow, none)] == [True, True, False]


def test_a_table_says_until_when_it_holds():
    rules = policy(
        rule("a", "me", more="until = 2027-02-01T00:00:00Z\n")
        + rule("b", "me", name="s", more="since = 2027-01-20T00:00:00Z\n")
    )
    assert table_of(rules, HERE, [], at_unix=NOW)[0].until == 1_800_403_200
    assert next_change(rules, 1_800_403_200) == 1_801_440_000
    assert next_change(rules, 1_801_440_000) is None


def test_a_table_that_is_more_than_a_board_holds_is_refused(monkeypatch):
    rules = policy(rule("10.0.0.0/8", "me", "tcp/1"))
    for bound in ("CELL_COUNT_MAX", "RANGE_COUNT_MAX", "SPAN_COUNT_MAX"):
        with monkeypatch.context() as patch:
            patch.setattr(of, bound, 0)
            with pytest.raises(ConfigError, match="more subnets and kinds of peers"):
                table_of(rules, HERE, [], at_unix=NOW)
