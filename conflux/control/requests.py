"""Requests without an answer: when each is sent, when its receiver's card is asked for, and when it is given up.

plane.py asks what next_want() returns, and tells this machine of every card and of what became of each try.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection
from typing import NamedTuple

from conflux.control.author import Author
from conflux.control.cards import CardBook, KnownCard
from conflux.control.channel import Handoff
from conflux.control.choice import Handed
from conflux.control.envelope import Kind
from conflux.control.event import RequestFailed, Transmit, Unanswered
from conflux.control.pending import (
    ABSENT_RETRY_S,
    REQUEST_COUNT_MAX,
    REQUEST_RETRY_S,
    REQUEST_TIMEOUT_S,
    Request,
    Timetable,
)
from conflux.ids import NodeId


class Want(NamedTuple):
    """A request waits for the card of a node.  quiet: ask only the node itself."""

    node: NodeId
    quiet: bool


class Requests:
    """All requests of a node that have no answer yet.  denies: says whether a node is a member no more."""

    def __init__(self, *, author: Author, book: CardBook, denies: Callable[[NodeId], bool], rng: random.Random) -> None:
        self._author = author
        self._book = book
        self._denies = denies
        self._rng = rng
        self._pending: dict[int, Request] = {}
        self._transmits: deque[Transmit] = deque()
        self._wants: deque[Want] = deque()
        self._failures: deque[RequestFailed] = deque()

    def __len__(self) -> int:
        return len(self._pending)

    def request(self, peer: NodeId, kind: Kind, body: bytes, *, now: float) -> int:
        """Send a message that wants an answer; return its token, the number of the message."""
        seq = self._author.next_seq()
        message = self._author.sign(peer, seq, kind, body)
        if len(self._pending) >= REQUEST_COUNT_MAX or self._denies(peer):
            reason = Unanswered.REVOKED if self._denies(peer) else Unanswered.BUSY
            self._failures.append(RequestFailed(peer, seq, kind, reason))
            return seq
        times = Timetable(REQUEST_RETRY_S, ends_at=now + REQUEST_TIMEOUT_S, next_at=now)
        request = self._pending[seq] = Request(peer, kind, seq, message, times)
        self._try(request, now)
        return seq

    def withdraw(self, token: int) -> None:
        """Do not send a request again; an answer to it still counts."""
        request = self._pending.get(token)
        if request is not None:
            request.withdrawn = True
            request.times.next_at = request.times.ends_at

    def answered(self, token: int, peer: NodeId) -> bool:
        """End a request that peer answers; False: no request to peer has that token."""
        request = self._pending.get(token)
        if request is None or request.peer != peer:
            return False
        del self._pending[token]
        return True

    def waits_for(self, peer: NodeId) -> bool:
        """Say whether a request to peer has no answer yet."""
        return any(request.peer == peer for request in self._pending.values())

    # ── what became of a try ──────────────────────────────────────────────────────────────────────────────────────────

    def handed_off(self, token: int, handed: Handed, *, now: float) -> None:
        """Note what became of a request that was sent.  No-op for a message that is no pending request."""
        request = self._pending.get(token)
        if request is not None:
            request.takers = handed.takers
            self._handed_off(request, handed.best, now)

    def absent(self, peer: NodeId, channel: str, *, now: float) -> bool:
        """Note that nobody took what a channel had accepted for peer; True: no other channel took a request either."""
        lost = False
        for request in self._to(peer):
            if request.takers == {channel}:
                self._handed_off(request, Handoff.ABSENT, now)
                lost = True
            request.takers -= {channel}
            request.missed |= {channel}
        return lost

    def hurry(self, peer: NodeId | None, *, now: float) -> None:
        """Send every request to peer again at once; None: every request to anyone."""
        for request in self._pending.values():
            if peer in (None, request.peer) and request.key_id is not None and not request.withdrawn:
                request.absent_count = 0
                request.hurried = False
                request.times.next_at = now

    # ── cards ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def card_came(self, peer: NodeId, *, now: float) -> None:
        """Send again what found peer absent, once: a retry may ask for the card, which would cause the next retry."""
        for request in self._to(peer):
            if request.absent_count and not request.hurried:
                request.hurried = True
                request.absent_count = 0
                request.times.next_at = now

    def card_stored(self, fresh: KnownCard, *, now: float) -> None:
        """Seal to a new card what waited for it, or was sealed to an older one, and send it."""
        for request in self._to(fresh.node_id):
            if request.key_id != fresh.card.hop_key_id and not request.withdrawn:
                self._try(request, now)

    def card_not_found(self, peer: NodeId) -> None:
        """Give up what waits for the card of peer."""
        for request in self._to(peer):
            if request.key_id is None:
                self._fail(request, Unanswered.UNKNOWN_PEER)

    def revoked(self, nodes: Collection[NodeId]) -> None:
        """Give up every request to nodes that are members no more."""
        for request in [entry for entry in self._pending.values() if entry.peer in nodes]:
            self._fail(request, Unanswered.REVOKED)

    # ── doors of a machine ────────────────────────────────────────────────────────────────────────────────────────────

    def next_transmit(self) -> Transmit | None:
        """Return the next envelope to send."""
        return self._transmits.popleft() if self._transmits else None

    def next_want(self) -> Want | None:
        """Return the next card to ask for."""
        return self._wants.popleft() if self._wants else None

    def next_failure(self) -> RequestFailed | None:
        """Return the next request that was given up."""
        return self._failures.popleft() if self._failures else None

    def next_timeout(self) -> float | None:
        """Return when handle_timeout() has something to do; None: no request is pending."""
        return min((request.times.next_at for request in self._pending.values()), default=None)

    def handle_timeout(self, *, now: float) -> None:
        """Send again what is due, and give up what has had its time."""
        for request in [entry for entry in self._pending.values() if entry.times.next_at <= now]:
            if now >= request.times.ends_at:
                self._fail(request, Unanswered.TIMEOUT)
            else:
                self._try(request, now)

    def _to(self, peer: NodeId) -> list[Request]:
        return [request for request in self._pending.values() if request.peer == peer]

    def _try(self, request: Request, now: float) -> None:
        """Send a request, first or again, and set its next time; without a card, ask for the card instead."""
        known = self._book.find(request.peer)
        if known is None:
            request.key_id = None
            request.times.next_at = request.times.ends_at
            self._wants.append(Want(request.peer, quiet=False))
            return
        if request.key_id != known.card.hop_key_id:
            request.key_id = known.card.hop_key_id
            request.payload = self._author.seal(known, request.message)
        again = request.times.first_at is not None
        request.times.tried(now, self._rng)
        envelope = self._author.envelope(request.peer, request.key_id, request.payload)
        self._transmits.append(Transmit(request.seq, envelope, again))
        if request.times.retry_count == len(REQUEST_RETRY_S):
            # Two tries have no answer.  Perhaps the peer replaced its key or lost our card, and its answer that says so
            # was lost.  The question takes the way of the request, so no other node need learn whom we talk to.
            self._wants.append(Want(request.peer, quiet=True))

    def _handed_off(self, request: Request, handoff: Handoff, now: float) -> None:
        if handoff is Handoff.REFUSED:
            self._fail(request, Unanswered.REFUSED)
        elif handoff is Handoff.ABSENT:
            request.absent_count += 1
            if request.absent_count >= 2:
                self._fail(request, Unanswered.ABSENT)
            elif not request.withdrawn:
                request.times.next_at = min(request.times.next_at, now + ABSENT_RETRY_S)
        elif not request.takers or request.takers - request.missed:  # what they took may come back as before
            request.absent_count = 0

    def _fail(self, request: Request, reason: Unanswered) -> None:
        if self._pending.pop(request.seq, None) is not None:
            self._failures.append(RequestFailed(request.peer, request.seq, request.kind, reason))
