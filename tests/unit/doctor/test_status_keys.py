"""The doctor reads the keys of `conflux status` that there are."""

from __future__ import annotations

import ast
from typing import get_type_hints

import pytest
from kit.tree import TREE

from conflux.api import rows
from conflux.control.channel import NeighbourStatus

RECORDS = (rows.Status, rows.DeviceRow, rows.CredentialRow, rows.ChannelRow, rows.NodeRow, NeighbourStatus)
KNOWN = {key for record in RECORDS for key in get_type_hints(record)} | {"not-yet-valid"}
FILES = sorted(file for file in (TREE / "conflux" / "doctor").glob("*.py") if file.name != "ruleset.py")


def read(source: str) -> set[str]:
    """Return the words that a module looks up with get(), or in what the daemon said."""
    return {
        str(node.args[0].value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_key_that_is_read_is_one_of_the_status(file):
    assert read(file.read_text()) - KNOWN == set()


def test_keys_are_found():
    assert {"credential", "mtu_bytes", "neighbours"} <= set().union(*(read(file.read_text()) for file in FILES))
    assert {"expires_at", "renew_at"} <= KNOWN
