"""`conflux doctor`: lines for a person, at any width."""

from __future__ import annotations

import pytest

from conflux.cli import doctor
from conflux.doctor.finding import Check, bad, good, unseen

LONG = bad(Check.MULTICAST, "eth0 10.7.1.11: a question was sent and not heard here: a firewall drops it", "sudo x")


def test_a_line_begins_with_the_grade_and_the_check_and_a_remedy_has_its_own():
    assert doctor.line(good(Check.TUN, "is up")) == "good  tun            is up"
    first, second = doctor.line(LONG).splitlines()
    assert first.startswith("BAD   multicast      eth0")
    assert second.split() == ["->", "sudo", "x"]
    assert doctor.line(unseen(Check.LOG, "no")).startswith("?     log")


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_no_word_is_cut_and_no_line_is_wider_than_the_terminal(columns):
    lines = doctor.line(LONG, columns).splitlines()
    assert all(len(line) <= columns for line in lines)
    assert " ".join(" ".join(lines).split()) == " ".join(doctor.line(LONG).split())
