"""What the daemon says, asked at most once a second however many read, and what it said in the last hour."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from conflux.api.client import ApiClient
from conflux.errors import UserError
from conflux.web.history import STEP_S, Counters, History

Answer = dict[str, Any]

ASK_S: Final = 1.0  # between two questions
PATIENCE_S: Final = 0.8  # a reader waits so long for an answer, and then sees the one before
DEVICES: Final = Path("/proc/self/net/dev")  # of this process's network namespace


class Seen(NamedTuple):
    """What was last seen of the daemon.  Instants are Unix seconds.

    status: its last answer; None: it has given none yet.  at: of that answer.  silent_at: since when it does not
    answer; None: it answers.  said: why it does not, for a person.
    """

    status: Answer | None
    at: float | None
    silent_at: float | None
    said: str


class Source:
    """Asks one daemon.  ask: blocks, for at most some seconds, and raises UserError."""

    def __init__(self, ask: Callable[[], object], clock: Callable[[], float] = time.time) -> None:
        self._ask = ask
        self._clock = clock
        self._seen = Seen(None, None, clock(), "the daemon has not been asked yet")
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")  # monotonic
        self.history = History()

    async def seen(self) -> Seen:
        """Return what the daemon says now, or said last if it takes its time."""
        if self._asking is None and time.monotonic() - self._asked_at >= ASK_S:
            self._asked_at = time.monotonic()
            self._asking = asyncio.create_task(self._look())
        if self._asking is not None:
            await asyncio.wait((self._asking,), timeout=PATIENCE_S)
        return self._seen

    async def remember(self) -> None:
        """Add a sample to the history again and again, for ever."""
        while True:
            seen = await self.seen()
            at = self._clock()
            counters = None if seen.status is None or seen.silent_at is not None else counters_of(seen.status, at)
            self.history.add(counters, at=at)
            await asyncio.sleep(STEP_S)

    async def _look(self) -> None:
        try:
            answer = await asyncio.to_thread(self._ask)
            if not isinstance(answer, dict):
                raise UserError("the daemon's answer makes no sense: is it of another version?")
            self._seen = Seen(answer, self._clock(), None, "")
        except UserError as error:
            silent_at = self._seen.silent_at
            self._seen = self._seen._replace(
                silent_at=self._clock() if silent_at is None else silent_at, said=str(error)
            )
        finally:
            self._asking = None


def daemon(socket: Path) -> Callable[[], object]:
    """Return what asks the daemon that listens on socket for its status."""
    client = ApiClient(socket)
    return lambda: client.look("status")


def counters_of(status: Answer, at: float) -> Counters:
    """Return what is kept of a status in the history."""
    received, sent = device_bytes(status["device"]["name"]) or (None, None)
    return Counters(
        at=at,
        boot_at=at - status["uptime_s"],
        received_bytes=received,
        sent_bytes=sent,
        drops=sum(status["drops"].values()),
        links=sum(link["link"] is not None for link in status["links"]),
        nodes=len(status["nodes"]),
    )


def device_bytes(name: str) -> tuple[int, int] | None:
    """Return the bytes of packets that came out of the overlay, and that went into it; None: there is no such device.

    What the host receives from the TUN device is what Conflux wrote to it.
    """
    try:
        lines = DEVICES.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        device, colon, counts = line.partition(":")
        if colon and device.strip() == name:
            words = counts.split()
            return int(words[0]), int(words[8])
    return None
