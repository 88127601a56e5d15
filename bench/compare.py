"""Measures a commit and this tree in turn, and prints the table that a commit's claim of speed carries.

    build/compare/COMMIT        a worktree of the commit, its extensions built
                     /.venv     an environment with this one's packages, and `conflux` of that tree

WHAT=tcp     one TCP flow through a realm of two (bench/tcp_flow.py, this tree's, runs either program)
WHAT=parts   pytest-benchmark over each tree's own bench/parts; the hot paths that both have are compared

The trees take turns at going first, so that a machine that grows warm or busy favours neither.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
WORKTREES = TREE / "build" / "compare"

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Tree:
    """A source tree whose extensions are built.  name: as the table calls it."""

    name: str
    path: Path

    @property
    def python(self) -> Path:
        """The interpreter that finds this tree's packages."""
        return self.path / ".venv" / "bin" / "python"

    @property
    def program(self) -> Path:
        """The `conflux` command of this tree."""
        return self.path / ".venv" / "bin" / "conflux"


# ── trees ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def tree_of(commit: str) -> Tree:
    """Return a commit's tree, made and built if it was not yet.  Raises CalledProcessError."""
    name = said("git", "rev-parse", "--short", "--verify", f"{commit}^{{commit}}")
    tree = Tree(name, WORKTREES / name)
    if not tree.path.exists():
        subprocess.run(["git", "worktree", "prune"], cwd=TREE, check=True)
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree.path, name], cwd=TREE, check=True)
    if not tree.program.exists():
        make_environment(tree)
    build_extensions(tree)
    return tree


def make_environment(tree: Tree) -> None:
    """Make an environment in which the tree comes before the packages of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tree.path / ".venv"], check=True)
    packages = Path(said(tree.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    ours = [place for place in sys.path if place.endswith("-packages")]
    (packages / "tree.pth").write_text("".join(f"{place}\n" for place in (tree.path, *ours)))
    start = f"#!{tree.python}\nimport sys\nfrom conflux.cli.parser import main\nsys.exit(main())\n"
    if not (tree.path / "conflux" / "cli" / "parser.py").exists():  # before the command line had a package
        start = start.replace("conflux.cli.parser", "conflux.cli")
    tree.program.write_text(start)
    tree.program.chmod(0o755)


def build_extensions(tree: Tree) -> None:
    """Build what changed of a tree's extensions, in place."""
    subprocess.run([tree.python, "setup.py", "--quiet", "build_ext", "--inplace"], cwd=tree.path, check=True)


def said(*command: str | Path) -> str:
    """Return what a command prints, run in this tree.  Raises CalledProcessError."""
    return subprocess.run(command, cwd=TREE, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


# ── measuring ────────────────────────────────────────────────────────────────────────────────────────────────────────


def tcp(tree: Tree) -> Figures:
    """Measure one flow through two daemons of the tree."""
    enter = TREE / "tests" / "lab" / "rig" / "enter.py"
    lines = said(sys.executable, enter, TREE / "bench" / "tcp_flow.py", tree.program).splitlines()
    figures: Figures = json.loads(lines[-1])
    return figures


def parts(tree: Tree) -> Figures:
    """Measure the tree's hot paths: the median of each, in microseconds."""
    benches = next(place for place in ("bench/parts", "bench") if (tree.path / place).exists())
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "bench.json"
        command: list[str | Path] = [tree.python, "-m", "pytest", "-q", benches, "--benchmark-only"]
        command += ["--benchmark-quiet", "-p", "no:cacheprovider", f"--benchmark-json={report}"]
        subprocess.run(command, cwd=tree.path, check=True, stdout=subprocess.DEVNULL)
        rows = json.loads(report.read_text())["benchmarks"]
    return {f"{row['name']} (µs)": row["stats"]["median"] * 1e6 for row in rows}


WHAT: Mapping[str, Callable[[Tree], Figures]] = {"tcp": tcp, "parts": parts}


def alternate(trees: Sequence[Tree], measure: Callable[[Tree], Figures], round_count: int) -> dict[str, list[Figures]]:
    """Measure every tree once a round; the one that goes first changes each time."""
    found: dict[str, list[Figures]] = {tree.name: [] for tree in trees}
    for number in range(round_count):
        for tree in trees if number % 2 == 0 else reversed(trees):
            print(f"round {number + 1} of {round_count}: {tree.name}", file=sys.stderr, flush=True)
            found[tree.name].append(measure(tree))
    return found


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────


def table(base: Sequence[Figures], ours: Sequence[Figures], names: tuple[str, str]) -> str:
    """Return median, least and most of each figure that both have, and the ratio of the medians."""
    width = max(map(len, base[0]), default=0)
    lines = [f"{'':{width}}  {names[0]:>30}  {names[1]:>30}  ratio"]
    for figure in base[0]:
        if all(figure in round_ for round_ in (*base, *ours)):
            before, after = ([round_[figure] for round_ in rounds] for rounds in (base, ours))
            ratio = statistics.median(after) / statistics.median(before)
            lines.append(f"{figure:{width}}  {spread(before):>30}  {spread(after):>30}  {ratio:5.3f}")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Return "median (least to most)"."""
    return f"{number(statistics.median(values))} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """Return a value with about four digits."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def main() -> int:
    """Measure as the command line says."""
    options = argparse.ArgumentParser(description="Measure a commit and this tree in turn.")
    options.add_argument("base", help="the commit to compare with")
    options.add_argument("--what", choices=tuple(WHAT), default="tcp")
    options.add_argument("--rounds", type=int, default=6)
    asked = options.parse_args()
    base, ours = tree_of(asked.base), Tree("this tree", TREE)
    build_extensions(ours)
    load = os.getloadavg()[0]
    found = alternate((base, ours), WHAT[asked.what], asked.rounds)
    print(f"{asked.what}, {asked.rounds} rounds in turn, median (least to most); load average before: {load:.1f}\n")
    print(table(found[base.name], found[ours.name], (base.name, ours.name)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
