"""Open questions: which node owns an address, a name or a node id?  When each is asked again, and when given up.

A question for a node id goes to that node first, and then to the whole area.  plane.py signs and sends what next_ask()
returns.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from conflux.budget import TokenBucket
from conflux.control.cards import KnownCard
from conflux.control.channel import Handoff
from conflux.control.choice import Handed
from conflux.control.event import Unanswered
from conflux.control.pending import Timetable
from conflux.control.who import Who
from conflux.ids import NodeId

RETRY_S = (0.3, 1.0, 2.0)  # after the first try
TIMEOUT_S = 3.0
COUNT_MAX = 256
# Per second and at once; chosen: each may carry a card of 16 kB to the whole area.  Those that were asked for here have
# as much as those that are due to what others said, so that no one else's questions hold up ours.
RATE, BURST = 20.0, 60.0
# What neighbours on a LAN took for all is not lost on the way, so it is not repeated unless a neighbour is new.
SURE = frozenset({"lan"})


@dataclass(slots=True)
class OpenQuestion:
    """One open question.  seq: the number of its message, the same at every try."""

    who: Who
    seq: int
    times: Timetable
    asked: bool  # who() was called for it; False: the plane itself wants the card
    quiet: bool  # only the node itself is asked: that this node looks for it is no one else's business
    area: bool  # the next try goes to the whole area; False: to the node itself
    asked_node: bool = False  # the last try went to the node itself
    takers: frozenset[str] = frozenset()  # channels that took the last try, and did not find the node absent since


class Ask(NamedTuple):
    """Send this question.  to: None for all that may own what is asked for.  again: an earlier one had no answer.

    repeated: it was asked before, perhaps of others.
    """

    seq: int
    to: NodeId | None
    who: Who
    again: bool = False
    repeated: bool = False


class Ended(NamedTuple):
    """A question is given up.  asked: who() was called for it.  sent: it was asked at least once."""

    who: Who
    asked: bool
    reason: Unanswered
    sent: bool = True


class Questions:
    """All open questions of a node.

    next_seq: returns a number for a new message.  repeats: says whether what neighbours took is repeated all the same.
    """

    def __init__(
        self, *, next_seq: Callable[[], int], rng: random.Random, repeats: Callable[[], bool] = lambda: False
    ) -> None:
        self._next_seq = next_seq
        self._repeats = repeats
        self._rng = rng
        self._open: dict[Who, OpenQuestion] = {}
        self._asked, self._unasked = TokenBucket(RATE, BURST), TokenBucket(RATE, BURST)
        self._asks: deque[Ask] = deque()
        self._ends: deque[Ended] = deque()

    def __contains__(self, who: Who) -> bool:
        return who in self._open

    def ask(self, who: Who, *, asked: bool, quiet: bool, area: bool = False, now: float) -> None:
        """Ask, unless the same question is open already.  area: do not ask a node itself first."""
        running = self._open.get(who)
        if running is not None:
            running.asked = running.asked or asked
            running.quiet = running.quiet and quiet
            if area:
                running.area = True
                running.times.next_at = now
        elif len(self._open) >= COUNT_MAX:
            if asked:
                self._ends.append(Ended(who, asked, Unanswered.BUSY, sent=False))
        else:
            times = Timetable(RETRY_S, ends_at=now + TIMEOUT_S, next_at=now)
            self._open[who] = OpenQuestion(who, self._next_seq(), times, asked, quiet, area or who.node is None)
            self._try(self._open[who], now)

    def handed_off(self, seq: int, handed: Handed, *, now: float) -> None:
        """Note what became of a question that was sent.  No-op for a message that is no open question."""
        question = next((entry for entry in self._open.values() if entry.seq == seq), None)
        if question is not None:
            question.takers = handed.takers
            if question.who.node is None and handed.takers == SURE and not self._repeats():
                question.times.next_at = question.times.ends_at
            self._handed_off(question, handed.best, now)

    def absent(self, node: NodeId, channel: str, *, now: float) -> None:
        """Note that nobody took what a channel had accepted for a node."""
        question = self._open.get(Who(node=node))
        if question is not None and question.asked_node:
            if question.takers == {channel}:
                self._handed_off(question, Handoff.ABSENT, now)
            question.takers -= {channel}

    def _handed_off(self, question: OpenQuestion, handoff: Handoff, now: float) -> None:
        tried_once = question.times.retry_count == 1
        if handoff is Handoff.REFUSED:
            self._end(question, Unanswered.REFUSED)
        elif handoff is Handoff.ABSENT and question.quiet:
            if not tried_once:
                self._end(question, Unanswered.ABSENT)
        elif handoff is Handoff.ABSENT and question.who.node is not None and tried_once:
            question.times.next_at = now  # the node is no neighbour: ask the area, now

    def take_answered(self, card: KnownCard) -> list[OpenQuestion]:
        """Remove and return the questions that a card answers."""
        answered = [question for question in self._open.values() if card.answers(question.who)]
        for question in answered:
            del self._open[question.who]
        return answered

    def waits_for(self, seq: int) -> bool:
        """Say whether the question with that number is open."""
        return any(question.seq == seq for question in self._open.values())

    def hurry(self, *, now: float) -> None:
        """Ask every open question again at once."""
        for question in self._open.values():
            question.times.next_at = now

    def open(self) -> tuple[Who, ...]:
        """Return what is asked for."""
        return tuple(self._open)

    # ── doors of a machine ────────────────────────────────────────────────────────────────────────────────────────────

    def next_ask(self) -> Ask | None:
        """Return the next question to send."""
        return self._asks.popleft() if self._asks else None

    def next_end(self) -> Ended | None:
        """Return the next question that was given up."""
        return self._ends.popleft() if self._ends else None

    def next_timeout(self) -> float | None:
        """Return when handle_timeout() has something to do; None: no question is open."""
        return min((question.times.next_at for question in self._open.values()), default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Ask again what is due, and give up what has had its time."""
        for question in [entry for entry in self._open.values() if entry.times.next_at <= now]:
            if now >= question.times.ends_at:
                self._end(question, Unanswered.NO_ANSWER)
            else:
                self._try(question, now)

    def _try(self, question: OpenQuestion, now: float) -> None:
        budget = self._asked if question.asked else self._unasked
        if not budget.take(now):
            wait_s = budget.wait_s(now) * self._rng.uniform(1.0, 2.0)
            question.times.next_at = min(question.times.ends_at, now + wait_s)
            return
        to = None if question.area else question.who.node
        again = question.times.first_at is not None and (question.quiet or question.area)
        self._asks.append(Ask(question.seq, to, question.who, again, question.times.first_at is not None))
        question.times.tried(now, self._rng)
        question.asked_node = not question.area
        question.area = not question.quiet

    def _end(self, question: OpenQuestion, reason: Unanswered) -> None:
        del self._open[question.who]
        self._ends.append(Ended(question.who, question.asked, reason, question.times.first_at is not None))
