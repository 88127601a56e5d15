"""Every reason that the control channel drops for is a word of the table."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from kit.tree import TREE

from conflux.control.drop import Drop
from conflux.realm.reason import Reason


def reasons(folder: str, callee: str) -> Iterator[str]:
    """Yield the first argument of every call of that name below a folder, as it is written."""
    for file in (TREE / "conflux" / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == callee:
                yield ast.unparse(node.args[0])


def test_errors_about_a_peer_are_raised_with_a_word_of_the_tables():
    written = {*reasons("control", "RemoteProtocolError"), *reasons("realm", "RemoteProtocolError")}
    words = {f"Drop.{drop.name}" for drop in Drop} | {f"Reason.{reason.name}" for reason in Reason}
    assert written <= words


def test_drops_are_counted_under_a_word_of_the_table_or_that_of_an_error():
    written = {*reasons("control", "_drop")} - {"reason", "error.reason", "f'join-{error.reason}'"}
    assert written <= {f"Drop.{drop.name}" for drop in Drop}
