"""The plan of the house: which room may import which, who may do I/O, and that no two modules import each other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from kit.tree import TREE, nodes

# From the ground up.  A room imports rooms of lower floors, and itself; never one of its own floor or above.
FLOORS = (
    ("errors",),
    ("ids", "record", "budget"),
    ("usage",),
    ("crypto", "host", "search", "policy"),
    ("anchor", "realm"),
    ("state", "carrier", "control"),
    ("datapath", "link", "stream", "route", "config"),
    ("node",),
    ("shell", "sim"),
    ("api",),
    ("daemon", "bench", "broker", "web"),
    ("doctor",),
    ("board",),
    ("cli",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# They decide; bytes, time and commands are handed to them.  Of control/ the channels of lan/ and nats/ are shells.
MACHINES = ("realm", "search", "usage", "link", "stream", "route", "node", "sim", "control", "policy")
SHELLS = ("conflux.control.lan", "conflux.control.nats")
FORBIDDEN_IN_MACHINES = frozenset({"asyncio", "os", "select", "socket", "ssl", "subprocess", "threading", "time"})
FOLDERS = ("conflux", "cext", "tests", "bench")
LINE_COUNT_MAX = 600  # a longer file probably holds a second noun
SLOW_COUNT_MAX = 8
FORBIDDEN_IN_UNIT_TESTS = frozenset({"asyncio", "socket", "subprocess", "threading"})


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package, by name."""
    files = (TREE / "conflux").rglob("*.py")
    return {".".join(file.relative_to(TREE).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


@cache
def imported(file: Path) -> tuple[str, ...]:
    """Return what a file imports, wherever in it: "socket", "conflux.ids.NodeId"."""

    def names() -> Iterator[str]:
        for node in nodes(file):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    return tuple(names())


def module_of(name: str) -> str | None:
    """Return the module of the package that an imported name belongs to, or None."""
    while name not in modules():
        name = name.rpartition(".")[0]
        if not name:
            return None
    return name


def room(module: str) -> str | None:
    """Return the room of a module; None for the package itself and `python -m conflux`."""
    parts = module.split(".")
    return None if len(parts) == 1 or parts[1] == "__main__" else parts[1]


def imports() -> Iterator[tuple[str, str]]:
    """Yield every pair of modules of which the first imports the second."""
    for module, file in modules().items():
        for name in imported(file):
            target = module_of(name)
            if target not in (None, "conflux", module):
                assert target is not None
                yield module, target


def outside(files: Iterator[Path], forbidden: frozenset[str]) -> list[str]:
    """Return which files import what is forbidden."""
    return [
        f"{file.relative_to(TREE)} imports {name}"
        for file in sorted(files)
        for name in imported(file)
        if name.split(".")[0] in forbidden
    ]


def test_every_room_has_a_floor():
    assert {room(module) for module in modules()} - {None} == set(FLOOR_OF)


def test_nobody_imports_a_floor_above():
    up = [
        f"{importer} imports {target}"
        for importer, target in imports()
        if (above := room(target)) is not None
        and (below := room(importer)) is not None
        and above != below
        and FLOOR_OF[above] >= FLOOR_OF[below]
    ]
    assert up == []


def test_no_modules_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {}
    for importer, target in imports():
        graph.setdefault(importer, set()).add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("name", MACHINES)
def test_machines_do_no_input_or_output_and_read_no_clock(name):
    files = (file for module, file in modules().items() if room(module) == name and not module.startswith(SHELLS))
    assert outside(files, FORBIDDEN_IN_MACHINES) == []


def test_unit_tests_use_no_socket_process_thread_or_event_loop():
    named = re.compile(rf"^ *(?:import|from) .*\b(?:{'|'.join(FORBIDDEN_IN_UNIT_TESTS)})\b", re.MULTILINE)
    files = (file for file in (TREE / "tests" / "unit").rglob("*.py") if named.search(file.read_text()))
    assert outside(files, FORBIDDEN_IN_UNIT_TESTS) == []


def test_few_tests_are_left_out_of_make_quick_and_each_says_why():
    """What need not take long is made quick instead: what a mark hides at each save is broken for longer."""
    marked = re.compile(r"pytest\.mark\.slow\b(?:\(\s*(?:\"(.*)\")?)?")
    files = [file for folder in ("unit", "vectors") for file in (TREE / "tests" / folder).rglob("test_*.py")]
    found = [(file.name, why) for file in files if file != Path(__file__) for why in marked.findall(file.read_text())]
    assert [name for name, why in found if not why] == []
    assert 0 < len(found) <= SLOW_COUNT_MAX


def test_no_test_changes_where_modules_are_found():
    edits = "sys" + ".path"
    changing = [file for file in (TREE / "tests").rglob("test_*.py") if edits in file.read_text()]
    assert changing == []


def test_a_long_file_says_in_its_first_lines_why_it_is_one():
    files = (
        file for kind in ("py", "pyx", "c", "h") for folder in FOLDERS for file in (TREE / folder).rglob(f"*.{kind}")
    )
    written = (file for file in files if file.suffix == ".pyx" or not file.with_suffix(".pyx").exists())
    lines_of = {file: file.read_text().splitlines() for file in written}
    silent = [
        f"{file.relative_to(TREE)} has {len(lines)} lines"
        for file, lines in lines_of.items()
        if len(lines) > LINE_COUNT_MAX and "one file" not in "\n".join(lines[:12])
    ]
    assert silent == []
