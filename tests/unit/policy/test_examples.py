"""The rule files that the documentation gives: nothing is wrong in them, and their tests notice every rule."""

from __future__ import annotations

import pytest
import tomli
from kit.tree import DOCS

from conflux.policy.checks import examine
from conflux.policy.reading import read_untrusted

EXAMPLES = sorted((DOCS / "examples" / "policy").glob("*.toml"))
NOW = 1_799_140_000  # in the vendor's week
BLOCK = "[[allow]]\n"


def found(text: str):
    return examine(read_untrusted(text.encode()), None, now_unix=NOW)


def blocks(text: str) -> list[str]:
    """Return a file's rules, each from its header to the next one."""
    rules = text.split(BLOCK)[1:]
    return [BLOCK + each.split("[[test]]")[0] for each in rules]


def widened(block: str) -> str:
    (table,) = tomli.loads(block)["allow"]
    sources = f"from = {table['from']}"
    return f'{BLOCK}name = "wide"\n{sources}\nto = ["*", "exit", "10.0.0.0/8", "192.168.0.0/16"]\non = ["any"]\n'


def test_there_are_five():
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_right_and_its_tests_hold(file):
    said = found(file.read_text())
    assert said[:4] == ((), (), (), ())
    assert said.aims >= 5


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_tests_of_an_example_notice_a_rule_that_is_gone_or_opened_wide(file):
    text = "".join(line for line in file.read_text().splitlines(keepends=True) if not line.startswith("subnets"))
    for block in blocks(text):
        without = text.replace(block, "")
        assert without != text
        assert found(without).failed
        wide = text.replace(block, widened(block))
        assert not found(wide).faults
        assert found(wide).failed
