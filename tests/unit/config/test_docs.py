"""docs/reference/configuration.md and the code agree."""

import json
import re

import pytest
from kit.tree import DOCS

from conflux.config import settings

PAGE = DOCS / "reference" / "configuration.md"
ROW = re.compile(r"^\| `(?P<key>[a-z_.0-9]+)` \| (?P<default>.+?) \| (?P<text>.+) \|$", re.MULTILINE)


def shown(default: object) -> str:
    if default is None:
        return "not set"
    if isinstance(default, tuple):
        return "`[]`"
    return f"`{json.dumps(default, default=str)}`"


def test_every_key_is_documented_with_its_default_and_meaning():
    documented = {row["key"]: (row["default"], row["text"]) for row in ROW.finditer(PAGE.read_text())}
    mark = {True: " *Live.*", False: ""}  # it changes at a reload
    assert documented == {
        key: (shown(default), entry.text + mark[entry.live]) for key, default, entry in settings.every_key()
    }


def test_keys_stand_under_the_heading_of_their_section():
    section = ""
    for line in PAGE.read_text().splitlines():
        if heading := re.match(r"## `\[(.+)\]`", line):
            section = heading[1]
        elif row := ROW.match(line):
            assert row["key"].rpartition(".")[0] == section


def test_the_toml_in_the_documentation_is_accepted():
    examples = re.findall(r"```toml\n(.+?)```", PAGE.read_text(), re.DOTALL)
    assert examples
    for example in examples:
        settings.parse(example)


@pytest.mark.parametrize("uncommented", [False, True])
def test_the_example_file_is_accepted_as_it_is_and_with_its_comments_taken_away(uncommented):
    text = (DOCS / "examples" / "conflux.toml").read_text()
    if uncommented:
        text = re.sub(r"^# (?=\[|[a-z_]+ = )", "", text, flags=re.MULTILINE)
    settings.parse(text)
