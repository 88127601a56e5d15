"""What went wrong in other programs' rules, by public report, goes right here.

Reports about packets, state and gateways are tests of the engine and of gateways; these are the ones about rules.
"""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from kit.policy import HEAD, NOW, end, faults, found, node, passes, policy, rule

from conflux.policy.judge import judge
from conflux.policy.reading import read_untrusted
from conflux.policy.rules import OPEN

DENY = 'default = "deny"\n'


def test_an_empty_list_neither_denies_nor_allows_all_it_is_refused():
    """headscale#3211: an empty list denied in one syntax and allowed all in the other."""
    assert faults(rule("", "b")) == ["4:1: rule 1: from: is empty, so it means nothing: name something, or take it out"]
    assert faults("allow = []\nclosed = []\n") == []
    assert passes(policy("allow = []\nclosed = []\n"), "a", "b", "tcp/1")
    assert not passes(policy(DENY + "allow = []\n"), "a", "b", "tcp/1")


def test_a_typo_in_a_tag_is_found_before_it_takes_anything_off():
    """headscale#2044: a typo took every client off."""
    (fault,) = found(DENY + rule("tag:staf", "nas"), members=[node("nas"), node("pc", "staff")]).faults
    assert fault.text == 'no tag "staf": did you mean "staff"?'


def test_a_test_that_holds_turns_no_other_test_red():
    """tailscale#8250: a separate deny entry turned an accept entry red."""
    text = DENY + rule("a", "b", "tcp/22")
    text += '[[test]]\nfrom = "a"\nreaches = ["b tcp/22"]\n[[test]]\nfrom = "a"\nnot = ["b tcp/23"]\n'
    assert found(text).failed == ()
    (failed,) = found(text + '[[test]]\nfrom = "a"\nnot = ["b tcp/22"]\n').failed
    assert failed.text == 'test 3: a reaches b tcp/22, by rule "r"'


def test_a_line_of_a_test_names_a_protocol():
    """headscale PR#3229, tailscale#8377: a test without a protocol failed though the rule was right."""
    (fault,) = faults('[[test]]\nfrom = "a"\nnot = ["b 22"]\n')
    assert fault == '4:8: test 1: not: "22": for a port write "tcp/22" or "udp/22", for a protocol "ip/22"'
    assert faults('[[test]]\nfrom = "a"\nnot = ["b:22"]\n') != []


def test_everybody_but_these_two_can_be_said():
    """tailscale#5108."""
    rules = policy('closed = ["kiosk", "tag:guest"]\n' + rule("members", "exit", "tcp/443"))
    assert passes(rules, "pc", "exit", "tcp/443")
    assert not passes(rules, "kiosk", "exit", "tcp/443")
    assert not passes(rules, "phone+guest", "exit", "tcp/443")


@pytest.mark.parametrize(
    "address", ["192.168.1.1", "10.0.0.1", "172.16.0.1", "100.64.0.1", "169.254.169.254", "fd00::1", "fe80::1"]
)
def test_an_exit_is_never_the_network_of_the_board_that_offers_it(address):
    """netbird#5797: the whole LAN behind an exit was open."""
    rules = policy(rule("a", "exit"))
    assert not judge(rules, end("a"), ip_address(address), 6, 80, at_unix=NOW).is_allowed
    assert passes(rules, "a", "exit", "tcp/80")


def test_a_neighbour_on_the_lan_of_a_gateway_reaches_nothing_but_by_a_rule_that_names_its_subnet():
    """hassio-addons/app-tailscale#359, TS-2024-005: a neighbour on the LAN reached members through the router."""
    for rules in (OPEN, policy(rule("*", "*")), policy(rule("members", "nas"))):
        assert not passes(rules, "192.168.1.9", "nas", "tcp/445")
    assert passes(policy(rule("192.168.1.0/24", "nas", "tcp/445")), "192.168.1.9", "nas", "tcp/445")


def test_a_withdrawn_rule_allows_nothing_any_more():
    """netbird#5685, ziti#4330: flows went on after the rule was gone, by a check that never denied."""
    before, after = policy(DENY + rule("a", "b", "tcp/22")), policy(DENY)
    assert passes(before, "a", "b", "tcp/22")
    assert not passes(after, "a", "b", "tcp/22")


@pytest.mark.parametrize(("protocol", "port"), [(132, 53), (47, 53), (50, 53), (0, 53), (59, 53)])
def test_the_port_of_one_protocol_is_not_that_of_another(protocol, port):
    """nebula#1840: SCTP and GRE were read as UDP to port 53."""
    rules = policy(DENY + rule("a", "b", "udp/53"))
    assert not judge(rules, end("a"), end("b"), protocol, port, at_unix=NOW).is_allowed
    assert judge(rules, end("a"), end("b"), 17, 53, at_unix=NOW).is_allowed


def test_a_rule_needs_no_twin_for_the_way_back_and_gives_none():
    """ZeroTierOne#1245, #1472: lists without replies.  Replies are state; what begins on the other side is not."""
    rules = policy(DENY + rule("a", "b", "tcp/22"))
    assert passes(rules, "a", "b", "tcp/22")
    assert not passes(rules, "b", "a", "tcp/22")


def test_a_name_and_a_tag_of_one_text_are_two_things():
    """GHSA-69x3-g4r3-p962: two forms of one thing slipped past a list."""
    rules = policy('closed = ["guest"]\n')
    assert passes(rules, "phone+guest", "nas", "tcp/1")
    assert not passes(rules, "guest", "nas", "tcp/1")
    for twice in ("Guest", "guest ", "guest.local", "tag:Guest", "node:node:guest"):
        assert read_untrusted(f"{HEAD}closed = ['{twice}']\n".encode()).policy is None
