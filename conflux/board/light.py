"""What the board shows to a person without a console: its light, lines on the console, and what is wrong.

It is told what the daemon says, again and again, and says what is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from conflux.api.ready import lacks
from conflux.errors import printable

SILENT_S: Final = 60.0  # a daemon that was started again, or takes a while, is no fault yet
NOT_READY_S: Final = 60.0
RELAYING_S: Final = 5.0  # the light shows a relaying that long after its last frame
SAID_COUNT_MAX: Final = 64  # of faults that were said: a person has read them
LINE_CHARS_MAX: Final = 300
UNINVITED: Final = "in no realm, and the card has no invitation: put one into board.token"


class Light(StrEnum):
    """What the light shows."""

    JOINING = "joining"
    UP = "up"
    RELAYING = "relaying"
    FAULT = "fault"


class Blink(NamedTuple):
    """Milliseconds on and off, for ever; off_ms: 0: the light stays on."""

    on_ms: int
    off_ms: int


BLINKS: Final = {
    Light.JOINING: Blink(500, 500),
    Light.UP: Blink(1, 0),
    Light.RELAYING: Blink(900, 100),
    Light.FAULT: Blink(100, 100),
}


class Look(NamedTuple):
    """What is seen at one moment.

    status: the daemon's answer; None: there was none.  said: why, for a person.  runs: whether it answers at all: one
    that waits for a realm does.  notices: of first boot, of updates, of Wi-Fi.  last_error: of the daemon's log.
    has_realm, invited: whether this board is a member, and whether it has an invitation.
    """

    status: Mapping[str, Any] | None
    said: str = ""
    runs: bool = False
    notices: tuple[str, ...] = ()
    last_error: str = ""
    has_realm: bool = False
    invited: bool = False


class Shown(NamedTuple):
    """What is shown from now on.  lines: new ones for the console.  own: what this program has a person know."""

    light: Light
    lines: tuple[str, ...]
    own: tuple[str, ...]
    is_ready: bool


class Watcher:
    """Decides what a board shows.  now: seconds of a clock that only goes on."""

    def __init__(self, *, now: float) -> None:
        self._answered_at = now
        self._ready_at: float | None = None  # since when; None: it is not
        self._unready_at = now
        self._relayed_at: float | None = None
        self._forwarded = 0
        self._said: dict[str, None] = {}

    def see(self, look: Look, *, now: float) -> Shown:
        """Return what is shown after this look."""
        if look.runs:
            self._answered_at = now
        missing = "the daemon does not answer" if look.status is None else lacks(look.status)
        was_ready = self._ready_at is not None
        if missing:
            self._unready_at = self._unready_at if not was_ready else now
            self._ready_at = None
        elif not was_ready:
            self._ready_at = now
        own = self._own(look, missing, now)
        faults = (*look.notices, *own)
        lines = [f"conflux-board: fault: {line}" for line in self._new(faults)]
        if self._ready_at == now and not missing:
            assert look.status is not None
            node = look.status["node"]
            lines.append(f"conflux-board: ready: {node['name']} {' '.join(node['addresses'])}")
        return Shown(self._light(look, faults, now), tuple(line[:LINE_CHARS_MAX] for line in lines), own, not missing)

    def _own(self, look: Look, missing: str, now: float) -> tuple[str, ...]:
        if look.status is None and not look.runs:
            if now - self._answered_at < SILENT_S:
                return ()
            return (f"Conflux does not run: {printable(look.last_error or look.said)}",)
        if not look.has_realm and not look.invited:
            return (UNINVITED,)
        if look.status is None:
            return ()
        if missing and now - self._unready_at >= NOT_READY_S:
            return (f"packets do not pass: {printable(missing)}",)
        return ()

    def _new(self, faults: tuple[str, ...]) -> list[str]:
        for gone in [line for line in self._said if line not in faults]:
            del self._said[gone]  # if it comes again, it is said again
        new = [line for line in dict.fromkeys(faults) if line not in self._said]
        for line in new[: SAID_COUNT_MAX - len(self._said)]:
            self._said[line] = None
        return new[:SAID_COUNT_MAX]

    def _light(self, look: Look, faults: tuple[str, ...], now: float) -> Light:
        if faults:
            return Light.FAULT
        if self._ready_at is None or look.status is None:
            return Light.JOINING
        forwarded = sum(int(row["ahead_frames"]) + int(row["back_frames"]) for row in look.status["relays"])
        if forwarded > self._forwarded:
            self._relayed_at = now
        self._forwarded = forwarded
        is_relaying = self._relayed_at is not None and now - self._relayed_at < RELAYING_S
        return Light.RELAYING if is_relaying else Light.UP


def light_of(names: Mapping[str, str]) -> str | None:
    """Return which of a board's lights is the one for a person, by name and trigger; None: it has none.

    names: its lights, each with the triggers that the kernel offers for it.
    """
    usable = {name for name, triggers in names.items() if "timer" in triggers and not _is_of_something(name)}
    for wanted in ("act", "led0", "status", "heartbeat", "user", "green"):
        for name in sorted(usable):
            if wanted in name.lower():
                return name
    return min(usable, default=None)


def _is_of_something(name: str) -> bool:
    """Say whether a light belongs to a keyboard or a network port."""
    return any(part in name.lower() for part in ("lock", "phy", "eth", "wlan", "kbd", "pwr", "power"))
