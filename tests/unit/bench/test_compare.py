"""The table of `make compare`, and the order of its trees."""

from __future__ import annotations

from pathlib import Path

from compare import Figures, Tree, alternate, table

BASE = [{"TCP (Mbit/s)": 2000.0, "gone (ms)": 1.0}, {"TCP (Mbit/s)": 1000.0, "gone (ms)": 1.0}]
OURS = [{"TCP (Mbit/s)": 1800.0, "new (ms)": 1.0}, {"TCP (Mbit/s)": 1800.0, "new (ms)": 1.0}]


def test_table_has_median_least_most_and_the_ratio_of_medians():
    heading, row = table(BASE, OURS, ("abc1234", "this tree")).splitlines()
    assert heading.split() == ["abc1234", "this", "tree", "ratio"]
    assert row.split() == ["TCP", "(Mbit/s)", "1500", "(1000", "to", "2000)", "1800", "(1800", "to", "1800)", "1.200"]


def test_figures_that_one_tree_lacks_are_left_out():
    assert "gone" not in table(BASE, OURS, ("abc1234", "this tree"))
    assert "new" not in table(BASE, OURS, ("abc1234", "this tree"))


def test_trees_take_turns_at_going_first(capsys):
    order: list[str] = []

    def measure(tree: Tree) -> Figures:
        order.append(tree.name)
        return {"order": float(len(order))}

    found = alternate([Tree("one", Path("1")), Tree("two", Path("2"))], measure, 3)
    assert order == ["one", "two", "two", "one", "one", "two"]
    assert [round_["order"] for round_ in found["one"]] == [1.0, 4.0, 5.0]
    assert "round 3 of 3: two" in capsys.readouterr().err
