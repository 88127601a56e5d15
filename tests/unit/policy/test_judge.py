"""What may pass, and by which rule."""

from __future__ import annotations

import pytest
from kit.policy import NOW, end, passes, policy, rule, verdict

from conflux.policy.judge import judge
from conflux.policy.rules import OPEN


@pytest.mark.parametrize("rules", [OPEN, policy("")], ids=["no policy", "an empty one"])
def test_members_reach_one_another_and_subnets_and_exits_only_by_a_rule(rules):
    assert passes(rules, "a", "b", "tcp/22")
    assert passes(rules, "a+x", "+y", "ip/47")
    assert not passes(rules, "a", "10.0.0.1", "tcp/22")
    assert not passes(rules, "10.0.0.1", "a", "tcp/22")
    assert not passes(rules, "a", "exit", "tcp/443")


def test_the_default_can_be_turned_round():
    rules = policy('default = "deny"\n' + rule("a", "b", "tcp/22"))
    assert not passes(rules, "b", "a", "tcp/22")
    assert not passes(rules, "a", "b", "tcp/23")
    assert verdict(rules, "a", "b", "tcp/22").rule == rules.rules[0]


def test_what_is_closed_takes_no_part_in_the_default_in_either_direction():
    rules = policy('closed = ["tag:guest", "tv"]\n')
    for one in ("g+guest", "tv", "tv+office"):
        assert not passes(rules, one, "nas", "tcp/445")
        assert not passes(rules, "nas", one, "tcp/445")
    assert passes(rules, "nas", "laptop+office", "tcp/445")


def test_members_are_those_that_the_default_covers_and_a_star_is_every_node():
    rules = policy('default = "deny"\nclosed = ["tag:thing"]\n' + rule("members", "t", "tcp/1", "m") + rule("*", "s"))
    assert passes(rules, "a", "t", "tcp/1")
    assert not passes(rules, "a+thing", "t", "tcp/1")
    assert passes(rules, "a+thing", "s", "tcp/1")
    assert not passes(rules, "10.0.0.1", "s", "tcp/1")


def test_a_star_is_neither_a_subnet_nor_the_exit():
    rules = policy(rule("*", "*"))
    assert not passes(rules, "a", "10.0.0.1", "tcp/1")
    assert not passes(rules, "a", "exit", "tcp/1")


def test_a_prefix_means_the_hosts_in_it_and_no_node():
    rules = policy('default = "deny"\n' + rule("a", "10.0.0.0/8 fd12::/64", "tcp"))
    assert passes(rules, "a", "10.255.0.1", "tcp/1")
    assert passes(rules, "a", "fd12::9", "tcp/1")
    assert not passes(rules, "a", "11.0.0.1", "tcp/1")
    assert not passes(rules, "a", "fd12:0:0:1::9", "tcp/1")
    assert not passes(rules, "a", "b", "tcp/1")


def test_a_rule_holds_from_since_on_and_before_until():
    rules = policy(rule("a", "exit", more="since = 2027-01-04T06:00:00Z\nuntil = 2027-01-04T09:00:00+02:00\n"))
    begin = 1_799_042_400
    assert [passes(rules, "a", "exit", "udp/1", at=begin + each) for each in (-1, 0, 3599, 3600)] == [
        *(False, True, True, False)
    ]


def test_the_order_of_rules_means_nothing_and_the_first_is_named():
    one, other = rule("a", "b", "tcp/1-10", "one"), rule("a", "b", "tcp/5-20", "other")
    for text, name in ((one + other, "one"), (other + one, "other")):
        rules = policy('default = "deny"\n' + text)
        found = verdict(rules, "a", "b", "tcp/7").rule
        assert found is not None
        assert found.name == name
        assert passes(rules, "a", "b", "tcp/1")
        assert passes(rules, "a", "b", "tcp/20")


def test_an_ending_protocol_without_ports_is_judged_by_its_number():
    rules = policy('default = "deny"\n' + rule("a", "b", "ip/47 tcp/22"))
    assert judge(rules, end("a"), end("b"), 47, 0, at_unix=NOW).is_allowed
    assert not judge(rules, end("a"), end("b"), 6, 0, at_unix=NOW).is_allowed
    assert not judge(rules, end("a"), end("b"), 17, 22, at_unix=NOW).is_allowed


def test_echo_is_a_request_in_both_families_and_no_other_message():
    rules = policy('default = "deny"\n' + rule("a", "b", "icmp/echo"))
    allowed = [
        (protocol, kind)
        for protocol in (1, 58)
        for kind in range(256)
        if judge(rules, end("a"), end("b"), protocol, kind, at_unix=NOW).is_allowed
    ]
    assert allowed == [(1, 8), (58, 128)]
