"""Where LANs meet: which of the envelopes that neighbours bring go on, and to whom.  Sans-IO.

            one LAN              another
    alpha ───────────── rod ───────────────── bravo     rod joins them; alpha and bravo pass nothing on

An envelope goes on to other LANs than the one it came from, with a hop less; for one node, to that node if it is a
neighbour, else only to neighbours that join LANs themselves.  Who passes envelopes on learns where they go and which
neighbour brought them; neither is kept nor logged, only digests of what was seen, so that loops of LANs end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from conflux.control.budget import BudgetTable
from conflux.control.envelope import HOP_LIMIT_MAX, Envelope
from conflux.crypto.kdf import sha256
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId

# Copies come within a second; what comes later the hop limit ends.  About 200 B each.
SEEN_S = 60.0
SEEN_COUNT_MAX = 4096
DIGEST_BYTES = 16

# What one neighbour may make us do, per second and at once.  Messages are charged before they are looked at; bytes are
# those we send on, every copy counted.  A neighbour that joins LANs speaks for many, so one that does not pays double:
# alone, it can use up no more than half of what the next junction grants us.  Chosen: 60 questions at once, which is
# what a node may ask, reach 16 neighbours.
MESSAGE_RATE, MESSAGE_BURST = 100.0, 400.0
BYTE_RATE, BYTE_BURST = 4e6, 32e6
PLAIN_COST, JOINING_COST = 2, 1
BUDGET_KEY_COUNT_MAX = 256


@dataclass(frozen=True, slots=True)
class Passage:
    """What to do with one envelope.  deliver: it is for us too.  onward: what to send to every one of to."""

    deliver: bool
    to: tuple[NodeId, ...] = ()
    onward: bytes = b""


NOWHERE = Passage(deliver=False)


@dataclass(slots=True)
class _Side:
    """A neighbour as we see it.  lan: None if unknown, then nothing passes.  joins: it says that it joins LANs."""

    lan: str | None
    joins: bool = False


class Junction:
    """One node's neighbours by LAN, and what passes between them.  drop: counts what ends here, by reason."""

    def __init__(self, me: NodeId, drop: Callable[[str], None]) -> None:
        self._me = me
        self._drop = drop
        self._sides: dict[NodeId, _Side] = {}
        self._lans: tuple[str, ...] = ()
        # digest → when it first came, and the largest hop limit it came with
        self._seen: OrderedDict[bytes, tuple[float, int]] = OrderedDict()
        self._message_budget = BudgetTable(MESSAGE_RATE, MESSAGE_BURST, BUDGET_KEY_COUNT_MAX)
        self._byte_budget = BudgetTable(BYTE_RATE, BYTE_BURST, BUDGET_KEY_COUNT_MAX)

    # ── neighbours ───────────────────────────────────────────────────────────────────────────────────────────────────

    def place(self, node: NodeId, lan: str | None) -> None:
        """A neighbour is on that LAN, from now on."""
        side = self._sides.setdefault(node, _Side(lan))
        side.lan = lan
        self._count_lans()

    def remove(self, node: NodeId) -> None:
        """A neighbour is gone."""
        self._sides.pop(node, None)
        self._count_lans()

    def hear(self, node: NodeId, *, joins: bool) -> None:
        """A neighbour says whether it joins LANs."""
        if node in self._sides:
            self._sides[node].joins = joins

    @property
    def lans(self) -> tuple[str, ...]:
        """Every LAN we have a neighbour on."""
        return self._lans

    @property
    def joins(self) -> bool:
        """Whether there is anything to pass on, and anybody to pass it on to."""
        return len(self._lans) > 1

    def lan(self, node: NodeId) -> str | None:
        """Return the LAN a neighbour is on, if it is known."""
        side = self._sides.get(node)
        return None if side is None else side.lan

    def says_it_joins(self, node: NodeId) -> bool:
        """Say whether a neighbour claims to join LANs."""
        return node in self._sides and self._sides[node].joins

    # ── envelopes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, to: NodeId | None, data: bytes, *, now: float) -> tuple[NodeId, ...]:
        """Return to whom an envelope of our own goes: the node itself, or who may reach it; None: to everybody."""
        with suppress(RemoteProtocolError):  # what is no envelope is not passed on, so it cannot come back
            # As if seen with the most hops there are: no copy of it is news to us.
            self._seen_before(replace(Envelope.decode_untrusted(data), hop_limit=HOP_LIMIT_MAX), now)
        if to is None:
            return tuple(self._sides)
        if to in self._sides:
            return (to,)
        return tuple(node for node, side in self._sides.items() if side.joins)

    def receive_untrusted(self, data: bytes, via: NodeId, *, now: float) -> Passage:
        """Take an envelope a neighbour brought."""
        # Who joins nothing looks at as many as the plane would take, and decodes no more.
        cost = PLAIN_COST if self.joins and not self.says_it_joins(via) else JOINING_COST
        if not self._message_budget.take(via, now, cost):
            self._drop("flood")
            return NOWHERE
        try:
            envelope = Envelope.decode_untrusted(data)
        except RemoteProtocolError:
            return Passage(deliver=True)  # goes nowhere else; whoever reads envelopes refuses it, and counts it
        known_hop_limit = self._seen_before(envelope, now)
        if envelope.hop_limit <= known_hop_limit:
            self._drop("duplicate")
            return NOWHERE
        deliver = known_hop_limit < 0 and envelope.to in (None, self._me)
        if envelope.to == self._me:
            return Passage(deliver)
        to = self._onward(envelope.to, via)
        if not to:
            if not deliver:
                self._drop("not-for-us")
            return Passage(deliver)
        if envelope.hop_limit == 0:
            self._drop("hop-limit")
            return Passage(deliver)
        if not self._byte_budget.take(via, now, cost * len(data) * len(to)):
            self._drop("forward-flood")
            return Passage(deliver)
        return Passage(deliver, to, replace(envelope, hop_limit=envelope.hop_limit - 1).encode())

    def _onward(self, to: NodeId | None, via: NodeId) -> tuple[NodeId, ...]:
        """Return to whom what via brought goes on."""
        came_from = self.lan(via)
        if came_from is None or not self.joins or to == via:
            return ()
        if to in self._sides:
            return (to,)
        return tuple(
            node
            for node, side in self._sides.items()
            if side.lan not in (None, came_from) and (to is None or side.joins)
        )

    def _seen_before(self, envelope: Envelope, now: float) -> int:
        """Return the largest hop limit the same envelope came with before, -1 if it is new; and remember it.

        The same: all but the hop limit, and not the id alone, or a neighbour that sees an envelope first could shut it
        out with rubbish under its id.  A copy with more hops left goes on again for the same reason: or a neighbour
        could shut it out, further on, with a copy that has none.
        """
        digest = sha256(replace(envelope, hop_limit=0).encode())[:DIGEST_BYTES]
        self._forget(now)
        first_at, known = self._seen.get(digest, (now, -1))
        if envelope.hop_limit > known:
            if known < 0 and len(self._seen) >= SEEN_COUNT_MAX:
                self._seen.popitem(last=False)
            self._seen[digest] = (first_at, envelope.hop_limit)
        return known

    def _forget(self, now: float) -> None:
        while self._seen:
            oldest = next(iter(self._seen))
            if self._seen[oldest][0] > now - SEEN_S:
                return
            del self._seen[oldest]

    def _count_lans(self) -> None:
        self._lans = tuple(sorted({side.lan for side in self._sides.values() if side.lan is not None}))
