"""What a rule file may not say, and the place and words of the error."""

from __future__ import annotations

import pytest
from kit.policy import HEAD, faults, policy, rule

from conflux.policy import reading
from conflux.policy.reading import FAULT_COUNT_MAX, FILE_BYTES_MAX, read_untrusted


def only(text: str, head: str = HEAD) -> str:
    (fault,) = faults(text, head)
    return fault


def test_the_least_rule_file_is_a_version():
    read = policy("")
    assert read.is_open
    assert read.rules == read.checks == ()
    assert read.tags is read.nodes is read.subnets is None


def test_default_deny_turns_the_default_round():
    assert not policy('default = "deny"\n').is_open
    assert only('default = "open"\n') == '2:1: default: must be "allow" or "deny", not "open"'


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        ("", "None:None: version: is missing: write 1"),
        ("version = 2\n", "1:1: version: must be 1, not 2"),
        ("version = true\n", "1:1: version: must be 1, not true"),
        ("version = 1.0\n", "1:1: version: must be 1, not 1.0"),
    ],
)
def test_a_version_of_another_kind_is_refused(head, fault):
    assert faults("", head) == [fault]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("clsed = []\n", "2:1: clsed: no such key: did you mean 'closed'?"),
        ("[[alow]]\n", "2:1: alow: no such key: did you mean 'allow'?"),
        ("allow = 3\n", "2:1: allow: must be a list of tables: write [[allow]]"),
        ("allow = [3]\n", "2:10: rule 1: must be a table, not 3"),
        ('closed = "tag:x"\n', '2:1: closed: must be a list of texts, not "tag:x"'),
        ("closed = [3]\n", "2:11: closed: must be a text, not 3"),
        ('closed = ["a", "a"]\n', '2:16: closed: "a" stands there twice'),
        ('closed = ["a", "node:a"]\n', '2:16: closed: "node:a" stands there twice'),
        ('closed = ["*"]\n', '2:11: closed: "*" cannot stand here: use a tag, a node, a group'),
        ('closed = ["group:none"]\n', '2:1: closed: no group "none": [groups] has none of that name'),
        ("groups = 3\n", "2:1: groups: must be a table of lists, not 3"),
        ('[groups]\nA = ["x"]\n', "3:1: groups: A: is no name of a group: use a-z, 0-9 and '-'"),
        ("[groups]\na = []\n", "3:1: groups: a: is empty, so it means nothing: name something, or take it out"),
        ('[groups]\na = ["group:b"]\n', '3:1: groups: a: no group "b": [groups] has none of that name'),
        ('[groups]\npress = ["x"]\na = ["group:prss"]\n', '4:1: groups: a: no group "prss": did you mean "press"?'),
        ('tags = ["A"]\n', '2:9: tags: "A" is no name'),
        (
            'subnets = ["10.0.0.0/8", "10.1.0.0/16"]\n',
            "2:1: subnets: 10.1.0.0/16 overlaps 10.0.0.0/8: keep one of them",
        ),
    ],
)
def test_an_error_names_the_place_and_what_may_stand_there(text, fault):
    assert only(text) == fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (rule("a", "b", "tcp/0"), "6:7: rule 1: on:"),
        (rule("a", "tag:B"), '5:7: rule 1: to: "tag:B": "B" is no name'),
        (rule("exit", "b"), '4:9: rule 1: from: "exit" cannot stand here'),
        (rule("a", ""), "5:1: rule 1: to: is empty"),
        (rule("a", "10.0.0.0/8 10.0.0.0/9"), "5:1: rule 1: to: 10.0.0.0/9 overlaps 10.0.0.0/8"),
        (rule("a", "b", name=""), "3:1: rule 1: name: must be a text of 1 to 64 characters"),
        (rule("a", "b", name="x" * 65), "3:1: rule 1: name: must be a text of 1 to 64 characters"),
        (rule("a", "b", more="since = 2027-01-01T00:00:00\n"), "7:1: rule 1: since: must be a moment as"),
        (rule("a", "b", more="since = 5\n"), "7:1: rule 1: since: must be a moment as"),
        (
            rule("a", "b", more="since = 2027-01-02T00:00:00Z\nuntil = 2027-01-02T00:00:00Z\n"),
            "8:1: rule 1: until: is not after since, so the rule never holds",
        ),
        (rule("a", "b", more='via = ["c"]\n'), "7:1: rule 1: via: says by which board a subnet or the exit"),
        (rule("a", "exit", more='via = ["*"]\n'), '7:8: rule 1: via: "*" cannot stand here: use a tag, a node'),
        (rule("a", "b", more="port = 22\n"), "7:1: rule 1: port: no such key: there is name, from, to, on"),
    ],
)
def test_an_error_in_a_rule_names_the_rule(text, fault):
    assert only(text).startswith(fault)


def test_a_rule_without_a_key_says_which():
    assert faults("[[allow]]\n") == [f"2:1: rule 1: {key}: is missing" for key in ("name", "from", "to", "on")]


def test_two_rules_of_one_name_are_refused():
    assert only(rule("a", "b") + rule("c", "d")) == "9:1: rule 2: name: rule 1 has that name already"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[[test]]\nfrom = "a"\n', "2:1: test 1: asks nothing: write reaches = [...], or not = [...]"),
        ('[[test]]\nnot = ["b tcp/1"]\n', "2:1: test 1: from: is missing"),
        ('[[test]]\nfrom = "*"\nnot = ["b tcp/1"]\n', '3:1: test 1: from: "*" cannot stand here: use a tag, a node'),
        ('[[test]]\nfrom = ["a", "b"]\nnot = ["b tcp/1"]\n', "3:1: test 1: from: has two names"),
        ('[[test]]\nfrom = "a"\nnot = ["b"]\n', '4:8: test 1: not: "b": write who and what, as "printer tcp/631"'),
        ('[[test]]\nfrom = "a"\nnot = ["* tcp/1"]\n', '4:8: test 1: not: "*": a test asks about one node'),
        ('[[test]]\nfrom = "a"\nnot = ["10.0.0.0/8 tcp/1"]\n', '4:8: test 1: not: "10.0.0.0/8": a test asks about'),
        ('[[test]]\nfrom = "a"\nnot = ["127.0.0.1 tcp/1"]\n', "4:8: test 1: not:"),
        ('[[test]]\nfrom = "1.2.3"\nnot = ["b tcp/1"]\n', '3:1: test 1: from: "1.2.3" is no address'),
        ('[[test]]\nfrom = "a"\nreaches = []\n', "4:1: test 1: reaches: is empty"),
    ],
)
def test_an_error_in_a_test_names_the_test(text, fault):
    assert only(text).startswith(fault)


@pytest.mark.parametrize("size", [1, 2, 3, 200])
def test_groups_in_a_circle_are_refused(size):
    lines = [f'g{number} = ["group:g{(number + 1) % size}"]' for number in range(size)]
    said = faults("[groups]\n" + "\n".join(lines))
    assert len(said) == min(size, FAULT_COUNT_MAX)
    assert said[0] == "3:1: groups: g0: group:g0 has itself in it, perhaps by other groups"


def test_a_group_means_what_is_in_it_and_in_its_groups():
    text = '[groups]\na = ["group:b", "x"]\nb = ["y", "10.0.0.0/8"]\n' + rule("group:b", "group:a")
    (only_rule,) = policy(text).rules
    assert [str(term) for term in only_rule.sources] == ["y", "10.0.0.0/8"]
    assert sorted(str(term) for term in only_rule.targets) == ["10.0.0.0/8", "x", "y"]


def test_what_a_group_has_in_it_may_be_wrong_where_it_stands():
    text = '[groups]\na = ["exit"]\n' + rule("group:a", "b")
    assert only(text).startswith('6:1: rule 1: from: in group:a: "exit" cannot stand here')


def test_a_text_that_is_no_toml_is_refused_with_its_place():
    assert only("a = [\n") == "3:1: invalid value"
    assert read_untrusted(b"version = 1\nx = '\xff'").faults[0][:2] == (2, None)
    assert read_untrusted(b"\xef\xbb\xbfversion = 1\r\n").policy is not None


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "a = " + "9" * 5000, "a = 2027-13-01T00:00:00Z\n", "a.a = 1\na = 2"]
)
def test_a_text_that_tires_its_reader_is_refused(text):
    assert read_untrusted((HEAD + text).encode()).policy is None


def test_a_file_of_a_megabyte_is_refused_unread():
    (fault,) = read_untrusted(b"#" * 2**20).faults
    assert fault.text == f"it has {2**20} bytes, and a rule file at most {FILE_BYTES_MAX}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("allow = [" + "{}," * (reading.RULE_COUNT_MAX + 1) + "]", "2049 entries"),
        ("test = [" + "{}," * (reading.CHECK_COUNT_MAX + 1) + "]", "1025 entries"),
        (rule(" ".join(f"n{i}" for i in range(reading.TERM_COUNT_MAX + 1)), "b"), "257 entries"),
        ("[groups]\n" + "".join(f"g{i} = ['x']\n" for i in range(reading.GROUP_COUNT_MAX + 1)), "257 groups"),
        (
            f"[groups]\na = {[f'n{i}' for i in range(200)]}\nb = {[f'm{i}' for i in range(200)]}\n"
            + rule("group:a group:b", "x"),
            "means 400 things with its groups",
        ),
    ],
)
def test_what_is_too_much_is_refused(text, words):
    assert words in only(text)


def test_so_many_faults_are_told_and_no_more():
    assert len(faults("".join(f"x{number} = 1\n" for number in range(1000)))) == FAULT_COUNT_MAX


def test_what_an_error_quotes_cannot_move_a_terminal():
    said = "\n".join(faults('"\\u001b[2J" = 1\nclosed = ["\\u001b[2J\\u202e"]\n'))
    assert "\x1b" not in said
    assert "\u202e" not in said
