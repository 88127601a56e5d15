"""What an nftables ruleset does to a packet of a neighbour."""

from __future__ import annotations

from typing import Any

import pytest

from conflux.doctor.ruleset import Blocker, Fate, Packet, judge, tables

CONTROL = Packet("tcp", 7464, "eth0")
MDNS = Packet("udp", 5353, "eth0")


def match(left: Any, right: Any, op: str = "==") -> Any:
    return {"match": {"op": op, "left": left, "right": right}}


def port(protocol: str, right: Any) -> Any:
    return match({"payload": {"protocol": protocol, "field": "dport"}}, right)


def meta(key: str, right: Any, op: str = "==") -> Any:
    return match({"meta": {"key": key}}, right, op)


ACCEPT, DROP = {"accept": None}, {"drop": None}
STATE = match({"ct": {"key": "state"}}, {"set": ["established", "related"]}, "in")
SOURCE = match({"payload": {"protocol": "ip", "field": "saddr"}}, {"prefix": {"addr": "10.7.0.0", "len": 16}})


def ruleset(*rules: list[Any], policy: str = "accept", others: dict[str, list[list[Any]]] | None = None) -> Any:
    """Return a ruleset with one input chain of these rules, and other chains to jump to."""
    base = {"family": "inet", "table": "filter"}
    objects: list[Any] = [
        {"metainfo": {"version": "1"}},
        {"table": {"family": "inet", "name": "filter"}},
        {"chain": {**base, "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": policy}},
    ]
    for name, chain in {"input": list(rules), **(others or {})}.items():
        objects += [{"rule": {**base, "chain": name, "expr": each}} for each in chain]
    objects.append({"set": {**base, "name": "ours", "elem": [22, {"range": [7460, 7470]}]}})
    return {"nftables": objects}


@pytest.mark.parametrize(
    ("rules", "fate"),
    [
        ([], Fate.PASSES),
        ([[port("tcp", 7464), DROP]], Fate.BLOCKED),
        ([[port("tcp", 7464), {"counter": {"packets": 0, "bytes": 0}}, {"reject": None}]], Fate.BLOCKED),
        ([[port("udp", 7464), DROP]], Fate.PASSES),
        ([[port("tcp", {"set": [22, 7464]}), DROP]], Fate.BLOCKED),
        ([[port("tcp", {"range": [7000, 8000]}), DROP]], Fate.BLOCKED),
        ([[port("tcp", "@ours"), DROP]], Fate.BLOCKED),
        ([[meta("iifname", "eth0"), DROP]], Fate.BLOCKED),
        ([[meta("iifname", "eth*"), DROP]], Fate.BLOCKED),
        ([[meta("iifname", "lo"), ACCEPT], [DROP]], Fate.BLOCKED),
        ([[meta("iifname", "lo", "!="), ACCEPT], [DROP]], Fate.PASSES),
        ([[meta("l4proto", "tcp"), ACCEPT], [DROP]], Fate.PASSES),
        ([[STATE, ACCEPT], [DROP]], Fate.BLOCKED),
        ([[SOURCE, ACCEPT], [DROP]], Fate.UNCLEAR),
        ([[SOURCE, DROP]], Fate.PASSES),
        ([[{"xt": {"type": "match"}}, ACCEPT], [DROP]], Fate.UNCLEAR),
        ([[{"limit": {"rate": 5}}, ACCEPT], [DROP]], Fate.UNCLEAR),
    ],
)
def test_a_rule_decides_over_a_packet_that_fits_it(rules, fate):
    assert judge(ruleset(*rules), CONTROL).fate is fate


def test_the_policy_decides_over_what_no_rule_fits():
    assert judge(ruleset([STATE, ACCEPT], policy="drop"), CONTROL) == (
        Fate.BLOCKED,
        Blocker("inet", "filter", "input"),
    )
    open_rules = ruleset([STATE, ACCEPT], [port("tcp", 7464), ACCEPT], policy="drop")
    assert judge(open_rules, CONTROL).fate is Fate.PASSES
    assert judge(open_rules, MDNS).fate is Fate.BLOCKED


def test_jumps_are_followed_and_returned_from():
    others = {"lan": [[port("tcp", 7464), ACCEPT], [{"return": None}]], "loop": [[{"jump": {"target": "loop"}}]]}
    jumps = ruleset([{"jump": {"target": "lan"}}], policy="drop", others=others)
    assert judge(jumps, CONTROL).fate is Fate.PASSES
    assert judge(jumps, MDNS).fate is Fate.BLOCKED
    assert (
        judge(ruleset([{"goto": {"target": "lan"}}], [ACCEPT], policy="drop", others=others), MDNS).fate is Fate.BLOCKED
    )
    assert judge(ruleset([{"jump": {"target": "loop"}}], others=others), MDNS).fate is Fate.PASSES


def test_a_table_that_is_left_out_decides_nothing_and_a_family_of_another_version_neither():
    blocking = ruleset([DROP])
    assert judge(blocking, CONTROL, but="filter").fate is Fate.PASSES
    for each in blocking["nftables"]:
        for kind in ("chain", "rule"):
            if kind in each:
                each[kind]["family"] = "ip6"
    assert judge(blocking, CONTROL).fate is Fate.PASSES
    assert judge(blocking, CONTROL._replace(version=6)).fate is Fate.BLOCKED


def test_tables_are_named():
    assert tables(ruleset()) == {("inet", "filter")}


@pytest.mark.parametrize(
    "odd", [{}, {"nftables": []}, {"nftables": ["x", {"rule": {"family": "a", "table": "b", "chain": "c"}}]}]
)
def test_an_odd_ruleset_lets_pass(odd):
    assert judge(odd, CONTROL).fate is Fate.PASSES
