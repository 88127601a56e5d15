"""docs/how-to/write-rules.md: its file is right, and the outputs on the page are what the command prints."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

import pytest
from kit.tree import DOCS

from conflux.cli.policy import check

PAGE = (DOCS / "how-to" / "write-rules.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILE = "\n".join(text for kind, text in BLOCKS if kind == "toml")
OUTPUTS = [text for kind, text in BLOCKS if not kind]


@pytest.mark.parametrize(
    ("number", "before", "after"),
    [(0, "", ""), (1, 'from = ["tag:guest"]', 'from = ["tags:guest"]'), (2, 'closed = ["tag:guest"]\n', "")],
)
def test_the_command_prints_what_the_page_shows(number, before, after, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.toml").write_text(FILE.replace(before, after, 1))
    assert check(Namespace(file=Path("rules.toml"), members=[], json=False)) == (1 if number else 0)
    assert capsys.readouterr().out == OUTPUTS[number]


def test_the_page_shows_three_outputs_and_one_file_in_two_parts():
    assert len(OUTPUTS) == 3
    assert FILE.count("version = 1") == 1
