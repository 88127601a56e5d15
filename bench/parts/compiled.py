"""Builds a bench in C with the sources of cext/ that it measures, and runs it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "cext"
OPTIONS = ("-std=gnu11", "-O3", "-Wall", "-Wextra", f"-I{SOURCES}")


def output_of(name: str, *arguments: str, parts: tuple[str, ...], libraries: tuple[str, ...] = ()) -> str:
    """Return what bench/parts/NAME.c prints.

    parts: patterns of the sources it measures, below cext/.  Raises CalledProcessError if it does not compile or fails.
    """
    sources = [HERE / f"{name}.c", *(source for part in parts for source in sorted(SOURCES.glob(part)))]
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / name
        subprocess.run(["gcc", *OPTIONS, *map(str, sources), "-o", program, *libraries], check=True)
        return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout
