"""What `conflux doctor` finds, asked at most every two minutes, and only while there is a reader.

A process of its own looks: what it imports would double the memory of the page's process, which lives on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from typing import Final, NamedTuple

ASK_S: Final = 120.0  # between two looks
WITHIN_S: Final = 30.0  # a look takes half a second; longer on a board that is busy
OUTPUT_BYTES_MAX: Final = 1 << 18


class Finding(NamedTuple):
    """grade: "good", "bad" or "unseen".  remedy: what to do; "" if nothing."""

    check: str
    grade: str
    text: str
    remedy: str


class Health:
    """Asks the doctor.  command: prints what it finds as JSON."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._found: tuple[Finding, ...] = ()
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = float("-inf")  # monotonic

    def findings(self) -> tuple[Finding, ...]:
        """Return what was found last, at once; () at first.  A look begins if the last is long ago."""
        if self._looking is None and time.monotonic() - self._looked_at >= ASK_S:
            self._looked_at = time.monotonic()
            self._looking = asyncio.create_task(self._look())
        return self._found

    async def stop(self) -> None:
        """End a look that is under way."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                self._found = parse(await _output(self._command))
        except (TimeoutError, OSError, ValueError):
            self._found = ()  # the page shows the daemon's warnings without it
        finally:
            self._looking = None


async def _output(command: Sequence[str]) -> bytes:
    child = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL)
    assert child.stdout is not None
    try:
        output = await child.stdout.read(OUTPUT_BYTES_MAX)
        while more := await child.stdout.read(OUTPUT_BYTES_MAX - len(output)):
            output += more
        return output
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def parse(output: bytes) -> tuple[Finding, ...]:
    """Return the findings of `conflux doctor --json`.  Raises ValueError."""
    try:
        return tuple(Finding(*(str(each[name]) for name in Finding._fields)) for each in json.loads(output)["findings"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError("these are no findings") from None
