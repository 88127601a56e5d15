"""Fuzz every parser of bytes from elsewhere: run.py [--seconds N] [--keep] [TARGET...]

Each target runs for N seconds (30), as many at once as there are processors.  It starts from its seeds, the
kept corpus, and what earlier runs left in build/fuzz.  Prints a table; exits with 1 if anything was found, and says
where it is.

--keep: then replace tests/fuzz/corpus by the fewest inputs that reach everything that was reached.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

from fuzz import codec  # noqa: E402  # the path comes first
from fuzz.corpus import CORPUS, kept, name_of, write_seeds  # noqa: E402
from fuzz.native import NATIVE, build  # noqa: E402
from fuzz.targets import TARGETS, TEXT  # noqa: E402

WORK = ROOT / "build" / "fuzz"
FINDING = re.compile(r"(crash|timeout|oom)-[0-9a-f]+")
OPTIONS = (
    "-max_len=2048",
    "-timeout=10",
    "-rss_limit_mb=1024",
    "-print_final_stats=1",
)
SEPARATE = "frame, sanitizers"


@dataclass(frozen=True)
class Outcome:
    """The result of a session.  edges: how many branches of conflux/ it reached.  trouble: files to look at."""

    target: str
    executions: int
    seconds: float
    edges: int
    trouble: tuple[Path, ...] = ()


def start(script: str, target: str, *arguments: str | Path, log: Path, **environment: str) -> int:
    """Run one of our scripts on a target; return its exit status."""
    command = [sys.executable, HERE / script, target, *arguments]
    with log.open("wb") as out:
        variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        return subprocess.run(command, env=variables, cwd=ROOT, stdout=out, stderr=out, check=False).returncode


def fuzz(target: str, seconds: int) -> Outcome:
    """Run one target for this many seconds."""
    work = WORK / target
    found, seeds, log = work / "found", work / "seeds", work / "log"
    found.mkdir(parents=True, exist_ok=True)
    (CORPUS / target).mkdir(parents=True, exist_ok=True)
    write_seeds(target, seeds)
    for path in findings(work):
        path.unlink()
    words = (f"-dict={HERE / 'text.dict'}",) if target in TEXT else ()
    limits = (f"-max_total_time={seconds}", f"-artifact_prefix={work}/")
    started = time.monotonic()
    status = start("session.py", target, *limits, *OPTIONS, *words, found, seeds, CORPUS / target, log=log)
    took = time.monotonic() - started
    said = log.read_text(errors="replace")
    trouble = findings(work) or ((log,) if status else ())
    return Outcome(target, last_number(r"^#(\d+)\s", said), took, last_number(r"cov: (\d+)", said), trouble)


def fuzz_native(target: str, seconds: int) -> Outcome:
    """Run one target in C for this many seconds."""
    work = WORK / target
    found, seeds, log = work / "found", work / "seeds", work / "log"
    for directory in (found, seeds):
        directory.mkdir(parents=True, exist_ok=True)
    for seed in NATIVE[target].seeds():
        (seeds / name_of(seed)).write_bytes(seed)
    for path in findings(work):
        path.unlink()
    command = [str(build(target, work)), f"-max_total_time={seconds}", f"-artifact_prefix={work}/", *OPTIONS]
    started = time.monotonic()
    with log.open("wb") as out:
        inputs = (found, seeds, CORPUS / target)
        status = subprocess.run([*command, *inputs], cwd=ROOT, stdout=out, stderr=out, check=False).returncode
    took = time.monotonic() - started
    said = log.read_text(errors="replace")
    trouble = findings(work) or ((log,) if status else ())
    return Outcome(target, last_number(r"^#(\d+)\s", said), took, last_number(r"cov: (\d+)", said), trouble)


def findings(work: Path) -> tuple[Path, ...]:
    return tuple(path for path in sorted(work.iterdir()) if FINDING.fullmatch(path.name))


def last_number(pattern: str, text: str) -> int:
    found = re.findall(pattern, text, re.MULTILINE)
    return int(found[-1]) if found else 0


def check_codec(environment: dict[str, str]) -> Outcome:
    """Feed every frame, whole and cut short, to the compiled codec, under sanitizers."""
    directories = (WORK / "frame" / "found", WORK / "frame" / "seeds", CORPUS / "frame")
    log = WORK / "codec" / "log"
    started = time.monotonic()
    status = start("replay.py", "frame", "--prefixes", *directories, log=log, **environment)
    count = sum(1 + path.stat().st_size for directory in directories for path in directory.iterdir())
    return Outcome(SEPARATE, count, time.monotonic() - started, 0, (log,) if status else ())


def keep(target: str) -> None:
    """Replace the kept corpus of a target by the fewest inputs that reach as much."""
    work = WORK / target
    merged = work / "merged"
    merged.mkdir(exist_ok=True)
    for old in merged.iterdir():
        old.unlink()
    # Without counters: an input that runs a loop five times, not four, helps while fuzzing and is not worth keeping.
    options = ("-merge=1", "-use_counters=0")
    inputs = (work / "seeds", CORPUS / target, work / "found")
    if start("session.py", target, *options, merged, *inputs, log=work / "merge.log"):
        raise SystemExit(f"merging {target} failed: {work / 'merge.log'}")
    for old in kept(target):
        old.unlink()
    for path in merged.iterdir():
        (CORPUS / target / path.name).write_bytes(path.read_bytes())


def rows(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """Print each row of the table when it comes, and pass it on."""
    print(f"{'target':<20} {'executions':>11} {'per s':>8} {'coverage':>9}  findings", flush=True)
    for outcome in outcomes:
        rate = outcome.executions / max(outcome.seconds, 0.001)
        edges = outcome.edges or "-"
        print(
            f"{outcome.target:<20} {outcome.executions:>11} {rate:>8.0f} {edges:>9}  {len(outcome.trouble)}", flush=True
        )
        yield outcome


def say_where(outcome: Outcome) -> None:
    for path in outcome.trouble:
        print(f"\n{outcome.target}: {path}")
        if outcome.target in NATIVE:
            print(f"  see it again: {WORK / outcome.target / outcome.target} {path}")
        elif FINDING.fullmatch(path.name):
            print(f"  see it again: {sys.executable} {HERE / 'replay.py'} {outcome.target} {path}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz every parser of peer bytes.")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--keep", action="store_true")
    known = TARGETS.keys() | NATIVE.keys()
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(sorted(known)))
    asked = parser.parse_args()
    if unknown := set(asked.targets) - known:
        parser.error(f"unknown target {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    targets = asked.targets or sorted(known)
    watched = codec.build(ROOT, WORK / "codec") if "frame" in targets else {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        sessions = pool.map(lambda target: (fuzz_native if target in NATIVE else fuzz)(target, asked.seconds), targets)
        separate = (check_codec(environment) for environment in [watched] if environment)
        outcomes = list(rows(itertools.chain(sessions, separate)))
        for outcome in outcomes:
            say_where(outcome)
        if asked.keep:
            list(pool.map(keep, (target for target in targets if target in TARGETS)))
    return int(any(outcome.trouble for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
