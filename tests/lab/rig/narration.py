"""Prints what happens in the demo and the soak, while it happens."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from rig.topology import LabFailure, Watch

from conflux.shell.feed import EventRow
from conflux.shell.words import line

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
STARTED = time.monotonic()
SHOW_EVERY_S = 0.05


def paint(code: str, text: str) -> str:
    """Return text in a colour, where there is colour."""
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def chapter(title: str) -> None:
    """Print a heading."""
    print(f"\n{paint('1', title)}", flush=True)


def tell(who: str, text: str) -> None:
    """Print what one host does, with the time."""
    elapsed = f"{time.monotonic() - STARTED:6.1f} s"
    print(f"{paint('2', elapsed)}  {paint('36', f'{who:<8}')} {text}", flush=True)


def play(name: str, acts: Callable[[], int]) -> int:
    """Run a demo or a soak and return its exit code: that of acts(), 1 after a LabFailure, 130 after Ctrl-C."""
    try:
        return acts()
    except LabFailure as failure:
        print(f"\n{paint('31', f'{name}: failed')}: {failure}", flush=True)
        return 1
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; every process, namespace and device of it is gone", flush=True)
        return 130


class Life:
    """The events that nodes report, printed as they come, in milliseconds after a moment."""

    def __init__(self, *watches: Watch, rename: Callable[[str], str] = str) -> None:
        """rename: replaces what the nodes have no name for."""
        self.watches = watches
        self._rename = rename
        self.seen: list[tuple[str, EventRow]] = []
        self.started = 0.0

    def start(self) -> None:
        """Forget earlier events, and count time from now."""
        for watch in self.watches:
            watch.new()
        self.seen.clear()
        self.started = time.time()

    def show(self) -> None:
        """Print what is new, in the order it happened."""
        new = [(watch.host.name, event) for watch in self.watches for event in watch.new()]
        for who, event in sorted(new, key=lambda item: item[1].at):
            self.seen.append((who, event))
            ms = (event.at - self.started) * 1000
            took = f"  ({event.took_ms:.0f} ms)" if event.took_ms else ""
            words = self._rename(line(event.event, event.name, event.text))
            kind = paint("33", f"{event.event:<11}")
            print(f"{'':10}{ms:+9.0f} ms  {who:<7} {kind} {words}{took}", flush=True)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and show what happens meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.show()
            time.sleep(SHOW_EVERY_S)

    def when(self, who: str, *kinds: str) -> float | None:
        """Return the Unix time of the first event of one of these kinds on that host."""
        return next((event.at for name, event in self.seen if name == who and event.event in kinds), None)
