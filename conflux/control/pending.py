"""What we wait for: requests and questions without an answer yet, and the answers we gave and may have to give again.

State and its timetable; plane.py decides and sends.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass

from conflux.control.channel import Kind
from conflux.control.question import Who
from conflux.ids import BootId, NodeId

REQUEST_RETRY_S = (0.25, 1.0, 4.0)  # after the first try
REQUEST_TIMEOUT_S = 10.0
REQUEST_COUNT_MAX = 1024  # a body each, a few kB; above it the caller hears "busy"
ABSENT_RETRY_S = 0.3  # an engine learns of a node that just came back within this

QUESTION_RETRY_S = (0.3, 1.0, 2.0)
QUESTION_TIMEOUT_S = 3.0
QUESTION_COUNT_MAX = 256

ANSWER_COUNT_MAX = 256  # up to 28 kB each, and then it is somebody's flood
ANSWER_LIFETIME_S = REQUEST_TIMEOUT_S + 2.0  # the asker has given up by then

JITTER = 0.2


@dataclass(slots=True)
class Timetable:
    """When something is sent again, counted from its first try, and when it is given up."""

    retry_s: tuple[float, ...]
    ends_at: float
    next_at: float
    first_at: float | None = None  # None: not tried yet
    retry_count: int = 0  # retries that were planned

    def tried(self, now: float, rng: random.Random) -> None:
        """Note a try at now and plan the next; after the last there is only the end."""
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

    withdrawn: it is sent no more; an answer that is on its way is still one.
    """

    peer: NodeId
    kind: Kind
    seq: int
    message: bytes
    times: Timetable
    absent_count: int = 0
    key_id: bytes | None = None  # hop key that payload is sealed to; None: not sealed yet, no card
    payload: bytes = b""
    withdrawn: bool = False


@dataclass(slots=True)
class Pursuit:
    """A question on its way.  asked: somebody called who(); otherwise the plane wants the card itself.

    quiet: nobody but the node itself is asked, because who is looked for is nobody else's business.
    """

    who: Who
    seq: int
    times: Timetable
    asked: bool
    everybody: bool  # ask the area; False: first ask the node itself
    quiet: bool = False


@dataclass(slots=True)
class Answer:
    """What we replied.  message: the signed Inner, encoded, so that the same request gets the identical answer."""

    message: bytes
    plain: bool
    expires_at: float
    key_id: bytes | None = None
    payload: bytes = b""


class Answers:
    """Answers given lately, by the request they answer."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[NodeId, BootId, int], Answer] = OrderedDict()

    def find(self, peer: NodeId, boot: BootId, seq: int, now: float) -> Answer | None:
        """Return the answer that request got, if it is still remembered."""
        self._expire(now)
        return self._answers.get((peer, boot, seq))

    def add(self, peer: NodeId, boot: BootId, seq: int, message: bytes, now: float, *, plain: bool = False) -> Answer:
        """Remember an answer; the oldest goes if there are too many."""
        self._expire(now)
        self._answers.pop((peer, boot, seq), None)
        if len(self._answers) >= ANSWER_COUNT_MAX:
            self._answers.popitem(last=False)
        answer = self._answers[(peer, boot, seq)] = Answer(message, plain, now + ANSWER_LIFETIME_S)
        return answer

    def sealed_to(self, peer: NodeId, boot: BootId, now: float) -> list[Answer]:
        """Return what that boot of peer was answered under seal."""
        self._expire(now)
        return [answer for key, answer in self._answers.items() if key[:2] == (peer, boot) and not answer.plain]

    def _expire(self, now: float) -> None:
        while self._answers:
            oldest = next(iter(self._answers))  # lifetimes are equal, so order of age is order of expiry
            if self._answers[oldest].expires_at > now:
                return
            del self._answers[oldest]
