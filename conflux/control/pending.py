"""What is pending: requests without an answer, and the answers that this node may have to give again.

Only state and timetables; requests.py and plane.py decide.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass

from conflux.control.envelope import Kind
from conflux.ids import BootId, NodeId

REQUEST_RETRY_S = (0.25, 1.0, 4.0)  # after the first try
REQUEST_TIMEOUT_S = 10.0
REQUEST_COUNT_MAX = 1024  # each holds a body of a few kB; above it a request fails as busy
ABSENT_RETRY_S = 0.3  # an engine notices within this time that a node has come back

ANSWER_COUNT_MAX = 256  # up to 28 kB each; more are a flood
ANSWER_LIFETIME_S = REQUEST_TIMEOUT_S + 2.0  # by then the asking node has given up

JITTER = 0.2


@dataclass(slots=True)
class Timetable:
    """When something is sent again, counted from its first try, and when it is given up."""

    retry_s: tuple[float, ...]
    ends_at: float
    next_at: float
    first_at: float | None = None  # None: not tried yet
    retry_count: int = 0  # retries that were planned so far

    def tried(self, now: float, rng: random.Random) -> None:
        """Note a try and plan the next one; after the last one only the end is left."""
        if self.first_at is None:
            self.first_at = now
        self.next_at = self.ends_at
        while self.retry_count < len(self.retry_s):
            at = self.first_at + self.retry_s[self.retry_count] * rng.uniform(1.0 - JITTER, 1.0 + JITTER)
            self.retry_count += 1
            if at > now:
                self.next_at = min(at, self.ends_at)
                return


@dataclass(slots=True)
class Request:
    """A message that wants an answer.  message: the signed Inner, encoded; it never changes.

    withdrawn: it is not sent again, but an answer that is on its way is still taken.
    """

    peer: NodeId
    kind: Kind
    seq: int
    message: bytes
    times: Timetable
    absent_count: int = 0  # times in a row that no channel knew the peer to be there
    takers: frozenset[str] = frozenset()  # channels that took the last try, and did not find the peer absent since
    missed: frozenset[str] = frozenset()  # channels that ever took a try and then found the peer absent
    key_id: bytes | None = None  # the hop key that payload is sealed to; None: not sealed yet, for want of a card
    payload: bytes = b""
    withdrawn: bool = False
    hurried: bool = False  # a card of the peer had it sent again before its time


@dataclass(slots=True)
class Answer:
    """An answer that was given.  message: the signed Inner, encoded: a repeated request gets the identical answer."""

    message: bytes
    plain: bool
    expires_at: float
    key_id: bytes | None = None
    payload: bytes = b""


class Answers:
    """Answers given lately, by the request that each answers."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[NodeId, BootId, int], Answer] = OrderedDict()

    def find(self, peer: NodeId, boot: BootId, seq: int, now: float) -> Answer | None:
        """Return the answer to that request, if it is still remembered."""
        self._expire(now)
        return self._answers.get((peer, boot, seq))

    def add(self, peer: NodeId, boot: BootId, seq: int, message: bytes, now: float, *, plain: bool = False) -> Answer:
        """Remember an answer; above ANSWER_COUNT_MAX the oldest is forgotten."""
        self._expire(now)
        self._answers.pop((peer, boot, seq), None)
        if len(self._answers) >= ANSWER_COUNT_MAX:
            self._answers.popitem(last=False)
        answer = self._answers[(peer, boot, seq)] = Answer(message, plain, now + ANSWER_LIFETIME_S)
        return answer

    def sealed_to(self, peer: NodeId, boot: BootId, now: float) -> list[Answer]:
        """Return the sealed answers to that boot of peer."""
        self._expire(now)
        return [answer for key, answer in self._answers.items() if key[:2] == (peer, boot) and not answer.plain]

    def _expire(self, now: float) -> None:
        while self._answers:
            oldest = next(iter(self._answers))  # all lifetimes are equal, so the oldest expires first
            if self._answers[oldest].expires_at > now:
                return
            del self._answers[oldest]
