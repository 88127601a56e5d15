"""C of the tree compiled for tests: the compiler's one call; what did not change is not built again."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from kit.tree import CEXT, DRIVERS, TREE

COMPILER = "gcc"
OPTIONS = ("-std=c11", "-g", "-Wall", "-Wextra", "-Werror", "-DCONFLUX_CHECK", f"-I{CEXT}", f"-I{DRIVERS}")
UNDEFINED = ("-fsanitize=undefined", "-fno-sanitize-recover=all")
ADDRESS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
BUILT = TREE / "build" / "compiled"
KEPT_S = 14 * 86400  # since the last use


@cache
def _compiler_version() -> str:
    return subprocess.run([COMPILER, "--version"], check=True, capture_output=True, text=True).stdout


def _digest(options: Sequence[str], sources: Sequence[Path]) -> str:
    """Return a name that changes with the compiler, the options, the sources and every header they may include."""
    digest = hashlib.sha256(repr((_compiler_version(), options)).encode())
    headers = (*CEXT.rglob("*.h"), *DRIVERS.rglob("*.h"))
    for path in (*sources, *sorted(headers)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(TREE)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:32]


def build(
    *sources: Path,
    shared: bool = False,
    options: Sequence[str] = (),
    libraries: Sequence[str] = (),
    included: Sequence[Path] = (),
) -> Path:
    """Return a program made of C sources, or a shared library of them.

    options: those beside OPTIONS; the first -O counts.  libraries: as in "crypto".  included: what the sources include
    beside the headers of cext/ and its drivers.
    Raises AssertionError with what the compiler says.
    """
    level = () if any(option.startswith("-O") for option in options) else ("-O1",)
    kind = ("-shared", "-fPIC") if shared else ()
    links = tuple(f"-l{name}" for name in libraries)
    made = BUILT / f"{sources[0].stem}-{_digest((*OPTIONS, *level, *kind, *options, *links), (*sources, *included))}"
    if made.exists():
        os.utime(made)
        return made
    BUILT.mkdir(parents=True, exist_ok=True)
    for old in BUILT.iterdir():
        if old.stat().st_mtime < time.time() - KEPT_S:
            old.unlink(missing_ok=True)
    new = made.with_name(f"{made.name}.{os.getpid()}")  # another test run may build the same
    parts = map(str, sources)
    command = [COMPILER, *OPTIONS, *level, *kind, *options, *parts, *links, "-o", str(new)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    new.rename(made)
    return made
