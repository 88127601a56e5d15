"""Break one line at a time, and see that the tests which claim to hold it fail: run.py [NAME...]

A mutant is a patch in this directory.  Its head says which claim the line stands for, and which tests must fail:

    Claim: a relay keeps a route no longer than the sender asked for.
    Tests: tests/unit/route
    --- a/conflux/route/relays.py
    +++ b/conflux/route/relays.py

Every mutant is applied in a copy of the tree, build/mutants, where its tests run; then it is taken back.  Exits with 1
if a mutant survives, that is if all its tests pass, or if it does not apply any more.

First all these tests run without any mutant, and build/mutants.log has what they say: one that fails then, and fails
once more alone, ends it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[1]
COPY = TREE / "build" / "mutants"
LOG = TREE / "build" / "mutants.log"
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "build", "dist")
WITHIN_S = 120  # the tests of one mutant: some mutants make them hang
HUNG = -1  # in the place of an exit status


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"  # a test failed, as it should
    SURVIVED = "SURVIVED"  # no test holds the claim
    STALE = "STALE"  # the patch does not apply any more
    UNJUDGED = "UNJUDGED"  # what is broken no longer builds, or there are no such tests


@dataclass(frozen=True, slots=True)
class Mutant:
    """One patch.  tests: files, folders or tests, as pytest takes them."""

    path: Path
    claim: str
    tests: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Mutant:
        """Return the mutant of a file.  Raises SystemExit if its head lacks a claim or tests."""
        head = dict(re.findall(r"^(Claim|Tests): (.+)$", path.read_text().partition("\n---")[0], re.MULTILINE))
        if head.keys() != {"Claim", "Tests"}:
            raise SystemExit(f"{path}: the head has to have one line Claim and one line Tests")
        return cls(path, head["Claim"], tuple(head["Tests"].split()))

    @property
    def is_compiled(self) -> bool:
        """Whether the extensions have to be built again."""
        return "\n+++ b/cext/" in self.path.read_text()


def run(*command: str | Path, within_s: float = WITHIN_S) -> subprocess.CompletedProcess[str]:
    """Run a command in the copy, and let it find the copy's modules and no repository above."""
    environment = os.environ | {"PYTHONPATH": str(COPY), "GIT_CEILING_DIRECTORIES": str(COPY.parent)}
    try:
        return subprocess.run(
            command, cwd=COPY, env=environment, capture_output=True, text=True, timeout=within_s, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, HUNG, f"FAILED: hung for {within_s:.0f} s", "")


def build() -> bool:
    """Compile what changed in the copy; say whether that was possible."""
    return run(sys.executable, "setup.py", "-q", "build_ext", "--inplace").returncode == 0


def pytest(*tests: str, within_s: float = WITHIN_S) -> tuple[int, str]:
    """Run tests until the first fails; return pytest's exit status, and that test or the last line of the output."""
    done = run(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests, within_s=within_s)
    said = (done.stdout + done.stderr).strip().splitlines() or [""]
    failed = [line.split(" - ")[0].split("/")[-1] for line in said if line.startswith("FAILED")]
    return done.returncode, failed[0] if failed else said[-1]


def failing(tests: list[str]) -> list[str]:
    """Run tests without any mutant; return those that fail twice, with what they say in LOG."""
    again = tests
    LOG.unlink(missing_ok=True)
    for _ in range(2):  # a machine that does much else may fail one that has to be in time
        command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *again)
        done = run(*command, within_s=WITHIN_S * len(tests))
        with LOG.open("a") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode == 0:
            return []
        again = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE) or tests
    return again


def judge(mutant: Mutant) -> tuple[Fate, str]:
    """Return what becomes of a mutant, and the test that failed or why it cannot be judged."""
    if run("git", "apply", mutant.path).returncode != 0:
        return Fate.STALE, "the patch does not apply"
    try:
        if mutant.is_compiled and not build():
            return Fate.UNJUDGED, "it does not compile"
        status, said = pytest(*mutant.tests)
    finally:
        run("git", "apply", "--reverse", mutant.path)
        if mutant.is_compiled:
            build()
    if status == HUNG:  # is it the mutant, or a machine that does much else?
        status, said = (1, said) if pytest(*mutant.tests)[0] == 0 else (HUNG, f"{said}, and without the mutant too")
    return {0: Fate.SURVIVED, 1: Fate.KILLED}.get(status, Fate.UNJUDGED), said


def main() -> int:
    """Judge all mutants, or those named; print one line each."""
    parser = argparse.ArgumentParser(description="Break one line at a time, and see that a test fails.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a patch, without .patch; all if none is named")
    names = parser.parse_args().names
    mutants = [Mutant.read(path) for path in sorted(HERE.glob("*.patch")) if not names or path.stem in names]
    if unknown := set(names) - {mutant.path.stem for mutant in mutants}:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")

    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(TREE, COPY, ignore=LEFT_OUT, symlinks=True)
    for made in [
        *(TREE / "build").glob("objects-*"),
        *(TREE / "build").glob("lib.*"),
    ]:  # to compile what a mutant breaks
        shutil.copytree(made, COPY / "build" / made.name)
    if (broker := TREE / "build" / "nats-server").exists():  # Debian's, unpacked for tests
        (COPY / "build" / broker.name).symlink_to(broker)
    if not build():
        raise SystemExit("the extensions cannot be built in build/mutants")
    everything = sorted({test for mutant in mutants for test in mutant.tests})
    if found := failing(everything):
        what = "a test fails without any mutant, or a file that a patch names is missing"
        raise SystemExit(f"{what}, see {LOG.relative_to(TREE)}: {found[0]}")

    counts = dict.fromkeys(Fate, 0)
    for mutant in mutants:
        started = time.monotonic()
        fate, said = judge(mutant)
        counts[fate] += 1
        print(f"{fate:<9} {mutant.path.stem:<34} {time.monotonic() - started:5.0f} s  {said}", flush=True)
        if fate is not Fate.KILLED:
            print(f"          {mutant.claim}", flush=True)
    print(f"{len(mutants)} mutants: {', '.join(f'{count} {fate.lower()}' for fate, count in counts.items())}")
    return int(counts[Fate.KILLED] < len(mutants))


if __name__ == "__main__":
    sys.exit(main())
