"""Every test that the threat model stands on exists under the name it is cited by."""

from __future__ import annotations

import re
from pathlib import Path

TREE = Path(__file__).parents[2]


def test_tests_the_threat_model_cites_exist():
    cited = set(re.findall(r"`(test_[a-z0-9_]+)`", (TREE / "docs/threat-model.md").read_text()))
    there = {
        name
        for file in (TREE / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert len(cited) > 50
    assert cited <= there, sorted(cited - there)
