"""What trouble.md says that the program says, it says."""

from __future__ import annotations

import re
from functools import cache

import pytest
from kit.tree import DOCS, TREE

HEADER = "| It says | "
# What stands for a value: the program has a placeholder there.
VALUES = re.compile(r"/dev/net/tun|conflux0|\.\.\.|\bN\b|'NAME'")
# The states and reasons are words of status-and-drops.md; test_words.py has those.
WORD = re.compile(r"(?:dial: )?[a-z-]+")


def quotations() -> list[str]:
    """Return what stands between backticks in the first column of the tables that begin with "It says"."""
    found = []
    is_told = False
    for line in (DOCS / "how-to" / "trouble.md").read_text().splitlines():
        is_told = line.startswith("|") and (is_told or line.startswith(HEADER))
        if is_told:
            found += re.findall(r"`([^`]+)`", line.split("|")[1])
    return [quoted for quoted in found if not WORD.fullmatch(quoted)]


@cache
def program() -> str:
    """Return the text of the program, strings that go on in the next line put together."""
    files = (file for folder in ("conflux", ".ci") for file in (TREE / folder).rglob("*") if file.is_file())
    code = "\n".join(file.read_text() for file in files if file.suffix in (".py", ""))
    return re.sub(r'"\s*\n\s*f?"', "", code)


@pytest.mark.parametrize("quoted", quotations())
def test_the_program_says_what_the_page_quotes(quoted):
    parts = [part.strip() for part in VALUES.split(quoted)]
    assert [part for part in parts if part and part not in program()] == []


def test_there_are_quotations():
    assert len(quotations()) > 8
