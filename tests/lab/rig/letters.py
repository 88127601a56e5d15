"""Numbered messages among a crowd at a broker, each of which wants an answer: which are lost, doubled or late.

writer ── LEAVE, number ──► reader        any kind that is answered with ACK would do
       ◄────── ACK ────────
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rig.crowd import Crowd, CrowdNode

from conflux.control.envelope import Kind
from conflux.control.event import Message, RequestFailed

NUMBER_BYTES = 8
LET_GO_S = 12.0  # a request is given up 10 s after it was made
BEFORE_S, AFTER_S = 2.0, 5.0


@dataclass(slots=True)
class Letter:
    """One message.  failed: why it was given up; "": it was not."""

    number: int
    sent_at: float
    answered_at: float = 0.0
    failed: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it may still be answered."""
        return not self.answered_at and not self.failed


class Correspondent(CrowdNode):
    """A node that writes letters, and answers those that it gets."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.read: Counter[bytes] = Counter()
        self._letters: dict[int, Letter] = {}

    def write(self, to: CrowdNode, number: int) -> Letter:
        """Send a letter."""
        letter = Letter(number, time.monotonic())
        body = number.to_bytes(NUMBER_BYTES, "big")
        self._letters[self.plane.request(to.node_id, Kind.LEAVE, body, now=self.now())] = letter
        self.touch()
        return letter

    def _take(self, event: object, now: float) -> None:
        match event:
            case Message(kind=Kind.LEAVE):
                self.read[event.body] += 1
                self.plane.reply(event, Kind.ACK, b"", now=now)
            case Message(re=token) if token in self._letters:
                self._letters.pop(token).answered_at = time.monotonic()
            case RequestFailed(token=token, reason=reason) if token in self._letters:
                self._letters.pop(token).failed = str(reason)
            case _:
                super()._take(event, now)


class Post(NamedTuple):
    """What became of letters.  delay_s: of the one that waited longest for its answer."""

    sent: int
    failed: tuple[str, ...]
    lost: int  # answered, and never read
    doubled: int  # read twice
    delay_s: float


def correspondents(nodes: Crowd) -> list[Correspondent]:
    """Return the nodes of a crowd of them."""
    return [node for node in nodes.nodes if isinstance(node, Correspondent)]


async def post(nodes: Crowd, act: Callable[[], Awaitable[None]], *, per_s: float) -> Post:
    """Let the first half of a crowd write to the second, so many letters a second in all, while something happens."""
    everybody = correspondents(nodes)
    half = len(everybody) // 2
    pairs = itertools.cycle(list(zip(everybody[:half], everybody[half:], strict=True)))
    letters: list[Letter] = []

    async def write() -> None:
        began = time.monotonic()
        for number in itertools.count():
            await asyncio.sleep(max(0.0, began + number / per_s - time.monotonic()))
            writer, reader = next(pairs)
            letters.append(writer.write(reader, number))

    before = sum((each.read for each in everybody), Counter[bytes]())
    writing = asyncio.create_task(write())
    await asyncio.sleep(BEFORE_S)
    await act()
    await asyncio.sleep(AFTER_S)
    writing.cancel()
    async with asyncio.timeout(LET_GO_S):
        while any(letter.is_open for letter in letters):  # noqa: ASYNC110  # no event tells of all
            await asyncio.sleep(0.05)
    return judged(letters, sum((each.read for each in everybody), Counter[bytes]()) - before)


def judged(letters: Sequence[Letter], read: Counter[bytes]) -> Post:
    """Return what became of letters, of which these were read, and how often."""
    answered = [letter for letter in letters if letter.answered_at]
    return Post(
        sent=len(letters),
        failed=tuple(letter.failed for letter in letters if letter.failed),
        lost=sum(not read[letter.number.to_bytes(NUMBER_BYTES, "big")] for letter in answered),
        doubled=sum(count > 1 for count in read.values()),
        delay_s=max((letter.answered_at - letter.sent_at for letter in answered), default=0.0),
    )
