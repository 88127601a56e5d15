"""The pages are plain: no long line, a sentence is a line, and one word means one thing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.pages import name, pages, prose, without_code

COLUMNS_MAX = 120
TABLE = re.compile(r"^ *\|")
NO_PARAGRAPH = re.compile(r"^ *(?:$|#|\||[-*] |\d+\. |<)")
SENTENCE_END = re.compile(r"[.:?!;,·][*)\"]*$")
TWO_SENTENCES = re.compile(r"[a-z0-9`)\"][.?!] (?=[A-Z`*])")
ABBREVIATIONS = re.compile(r"\b(?:e\.g|i\.e|al|No|vs)\. ")

# Words that a newcomer has to read twice, or that mean another thing here; and the word to take.
WORDS = {
    r"whoever|whomever": "name who it is",
    r"nobody|somebody|anybody|everybody": "no node, another node, any node, every node",
    r"what that": "two sentences",
    r"he|she|his|her|him": "it, or its name",
    r"junctions?": "bridge",
    r"sd[- ]cards?": "disk",
    r"configuration card|memory card": "disk",
    r"utili[sz]es?": "use",
}
FORBIDDEN = [(re.compile(rf"\b(?:{words})\b", re.IGNORECASE), better) for words, better in WORDS.items()]


def too_long(page: Path) -> Iterator[str]:
    """Yield the lines that are too long; tables, code blocks and addresses may be."""
    for number, line in prose(page):
        if len(line) > COLUMNS_MAX and not TABLE.match(line) and "https://" not in line:
            yield f"{number}: {len(line)} characters"


def paragraphs(page: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the lines of text, each with its number and the line that follows it in its paragraph, or ""."""
    lines = list(prose(page))
    for (number, line), (following, after) in zip(lines, [*lines[1:], (0, "")], strict=True):
        if not line.strip() or line.startswith("#") or TABLE.match(line):
            continue
        goes_on = following == number + 1 and not NO_PARAGRAPH.match(after)
        yield number, without_code(line), after if goes_on else ""


def uneven(page: Path) -> Iterator[str]:
    """Yield the lines that hold two sentences, or a part of one."""
    for number, line, after in paragraphs(page):
        if TWO_SENTENCES.search(ABBREVIATIONS.sub("", re.sub(r"^ *\d+\. ", "", line))):
            yield f"{number}: two sentences"
        if after and not SENTENCE_END.search(line):
            yield f"{number}: the sentence goes on in the next line"


@pytest.mark.parametrize("page", pages(), ids=name)
def test_no_line_is_too_long(page):
    assert list(too_long(page)) == []


@pytest.mark.parametrize("page", pages(), ids=name)
def test_a_sentence_is_a_line(page):
    assert list(uneven(page)) == []


@pytest.mark.parametrize("page", pages(), ids=name)
def test_one_word_means_one_thing(page):
    found = [
        f"{number}: {match[0]!r}; better: {better}"
        for number, line in prose(page)
        for pattern, better in FORBIDDEN
        for match in pattern.finditer(without_code(line))
    ]
    assert found == []


def test_a_page_that_is_not_plain_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"One sentence. Another one.\n\nHalf a\nsentence.\n\n{'x' * 121}\n")
    assert list(uneven(page)) == ["1: two sentences", "3: the sentence goes on in the next line"]
    assert list(too_long(page)) == ["6: 121 characters"]
