"""C of cext/ in a process of its own, built with sanitizers, driven by lines: one command, one answer (lines.h)."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

from kit import compile
from kit.tree import CEXT, DRIVERS

ALLOCATION = ("malloc", "calloc", "realloc")  # what alloc.h stands in for


def build(driver: str, *sources: str, wrapped: tuple[str, ...] = (), libraries: tuple[str, ...] = ()) -> Path:
    """Compile a driver of tests/cext/ with sources of cext/; it stands in for the functions wrapped."""
    options = (*compile.ADDRESS, *(f"-Wl,--wrap={name}" for name in wrapped))
    return compile.build(DRIVERS / driver, *(CEXT / name for name in sources), options=options, libraries=libraries)


class Driven:
    """A driver that runs.  Leaving the context ends it, and fails if it leaked or a sanitizer had something to say."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, command: str) -> str:
        """Return the answer to one command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        self._process.stdin.flush()
        answer = self._process.stdout.readline().decode()
        assert answer.endswith("\n"), f"the driver died of {command[:80]}; stderr says why"
        return answer[:-1]

    def __enter__(self) -> Driven:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        if kind is None:
            assert self._process.returncode == 0
