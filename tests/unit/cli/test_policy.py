"""`conflux policy check`."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
from kit.records import misfits

from conflux.cli import policy
from conflux.policy.reading import FILE_BYTES_MAX

RULE = '[[allow]]\nname = "r"\nfrom = ["tag:staff"]\nto = ["nas"]\non = ["tcp/445"]\n'
TEXT = f'version = 1\ndefault = "deny"\n{RULE}'
TEST = '[[test]]\nfrom = "tag:staff"\nreaches = ["nas tcp/445"]\n'
MEMBERS = {
    "members": [
        {"name": "pc", "tags": ["staff"], "state": "member"},
        {"name": "nas", "tags": [], "state": "expired"},
        {"name": "old", "tags": ["gone"], "state": "revoked"},
    ]
}


def written(place: Path, text: str | bytes) -> Path:
    place.write_bytes(text if isinstance(text, bytes) else text.encode())
    return place


def check(file: Path, *members: Path, as_json: bool = False) -> int:
    return policy.check(Namespace(file=file, members=list(members), json=as_json))


@pytest.fixture
def rules(tmp_path):
    return tmp_path / "rules.toml"


def test_a_good_file_ends_with_0(rules, capsys):
    assert check(written(rules, TEXT + TEST)) == 0
    note = "note: names and tags were held against nothing: see --members"
    assert capsys.readouterr().out.splitlines() == [f"{rules}: {note}", f"{rules}: valid: 1 rule, 1 line of tests"]


def test_a_rule_that_no_test_would_miss_is_named(rules, capsys):
    assert check(written(rules, TEXT)) == 0
    assert f'{rules}: note: no test would miss "r"\n' in capsys.readouterr().out


def test_a_fault_ends_with_1_and_says_where(rules, capsys):
    assert check(written(rules, TEXT.replace("tcp/445", "tcp/0"))) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f'{rules}:7:7: rule 1: on: "tcp/0": a port is')


def test_a_failed_test_ends_with_1_and_says_where(rules, capsys):
    assert check(written(rules, TEXT + TEST.replace("445", "22"))) == 1
    assert capsys.readouterr().out == f"{rules}:10:12: test fails: test 1: tag:staff does not reach nas tcp/22\n"


def test_a_warning_alone_ends_with_0(rules, capsys):
    again = RULE.replace('"r"', '"again"')
    assert check(written(rules, TEXT + again + TEST)) == 0
    said = f'{rules}:8:1: warning: rule "again" is shadowed: rule "r" allows the same\n'
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("is_there", [False, True])
def test_a_file_that_cannot_be_read_or_is_too_large_ends_with_2(is_there, rules, capsys):
    if is_there:
        written(rules, b"x" * (FILE_BYTES_MAX + 1))
    assert check(rules) == 2
    said = capsys.readouterr().err
    if is_there:
        assert said == f"conflux: {rules}: larger than {FILE_BYTES_MAX} bytes\n"
    else:
        assert said == f"conflux: cannot read {rules}: No such file or directory\n"


def test_a_file_that_is_no_rule_file_ends_with_1(rules, capsys):
    assert check(written(rules, b"\0\xff")) == 1
    assert capsys.readouterr().out == f"{rules}:1: it is no UTF-8 text\n"


def test_members_that_are_too_many_end_with_2(rules, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(policy, "MEMBERS_BYTES_MAX", 100)
    members = written(tmp_path / "members.json", json.dumps(MEMBERS))
    assert check(written(rules, TEXT), members) == 2
    assert capsys.readouterr().err == f"conflux: {members}: larger than 100 bytes\n"


def test_members_are_held_against_names_and_tags(rules, tmp_path, capsys):
    members = written(tmp_path / "members.json", json.dumps(MEMBERS))
    assert check(written(rules, TEXT + TEST), members) == 0
    assert "note" not in capsys.readouterr().out
    assert check(written(rules, TEXT.replace("staff", "staf")), members) == 1
    assert capsys.readouterr().out == f'{rules}:5:1: no tag "staf": did you mean "staff"?\n'
    assert check(written(rules, TEXT.replace("staff", "gone")), members) == 1


def test_members_may_come_from_several_issuers(rules, tmp_path, capsys):
    one, other = ({"members": [row]} for row in MEMBERS["members"][:2])
    files = [written(tmp_path / f"{n}.json", json.dumps(each)) for n, each in enumerate((one, other))]
    assert check(written(rules, TEXT), *files) == 0
    assert check(rules, files[0]) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", '{"members": 3}', '{"members": [3]}', '{"members": [{"name": "x"}]}', "[" * 100_000),
        '{"members": [{"name": "X", "tags": [], "state": "member"}]}',
        '{"members": [{"name": "x", "tags": [[]], "state": "member"}]}',
        '{"members": [{"name": "x", "tags": []}]}',
    ],
)
def test_members_that_are_none_end_with_2(text, rules, tmp_path, capsys):
    members = written(tmp_path / "members.json", text)
    assert check(written(rules, TEXT), members) == 2
    assert capsys.readouterr().err.endswith("not what `conflux realm members --json` prints\n")


def test_the_same_is_said_in_json(rules, capsys):
    again = RULE.replace('"r"', '"again"')
    assert check(written(rules, TEXT + again + TEST.replace("445", "22")), as_json=True) == 1
    printed = json.loads(capsys.readouterr().out)
    assert misfits(printed, "policy check") == []
    assert (printed["valid"], printed["rules"], printed["checks"], printed["compared"]) == (False, 2, 1, False)
    assert [fault["line"] for fault in (*printed["failed"], *printed["warnings"])] == [15, 8]
