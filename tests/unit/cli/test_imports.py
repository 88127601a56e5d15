"""What a command that looks loads: people and scripts call them often, and each module costs them time."""

import ast
from functools import cache
from pathlib import Path

import pytest
from kit.tree import TREE

# Each of them takes as long as all that such a command does by itself.
SLOW = {"asyncio", "dataclasses", "inspect", "random", "shutil", "ssl", "subprocess", "tempfile", "textwrap", "uvloop"}
# Each takes a millisecond of the thirty that all of `conflux status` takes, so a module of its path does without.
FREQUENT = SLOW | {"importlib", "ipaddress", "locale", "pathlib", "tomli", "typing", "conflux.config.settings"}


@cache
def loaded(module: str) -> frozenset[str]:
    """Return what is imported with a module of ours: at its top, and at the top of those of ours that it imports."""
    found: set[str] = set()
    for node in ast.parse(file_of(module).read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {node.module, *(name for name in inner if file_of(name).exists())}
    ours = {name for name in found if name.startswith("conflux") and file_of(name).exists()}
    return frozenset(found).union(*(loaded(name) for name in ours))


def file_of(module: str) -> Path:
    """Return the file of a module of ours."""
    path = TREE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@pytest.mark.parametrize(
    "module",
    [
        "conflux.cli.entry",
        "conflux.cli.parser",
        "conflux.cli.status_grammar",
        "conflux.cli.look_grammar",
        "conflux.cli.ready",
        "conflux.cli.observe",
        "conflux.cli.context",
    ],
)
def test_status_loads_nothing_slow(module):
    assert loaded(module) & FREQUENT == set()


@pytest.mark.parametrize("module", ["conflux.cli.route", "conflux.cli.addresses"])
def test_what_else_looks_loads_nothing_slow(module):
    assert loaded(module) & SLOW == set()
