"""What a package has besides the program: the manual and the completions, made from the grammar of the commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kit.tree import TREE

from conflux.cli.parser import GRAMMARS

DATE_S = 1_700_000_000  # 2023-11-14
COMMANDS = sorted(name for names in GRAMMARS.values() for name in names)

# Asks as readline does: the words, and in the last one the cursor.
ASK_BASH = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
_shtab_conflux conflux "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
ASK_FISH = 'source $argv[1]; complete --do-complete "$argv[2]"'

DAEMON = '#!/bin/sh\n[ "$*" != hosts ] || printf "# realm home\\nfd00::1  sensor\\nfd00::2  shed\\n"\n'


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("papers")
    make(place)
    return place


def make(place: Path) -> None:
    """Write the papers, as packaging/layout has them written."""
    made_at = {**os.environ, "SOURCE_DATE_EPOCH": str(DATE_S)}
    subprocess.run([sys.executable, TREE / "packaging" / "papers.py", place], check=True, cwd=TREE, env=made_at)


@pytest.fixture
def with_daemon(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `conflux hosts` names two nodes."""
    program = tmp_path / "conflux"
    program.write_text(DAEMON)
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def without_conflux(home: Path) -> dict[str, str]:
    return {**os.environ, "PATH": "/usr/bin:/bin", "HOME": str(home)}


def bash(papers: Path, *words: str, env: dict[str, str] | None = None) -> list[str]:
    """Return what bash completes the last word to."""
    done = subprocess.run(
        ["bash", "-c", ASK_BASH, "bash", papers / "conflux.bash", *words], env=env, capture_output=True, text=True
    )
    assert done.stderr == ""
    return sorted(done.stdout.split())


def fish(papers: Path, line: str, env: dict[str, str] | None = None) -> list[str]:
    """Return what fish completes a line to, without descriptions."""
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    done = subprocess.run(
        ["fish", "--no-config", "-c", ASK_FISH, papers / "conflux.fish", line], env=env, capture_output=True, text=True
    )
    assert done.stderr == ""
    return sorted(each.partition("\t")[0] for each in done.stdout.splitlines())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_takes_its_script(papers: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", papers / f"conflux.{shell}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_every_command(papers: Path) -> None:
    assert bash(papers, "conflux", "") == COMMANDS


def test_fish_completes_every_command(papers: Path) -> None:
    assert set(COMMANDS) <= set(fish(papers, "conflux "))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("realm", "invit"), ["invite", "invites"]),
        (("realm", "invites", "c"), ["cancel"]),
        (("status", "--j"), ["--json"]),
        (("route", "move", "--v"), ["--via"]),
        (("join", "--token-file", "/etc/passw"), ["/etc/passwd", "/etc/passwd-"]),
    ],
)
def test_commands_options_and_files_are_completed(papers: Path, words: tuple[str, ...], found: list[str]) -> None:
    assert set(bash(papers, "conflux", *words)) <= set(found)
    assert found[0] in bash(papers, "conflux", *words)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("ping", ""), ["sensor", "shed"]),
        (("ping", "sen"), ["sensor"]),
        (("route", ""), ["move", "sensor", "shed"]),
        (("route", "move", "sh"), ["shed"]),
    ],
)
def test_nodes_are_completed_as_the_daemon_knows_them(
    papers: Path, with_daemon: dict[str, str], words: tuple[str, ...], found: list[str]
) -> None:
    assert bash(papers, "conflux", *words, env=with_daemon) == found
    assert fish(papers, " ".join(("conflux", *words)), env=with_daemon) == found


def test_without_a_daemon_no_node_and_no_word_of_it(papers: Path, tmp_path: Path) -> None:
    assert bash(papers, "conflux", "ping", "", env=without_conflux(tmp_path)) == []


def test_the_manual_has_every_command_with_its_examples(papers: Path) -> None:
    page = (papers / "conflux.8").read_text()
    sections = re.findall(r"^\.SS conflux (.+)$", page, re.MULTILINE)
    assert {words.split()[0] for words in sections} == set(COMMANDS)
    assert "route move" in sections
    assert "conflux route move sensor \\-\\-via gate" in page
    assert page.startswith('.TH "CONFLUX" 8 "2023-11-14"')


def test_the_manual_of_the_configuration_has_every_key(papers: Path) -> None:
    page = (papers / "conflux.toml.5").read_text()
    table = (TREE / "docs" / "reference" / "configuration.md").read_text()
    keys = re.findall(r"^\| `([a-z0-9_.]+)` \|", table, re.MULTILINE)
    assert len(keys) > 20
    assert [key for key in keys if f"\n\\fB{key}\\fR" not in page] == []


def test_roff_takes_both_pages_without_a_word(papers: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    for page in papers.glob("*.[58]"):
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-rLL=78n", page], capture_output=True, text=True, check=True
        )
        assert done.stderr == "", page.name


def test_papers_are_the_same_bytes_each_time(papers: Path, tmp_path: Path) -> None:
    make(tmp_path)
    for paper in papers.iterdir():
        assert paper.read_bytes() == (tmp_path / paper.name).read_bytes(), paper.name
