"""`conflux doctor`: what is good and bad here, line by line, and what to do."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from typing import NamedTuple

from conflux.cli.observe import print_json
from conflux.doctor.examine import findings
from conflux.doctor.finding import Finding, Grade
from conflux.doctor.subject import subject

WIDTH = 13  # of the longest name of a check
MARK = {Grade.GOOD: "good", Grade.BAD: "BAD ", Grade.UNSEEN: "?   "}
COLUMNS_LEAST = 40


class Examined(NamedTuple):
    """The answer to `conflux doctor`.  good: nothing is bad."""

    good: bool
    findings: tuple[Finding, ...]


def doctor(options: argparse.Namespace) -> int:
    """Print every finding as it comes; exit code 1 if something is wrong."""
    found: list[Finding] = []
    columns = max(COLUMNS_LEAST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 0
    for each in findings(subject(options.config, options.state_dir), deep=not options.quick):
        found.append(each)
        if not options.json:
            sys.stdout.write(line(each, columns) + "\n")
            sys.stdout.flush()
    wrong = sum(each.grade is Grade.BAD for each in found)
    hidden = sum(each.grade is Grade.UNSEEN for each in found)
    if options.json:
        print_json(Examined(not wrong, tuple(found)))
    else:
        sys.stdout.write(f"\n{_summary(wrong, hidden)}\n")
    return 1 if wrong else 0


def line(finding: Finding, columns: int = 0) -> str:
    """Return a finding for a person.  columns: of the terminal; 0: lines may be of any length."""
    head = f"{MARK[finding.grade]}  {finding.check.ljust(WIDTH)}  "
    indent = " " * (len(head) if columns == 0 or columns >= 2 * COLUMNS_LEAST else 6)
    text = finding.text
    if columns:
        text = textwrap.fill(
            finding.text,
            columns,
            initial_indent=head,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )[len(head) :]
    return f"{head}{text}" + (f"\n{indent}-> {finding.remedy}" if finding.remedy else "")


def _summary(wrong: int, hidden: int) -> str:
    found = "nothing is wrong" if not wrong else "1 thing is wrong" if wrong == 1 else f"{wrong} things are wrong"
    return f"{found}; {hidden} not seen" if hidden else found
