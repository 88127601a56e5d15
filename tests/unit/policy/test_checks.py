"""Tests inside a rule file, what there is not, and rules that do nothing."""

from __future__ import annotations

import pytest
from kit.policy import found, node, rule

from conflux.policy.reading import RULE_COUNT_MAX

DENY = 'default = "deny"\n'


def check(who: str, reaches: str = "", refused: str = "", more: str = "") -> str:
    lists = [("reaches", reaches), ("not", refused)]
    lines = [f"{key} = {[each.strip() for each in text.split(',')]}\n" for key, text in lists if text]
    return f"[[test]]\nfrom = {who if who.startswith('[') else repr(who)}\n{more}{''.join(lines)}\n"


def failed(text: str, **given) -> list[str]:
    return [each.text for each in found(text, **given).failed]


def warned(text: str, **given) -> list[str]:
    return [each.text for each in found(text, **given).warnings]


# ── tests ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_test_that_fails_says_who_what_and_by_which_rule():
    text = DENY + rule("a", "b", "tcp/1-99", "low") + check("a", "b tcp/22, b tcp/100", "b tcp/23, c tcp/22")
    assert failed(text) == ["test 1: a does not reach b tcp/100", 'test 1: a reaches b tcp/23, by rule "low"']
    assert failed(check("a", refused="b tcp/1")) == ["test 1: a reaches b tcp/1, by the default"]


def test_a_failed_test_has_the_place_of_its_line():
    (fault,) = found(check("a", refused="exit tcp/1, b tcp/1")).failed
    assert fault[:2] == (4, 22)


def test_a_range_is_reached_as_a_whole_and_refused_as_a_whole():
    text = DENY + rule("a", "b", "tcp/1-10", "one") + rule("a", "b", "tcp/11-20", "two")
    assert failed(text + check("a", "b tcp/1-20")) == []
    assert failed(text + check("a", "b tcp/1-21")) == ["test 1: a does not reach all of b tcp/1-21"]
    assert failed(text + check("a", refused="b tcp/20-30")) == ['test 1: a reaches b tcp/20-30, by rule "two"']
    assert failed(text + check("a", "b tcp")) == ["test 1: a does not reach all of b tcp"]
    assert failed(text + check("a", refused="b udp")) == []


def test_a_test_may_speak_of_a_node_with_tags_and_of_a_host_behind_a_gateway():
    text = DENY + rule("tag:x", "10.0.0.0/8") + rule("10.0.0.0/8", "b", name="back")
    assert failed(text + check('["a", "tag:x"]', "10.1.2.3 tcp/1") + check("a", refused="10.1.2.3 tcp/1")) == []
    assert failed(text + check("10.1.2.3", "b tcp/1") + check("11.1.2.3", refused="b tcp/1")) == []
    assert failed(text + check('["a", "tag:x", "tag:y"]', refused="10.1.2.3 udp")) == [
        'test 1: a with tag:x, tag:y reaches 10.1.2.3 udp, by rule "r"'
    ]


def test_a_member_has_its_tags_in_tests():
    text = 'closed = ["tag:guest"]\n' + check("phone", "nas tcp/445")
    assert failed(text) == []
    assert failed(text, members=[node("phone", "guest"), node("nas")]) == ["test 1: phone does not reach nas tcp/445"]


def test_a_test_is_judged_at_its_own_moment_or_now():
    text = rule("a", "exit", more="until = 2027-01-01T00:00:00Z\n")
    assert failed(text + check("a", "exit tcp/1")) == ["test 1: a does not reach exit tcp/1"]
    assert failed(text + check("a", "exit tcp/1"), now=1_700_000_000) == []
    assert failed(text + check("a", "exit tcp/1", more="at = 2026-12-31T23:59:59Z\n")) == []


def test_a_rule_that_no_test_would_miss_is_named():
    text = DENY + rule("a", "b", "tcp/1-10", "missed") + rule("a", "c", "tcp", "not missed") + check("a", "b tcp/1")
    assert found(text).unmissed == ("not missed",)
    doubled = DENY + rule("a", "b", "tcp/1", "one") + rule("a", "b", "tcp/1", "two") + check("a", "b tcp/1")
    assert found(doubled).unmissed == ("one", "two")


# ── what there is ────────────────────────────────────────────────────────────────────────────────────────────────────


MEMBERS = [node("nas", "office"), node("printer")]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('closed = ["tag:ofice"]\n', (2, 1, 'no tag "ofice": did you mean "office"?')),
        (rule("printr", "nas"), (4, 1, 'no node "printr": did you mean "printer"?')),
        (rule("nas", "tag:new"), (5, 1, 'no tag "new": if it comes later, name it in tags = [...]')),
        (
            rule("nas", "exit", more='via = ["gate"]\n'),
            (7, 1, 'no node "gate": if it comes later, name it in nodes = [...]'),
        ),
        (check("nas", "scanner tcp/1"), (4, 12, 'no node "scanner": if it comes later, name it in nodes = [...]')),
        (check("tag:ofice", refused="exit tcp/1"), (3, 1, 'no tag "ofice": did you mean "office"?')),
    ],
)
def test_what_the_realm_has_not_is_found(text, fault):
    assert found(text, members=MEMBERS).faults == (fault,)
    assert found(text).faults == ()


def test_what_comes_later_can_be_named():
    text = 'tags = ["new"]\nnodes = ["gate"]\n' + rule("tag:new", "gate") + rule("tag:office", "nas", name="s")
    assert found(text, members=MEMBERS).faults == ()
    assert found(text, members=MEMBERS).compared


def test_a_file_that_names_all_there_is_needs_no_realm():
    (fault,) = found('tags = ["office"]\n' + rule("tag:ofice", "nas")).faults
    assert fault.text == 'no tag "ofice": did you mean "office"?'
    assert not found('tags = ["office"]\n').compared
    assert found("tags = []\nnodes = []\n").compared


def test_a_prefix_lies_in_a_subnet_of_the_list():
    text = 'subnets = ["10.1.0.0/16", "fd12::/48"]\n'
    assert found(text + rule("a", "10.1.2.0/24 fd12::/64")).faults == ()
    (fault,) = found(text + rule("a", "10.0.0.0/8")).faults
    assert fault == (6, 1, "10.0.0.0/8 is in no subnet of the list subnets")


# ── rules that do nothing ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rules", "by"),
    [
        ([rule("a", "b", "tcp", "one"), rule("a", "b", "tcp/22")], 'rule "one" allows the same'),
        ([rule("*", "*", "any", "one"), rule("tag:x", "members", "ip/47")], 'rule "one" allows the same'),
        ([rule("a", "10.0.0.0/8", "any", "one"), rule("a", "10.1.0.0/16")], 'rule "one" allows the same'),
        (
            [rule("a", "b", "tcp/1-9", "one"), rule("a", "b", "tcp/10-20", "two"), rule("a", "b", "tcp/5-15")],
            'rules "one", "two" allow the same',
        ),
        (
            [rule("a", "b", "tcp", "one"), rule("a", "c", "tcp", "two"), rule("a", "b c", "tcp/22")],
            'rules "one", "two" allow the same',
        ),
        ([rule("members", "*", "any", "one"), rule("a", "b")], 'rule "one" allows the same'),
    ],
)
def test_a_rule_whose_every_flow_others_allow_is_shadowed(rules, by):
    assert warned(DENY + "".join(rules)) == [f'rule "r" is shadowed: {by}']
    assert warned(DENY + "".join(reversed(rules))) != []


@pytest.mark.parametrize(
    "rules",
    [
        [rule("a", "b", "tcp/1-9", "one"), rule("a", "b", "tcp/11-20", "two"), rule("a", "b", "tcp/5-15")],
        [rule("a", "b", "tcp", "one"), rule("b", "a", "tcp")],
        [rule("a", "b", "tcp", "one", "until = 2028-01-01T00:00:00Z\n"), rule("a", "b", "tcp/22")],
        [rule("a", "exit", "tcp", "one", 'via = ["g"]\n'), rule("a", "exit", "tcp/22")],
        [rule("*", "*", "any", "one"), rule("a", "exit")],
        [rule("a", "10.1.0.0/16", "any", "one"), rule("a", "10.0.0.0/8", "udp")],
        [rule("tag:x", "b", "any", "one"), rule("a", "b")],
    ],
)
def test_a_rule_that_adds_something_is_not_shadowed(rules):
    assert warned(DENY + "".join(rules)) == []


def test_of_two_equal_rules_the_later_is_shadowed():
    assert warned(DENY + rule("a", "b", name="one") + rule("a", "b", name="two")) == [
        'rule "two" is shadowed: rule "one" allows the same'
    ]


def test_the_default_shadows_rules_between_members():
    said = ['rule "r" is shadowed: the default allows the same']
    assert warned(rule("a", "tag:x")) == said
    closed = 'closed = ["tag:guest"]\n'
    assert warned(closed + rule("members", "members")) == said
    assert warned(closed + rule("a", "tag:x")) == []  # a may be a guest
    assert warned(closed + rule("a", "tag:x"), members=[node("a"), node("b", "x")]) == said
    assert warned(closed + rule("a", "tag:x"), members=[node("a", "guest"), node("b", "x")]) == []


def test_members_are_not_every_node_where_something_is_closed():
    assert warned(DENY + 'closed = ["tag:thing"]\n' + rule("members", "*", name="one") + rule("a", "b")) == []


def test_a_rule_is_unreachable_when_its_time_is_over_or_nothing_has_its_tags():
    text = rule("a", "exit", more="until = 2027-01-01T00:00:00Z\n")
    assert warned(text) == ['rule "r" is unreachable: its time is over']
    text = 'tags = ["new"]\n' + DENY + rule("tag:new", "nas")
    assert warned(text, members=MEMBERS) == ['rule "r" is unreachable: no member is meant by tag:new']
    assert warned(text) == []


def test_a_warning_has_the_place_of_its_rule():
    (fault,) = found(DENY + rule("a", "b", name="one") + rule("a", "b", name="two")).warnings
    assert fault[:2] == (9, 1)


def test_many_rules_that_all_add_something_are_examined_without_a_word():
    rules = "".join(rule(f"tag:t{n % 40}", f"n{n}", f"tcp/{n + 1}", f"rule {n}") for n in range(200))
    checks = "".join(check(f"tag:t{n % 40}", f"n{n} tcp/{n + 1}") for n in range(200))
    assert found(DENY + rules + checks) == ((), (), (), (), 200, False)


def test_rules_that_are_too_many_to_compare_are_not_compared_and_that_is_said():
    names = f"{[f'n{i}' for i in range(250)]}"
    many = "".join(
        f'{{name="r{i}",from=["group:a"],to=["group:a"],on=["tcp"]}},' for i in range(min(5, RULE_COUNT_MAX))
    )
    said = warned(f"{DENY}allow=[{many}]\n[groups]\na={names}\n")
    assert said == ["the rules have too many sides for all to be compared: some may be shadowed"]
