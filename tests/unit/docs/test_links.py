"""Every link of a page leads to a file that is there, and to a heading in it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from kit.pages import name, pages, prose
from kit.tree import DOCS

LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def anchors(page: Path) -> set[str]:
    """Return what a link may name in a page: its headings in lower case, without punctuation, spaces as hyphens."""
    headings = (line.lstrip("#").strip() for _, line in prose(page) if line.startswith("#"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    found = []
    for number, line in prose(page):
        for target in LINK.findall(line):
            if target.startswith(("https://", "http://")):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                found.append(f"{number}: {target}")
    return found


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_link_leads_to_a_file_and_a_heading(page):
    assert broken(page) == []


def test_a_link_to_no_heading_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One thing\n\n[good](#one-thing) [bad](#another) [gone](gone.md)\n")
    assert broken(page) == ["3: #another", "3: gone.md"]


def test_the_index_names_every_page_of_docs():
    docs = [page for page in pages() if page.is_relative_to(DOCS)]
    index = DOCS / "README.md"
    named = {(index.parent / target.partition("#")[0]).resolve() for target in LINK.findall(index.read_text())}
    assert [name(page) for page in docs if page != index and page not in named] == []
