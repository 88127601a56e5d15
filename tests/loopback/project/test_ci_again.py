"""Tests that fail run once more by themselves; twice failed is failed.  `.ci/again` for pytest, `.ci/labs` for labs.

Both run here in a tree of their own; in place of a small machine for each lab, that tree has a plain process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kit.tree import TREE

FAILS_ONCE = """
import pathlib
def test_fails_once():
    mark = pathlib.Path(__file__).with_suffix(".mark")
    before = mark.exists()
    mark.touch()
    assert before
"""
FAILS = "def test_fails():\n    assert False\n"
PASSES = "def test_passes():\n    pass\n"
NO_TEST = "raise ImportError('no test here')\n"
PLAIN_PROCESS = "import os, sys\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"


@pytest.fixture(params=["again", "labs"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Return a command that runs the tests of tmp_path/tests."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "tests/lab/rig").mkdir(parents=True)
    (tmp_path / "tests/lab/rig/enter.py").write_text(PLAIN_PROCESS)
    script = shutil.copy(TREE / ".ci" / request.param, tmp_path / ".ci" / request.param)
    name = ["unit"] if request.param == "again" else []
    return [sys.executable, script, *name, str(tmp_path / "tests")]


def run(command: list[str], tests: dict[str, str], **environment: str) -> subprocess.CompletedProcess[str]:
    for name, text in tests.items():
        (Path(command[-1]) / f"test_{name}.py").write_text(text)
    ours = {name: value for name, value in os.environ.items() if name != "CONFLUX_ONCE"}
    ours["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # half of the time a pytest takes to start
    return subprocess.run(command, env={**ours, **environment}, capture_output=True, text=True, check=False)


def test_what_passes_by_itself_has_passed_and_is_named(command: list[str]) -> None:
    done = run(command, {"once": FAILS_ONCE, "passes": PASSES})
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.rpartition("/")[2] for line in done.stdout.splitlines() if "failed once" in line] in (
        ["test_once.py"],
        ["test_once.py::test_fails_once"],
    )


def test_what_fails_twice_has_failed(command: list[str]) -> None:
    done = run(command, {"fails": FAILS, "once": FAILS_ONCE, "passes": PASSES})
    assert done.returncode == 1, done.stdout + done.stderr


def test_what_cannot_run_has_failed(command: list[str]) -> None:
    assert run(command, {"broken": NO_TEST, "passes": PASSES}).returncode != 0


def test_at_night_there_is_no_second_run(command: list[str]) -> None:
    assert run(command, {"once": FAILS_ONCE}, CONFLUX_ONCE="1").returncode == 1


def test_without_a_failure_everything_runs_once(command: list[str]) -> None:
    done = run(command, {"passes": PASSES})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "once" not in done.stdout
