"""The control plane: what all engines have in common, once.

It signs and seals, verifies and unseals, retries and answers again, finds cards by question, and drops what is forged,
foreign, replayed or too much.  It knows no engine and does no I/O: envelopes come in by receive_untrusted() and go out
by next_transmit(); the node hands them to every running channel.

Recovery: a peer that restarted, or turned its hop key, cannot read what we seal.  It says so with its new card (or we
ask, at the second retry), and what is pending goes out again at once, sealed to the new key.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from conflux.control import pending
from conflux.control.author import Author
from conflux.control.budget import BudgetTable, TokenBucket
from conflux.control.cards import CardBook, KnownCard
from conflux.control.channel import ENVELOPE_BYTES_MAX, Arrival, Handoff, Kind
from conflux.control.envelope import PLAIN_KINDS, Envelope, Inner
from conflux.control.event import CardChanged, CardFound, Event, Heard, Message, RequestFailed, Transmit, WhoFailed
from conflux.control.pending import Answer, Answers, Pursuit, Request, Timetable
from conflux.control.question import Presence, Question, Who
from conflux.control.replay import SeenEnvelopes, Sources, Verdict
from conflux.crypto.seal import SealKey
from conflux.errors import RemoteProtocolError
from conflux.ids import BootId, IPAddress, NodeId
from conflux.realm.card import Card
from conflux.realm.member import Member

__all__ = [
    "CardChanged",
    "CardFound",
    "ControlPlane",
    "Event",
    "Message",
    "RequestFailed",
    "Transmit",
    "Who",
    "WhoFailed",
]

PRESENCE_PERIOD_S = 900.0
PRESENCE_FIRST_S_MAX = 2.0  # after start, at random, so that boards on one power switch do not all speak at once

# Budgets, per second and at once.  Arrivals are charged to the neighbour that hands them over, before anything is
# decoded; what costs an unseal or a signature is charged to (neighbour, claimed sender), so that naming somebody else
# as the sender uses up nobody's budget but one's own.  Chosen: a gateway that opens 50 streams at once stays below.
ARRIVAL_RATE, ARRIVAL_BURST = 100.0, 400.0
SOURCE_RATE, SOURCE_BURST = 20.0, 100.0
QUESTION_RATE, QUESTION_BURST = 20.0, 60.0  # ours, to the area: 16 kB to everybody, each
INTRODUCTION_RATE, INTRODUCTION_BURST = 1.0, 8.0  # cards we send or ask for because somebody we do not know made us
BUDGET_KEY_COUNT_MAX = 1024

NO_TOKEN = 0
SEALED_KINDS = frozenset(Kind) - PLAIN_KINDS


class ControlPlane:
    """One node's side of every control channel.  See the module's text.

    boot: larger than any boot id this node ever used.  clock: unix seconds, for dates in credentials and nothing else.
    observe: is told dates that the realm has signed; a clock behind them should catch up.
    """

    def __init__(
        self,
        member: Member,
        *,
        boot: BootId,
        entropy: Callable[[int], bytes],
        rng: random.Random,
        clock: Callable[[], int],
        observe: Callable[[int], None] = lambda date_unix: None,
        now: float,
        features: tuple[str, ...] = (),
        new_hop_key: Callable[[], SealKey] = SealKey.generate,
    ) -> None:
        self.me = member.node_id
        self.boot = boot
        self.drops: Counter[str] = Counter()
        self._rng = rng
        self._author = Author(member, boot=boot, entropy=entropy, now=now, features=features, new_hop_key=new_hop_key)
        self._book = CardBook(member.anchor, clock, observe)
        self._sources = Sources()
        self._seen = SeenEnvelopes()
        self._requests: dict[int, Request] = {}
        self._pursuits: dict[Who, Pursuit] = {}
        self._answers = Answers()
        self._arrival_budget = BudgetTable(ARRIVAL_RATE, ARRIVAL_BURST, BUDGET_KEY_COUNT_MAX)
        self._source_budget = BudgetTable(SOURCE_RATE, SOURCE_BURST, BUDGET_KEY_COUNT_MAX)
        self._question_budget = TokenBucket(QUESTION_RATE, QUESTION_BURST)
        self._introduction_budget = TokenBucket(INTRODUCTION_RATE, INTRODUCTION_BURST)
        self._presence_at = now + rng.uniform(0.0, PRESENCE_FIRST_S_MAX)
        self._transmits: deque[Transmit] = deque()
        self._events: deque[Event] = deque()

    # ── what the node asks for ───────────────────────────────────────────────────────────────────────────────────────

    def request(self, peer: NodeId, kind: Kind, body: bytes, *, now: float) -> int:
        """Send what wants an answer; return its token.  The answer is a Message with re == token, else RequestFailed.

        Without the peer's card, the card is asked for first.
        """
        seq = self._author.next_seq()
        message = self._author.sign(peer, seq, kind, body)
        if len(self._requests) >= pending.REQUEST_COUNT_MAX:
            self._events.append(RequestFailed(peer, seq, kind, "busy"))
            return seq
        times = Timetable(pending.REQUEST_RETRY_S, ends_at=now + pending.REQUEST_TIMEOUT_S, next_at=now)
        request = self._requests[seq] = Request(peer, kind, seq, message, times)
        self._try_request(request, now)
        return seq

    def withdraw(self, token: int) -> None:
        """Send a request no more: its answer is not wanted any longer.  One that comes all the same is a Message."""
        request = self._requests.get(token)
        if request is not None:
            request.withdrawn = True
            request.times.next_at = request.times.ends_at

    def reply(self, to: Message, kind: Kind, body: bytes, *, now: float) -> None:
        """Answer a message; should it come again, it gets the identical answer without asking."""
        message = self._author.sign(to.peer, self._author.next_seq(), kind, body, re=to.seq)
        known = self._book.find(to.peer)
        if known is None:
            self._drop("no-card")
            return
        self._give_answer(self._answers.add(to.peer, to.boot, to.seq, message, now), known)

    def notify(self, peer: NodeId, kind: Kind, body: bytes, *, now: float) -> None:
        """Send once and expect nothing; dropped if we have no card of the peer."""
        known = self._book.find(peer)
        if known is None:
            self._drop("no-card")
            return
        message = self._author.sign(peer, self._author.next_seq(), kind, body)
        self._transmit(NO_TOKEN, peer, known.card.hop_key_id, self._author.seal(known, message))

    def who(self, query: Who, *, now: float, quiet: bool = False) -> None:
        """Ask who owns an address, a name or a node id.  CardFound or WhoFailed follows; CardFound at once if known.

        quiet: ask nobody but the node itself, which query then names.
        """
        if self._own(query):
            self._events.append(CardFound(self._author.card, query))
            return
        known = self._book.find_answer(query)
        if known is not None:
            self._events.append(CardFound(known.card, query))
            return
        self._pursue(query, now, asked=True, quiet=quiet)

    def refresh(self, node: NodeId, *, now: float) -> None:
        """Ask a node, and nobody else, for its card although we have one, whose hop key has turned."""
        self._introduce(node, now, quiet=True)

    def adopt(self, member: Member, *, now: float) -> None:
        """Go on with a renewed credential of the same node."""
        self._author.adopt(member)
        self._presence_at = now + self._rng.uniform(0.0, PRESENCE_FIRST_S_MAX)

    # ── what comes in ────────────────────────────────────────────────────────────────────────────────────────────────

    def receive_untrusted(self, arrival: Arrival, *, now: float) -> None:
        """Take one envelope from a channel.  Whatever is wrong with it is a counted drop."""
        try:
            self._receive(arrival, now)
        except RemoteProtocolError as error:
            self._drop(error.reason)

    def handoff(self, token: int, handoff: Handoff, *, now: float) -> None:
        """Say what became of a Transmit; with several channels, the best of what they said."""
        request = self._requests.get(token)
        if request is not None:
            self._request_handed_off(request, handoff, now)
            return
        pursuit = next((entry for entry in self._pursuits.values() if entry.seq == token), None)
        if pursuit is not None:
            self._question_handed_off(pursuit, handoff, now)

    def peer_returned(self, peer: NodeId, *, now: float) -> None:
        """A channel sees the peer (again): what waits for an answer of it, and open questions, go out at once."""
        for request in self._requests.values():
            if request.peer == peer and request.key_id is not None and not request.withdrawn:
                request.absent_count = 0
                request.times.next_at = now
        for pursuit in self._pursuits.values():
            pursuit.times.next_at = now

    # ── doors of a machine ───────────────────────────────────────────────────────────────────────────────────────────

    def next_transmit(self) -> Transmit | None:
        """Return the next envelope to send."""
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> Event | None:
        """Return what happened next."""
        return self._events.popleft() if self._events else None

    def next_timeout(self) -> float:
        """Return when handle_timeout() has something to do."""
        return min(
            self._author.hop_keys.next_timeout(),
            self._presence_at,
            min((request.times.next_at for request in self._requests.values()), default=float("inf")),
            min((pursuit.times.next_at for pursuit in self._pursuits.values()), default=float("inf")),
        )

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        self._author.turn(now)
        if now >= self._presence_at:
            self._presence_at = now + PRESENCE_PERIOD_S * self._rng.uniform(1 - pending.JITTER, 1 + pending.JITTER)
            body = Presence(self._author.card.serial).encode()
            message = self._author.sign(None, self._author.next_seq(), Kind.PRESENCE, body)
            self._transmit(NO_TOKEN, None, None, message)
        for request in [entry for entry in self._requests.values() if entry.times.next_at <= now]:
            if now >= request.times.ends_at:
                self._fail_request(request, "timeout")
            else:
                self._try_request(request, now)
        for pursuit in [entry for entry in self._pursuits.values() if entry.times.next_at <= now]:
            if now >= pursuit.times.ends_at:
                self._end_pursuit(pursuit, "no-answer")
            else:
                self._try_question(pursuit, now)

    # ── what is known ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def own_card(self) -> Card:
        """Our card as it is now."""
        return self._author.card

    def hop_key(self, key_id: bytes) -> SealKey | None:
        """Return our private hop key of that id, for onion layers; None: never ours, or turned and gone."""
        return self._author.hop_keys.find(key_id)

    def card(self, node: NodeId) -> Card | None:
        """Return the node's card, if we have it and it holds."""
        known = self._book.find(node)
        return None if known is None else known.card

    def card_by_address(self, address: IPAddress) -> Card | None:
        """Return the card of the node that owns an overlay address."""
        known = self._book.find_answer(Who(address=address))
        return None if known is None else known.card

    def card_by_name(self, name: str) -> Card | None:
        """Return the card of the node of that name."""
        known = self._book.find_answer(Who(name=name))
        return None if known is None else known.card

    def status(self) -> dict[str, Any]:
        """Return what a person may want to see, as plain data."""
        return {
            "boot": self.boot.hex(),
            "hop_key": self._author.hop_keys.key_id.hex(),
            "cards": len(self._book),
            "requests": len(self._requests),
            "questions": [str(who) for who in self._pursuits],
            "drops": dict(self.drops),
        }

    def erase(self) -> None:
        """Forget the hop keys; nothing sealed to us can be read afterwards."""
        self._author.hop_keys.erase()

    # ── receiving ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _receive(self, arrival: Arrival, now: float) -> None:
        if not self._arrival_budget.take((arrival.channel, arrival.via), now):
            raise RemoteProtocolError("flood")
        if len(arrival.envelope) > ENVELOPE_BYTES_MAX:
            raise RemoteProtocolError("oversized")
        envelope = Envelope.decode_untrusted(arrival.envelope)
        if envelope.to not in (None, self.me):
            raise RemoteProtocolError("not-for-us")
        if envelope.id in self._seen:
            raise RemoteProtocolError("duplicate")
        inner = self._open_untrusted(envelope, arrival, now)
        if inner is None:
            return
        if inner.src == self.me:
            raise RemoteProtocolError("own-echo")
        if not self._source_budget.take((arrival.channel, arrival.via, inner.src), now):
            raise RemoteProtocolError("flood")
        verdict = self._sources.check(inner.src, inner.boot, inner.seq)
        if verdict in (Verdict.OLD_BOOT, Verdict.TOO_OLD):
            raise RemoteProtocolError(verdict.value)
        known, fresh = self._sender_of(inner, now)
        self._author.verify_untrusted(inner, envelope.to, known)
        if inner.kind == Kind.PRESENCE:
            self._see_presence(known, inner, now)
        elif inner.boot > known.card.boot:
            # Restarted, and we hold the card of before: take the new card first, so that the node ends what it agreed
            # with the old process before it hears of the new one.  The sender retries.
            self._introduce(inner.src, now)
            raise RemoteProtocolError("stale-card")
        elif inner.boot < known.card.boot:
            raise RemoteProtocolError("old-boot")
        self._seen.add(envelope.id, now)
        self._sources.accept(inner.src, inner.boot, inner.seq)
        if arrival.via is not None:
            self._events.append(Heard(inner.src, arrival.via))
        if fresh:
            self._store(known, now)
        if verdict is Verdict.REPEATED:
            self._repeat_answer(inner, known, now)
        else:
            self._act(inner, known, now)

    def _open_untrusted(self, envelope: Envelope, arrival: Arrival, now: float) -> Inner | None:
        """Return the message inside; None if it is a question for somebody else, which is nobody's fault."""
        if envelope.key_id is None:
            inner = Inner.decode_untrusted(envelope.payload)
            if inner.kind not in PLAIN_KINDS:
                raise RemoteProtocolError("not-sealed")
            if inner.kind == Kind.WHO and not self._own(Question.decode_untrusted(inner.body).who):
                return None
            return inner
        if envelope.to is None:
            raise RemoteProtocolError("malformed", "sealed for everybody")
        try:
            inner = self._author.unseal_untrusted(envelope.key_id, envelope.payload)
        except RemoteProtocolError as error:
            if error.reason == "unknown-key":
                self._offer_card(arrival.via, now)
            raise
        if inner.kind not in SEALED_KINDS:
            raise RemoteProtocolError("malformed", f"sealed message of kind {inner.kind}")
        return inner

    def _offer_card(self, via: NodeId | None, now: float) -> None:
        """Somebody sealed to a key we do not have: give the neighbour that brought it our card of today.

        If it only forwarded, the sender learns the same by asking, at its second retry, a second after the first try.
        Giving it to everybody would be faster, and would let anyone make us send 14 kB to all with one small envelope.
        """
        if via is not None and self._introduction_budget.take(now):
            message = self._author.sign(via, self._author.next_seq(), Kind.CARD, self._author.card_bytes)
            self._transmit(NO_TOKEN, via, None, message)

    def _sender_of(self, inner: Inner, now: float) -> tuple[KnownCard, bool]:
        """Return the card to verify inner with, and whether it came along and is new."""
        held = self._book.find(inner.src)
        if inner.kind not in (Kind.WHO, Kind.CARD):
            if held is None:
                if inner.kind != Kind.PRESENCE:
                    self._introduce(inner.src, now)
                raise RemoteProtocolError("unknown-sender")
            return held, False
        data = inner.body
        if inner.kind == Kind.WHO:
            data = Question.decode_untrusted(inner.body).card
        elif held is None and not self._wanted(inner):
            raise RemoteProtocolError("unsolicited")
        known = self._book.judge_untrusted(inner.src, data)
        if known.card.boot != inner.boot:
            raise RemoteProtocolError("malformed", "card of another boot than the message")
        return known, known is not held

    def _wanted(self, inner: Inner) -> bool:
        """Say whether somebody here waits for that card: members only fill our book when asked."""
        return any(pursuit.seq == inner.re for pursuit in self._pursuits.values()) or any(
            request.peer == inner.src for request in self._requests.values()
        )

    def _act(self, inner: Inner, known: KnownCard, now: float) -> None:
        """Do what a verified, fresh message says."""
        kind = Kind(inner.kind)
        if kind in (Kind.CARD, Kind.PRESENCE):
            return
        if kind is Kind.WHO:
            card = self._author.sign(
                inner.src, self._author.next_seq(), Kind.CARD, self._author.card_bytes, re=inner.seq
            )
            self._give_answer(self._answers.add(inner.src, inner.boot, inner.seq, card, now, plain=True), known)
            return
        if inner.re != 0:
            request = self._requests.get(inner.re)
            if request is None or request.peer != inner.src:
                raise RemoteProtocolError("late", "answers nothing that is pending")
            del self._requests[inner.re]
        self._events.append(Message(inner.src, kind, inner.body, inner.seq, inner.re, inner.boot))

    def _repeat_answer(self, inner: Inner, known: KnownCard, now: float) -> None:
        answer = self._answers.find(inner.src, inner.boot, inner.seq, now)
        if answer is None:
            raise RemoteProtocolError("replayed")
        self._give_answer(answer, known)

    def _see_presence(self, known: KnownCard, inner: Inner, now: float) -> None:
        """Take notice that a node we know is there; ask for its card if it is another process than the one we knew."""
        Presence.decode_untrusted(inner.body)
        if inner.boot > known.card.boot:
            self._introduce(inner.src, now)

    def _store(self, fresh: KnownCard, now: float) -> None:
        """Keep a verified card, say what it changes, and send what waited for it."""
        replaced = self._book.store(fresh)
        if replaced is not None and replaced.boot != fresh.card.boot:
            self._events.append(CardChanged(fresh.card))
            # It forgot our card with the rest: a question, which carries it, goes ahead of what we seal anew.
            if any(request.peer == fresh.node_id for request in self._requests.values()):
                self._ask(fresh.node_id, Who(node=fresh.node_id), self._author.next_seq())
        for pursuit in [entry for entry in self._pursuits.values() if fresh.answers(entry.who)]:
            del self._pursuits[pursuit.who]
            if pursuit.asked:
                self._events.append(CardFound(fresh.card, pursuit.who))
        for request in [entry for entry in self._requests.values() if entry.peer == fresh.node_id]:
            if request.key_id != fresh.card.hop_key_id and not request.withdrawn:
                self._try_request(request, now)
        for answer in self._answers.sealed_to(fresh.node_id, fresh.card.boot, now):
            if answer.key_id != fresh.card.hop_key_id:
                self._give_answer(answer, fresh)

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _transmit(self, token: int, to: NodeId | None, key_id: bytes | None, payload: bytes) -> None:
        self._transmits.append(Transmit(token, to, self._author.envelope(to, key_id, payload)))

    def _give_answer(self, answer: Answer, to: KnownCard) -> None:
        if answer.plain:
            answer.payload = answer.message
        elif answer.key_id != to.card.hop_key_id:
            answer.key_id = to.card.hop_key_id
            answer.payload = self._author.seal(to, answer.message)
        self._transmit(NO_TOKEN, to.node_id, answer.key_id, answer.payload)

    def _try_request(self, request: Request, now: float) -> None:
        """Send a request, first or again, and set its next time; without a card, ask for the card instead."""
        known = self._book.find(request.peer)
        if known is None:
            request.key_id = None
            request.times.next_at = request.times.ends_at
            self._pursue(Who(node=request.peer), now, asked=False)
            return
        if request.key_id != known.card.hop_key_id:
            request.key_id = known.card.hop_key_id
            request.payload = self._author.seal(known, request.message)
        request.times.tried(now, self._rng)
        self._transmit(request.seq, request.peer, request.key_id, request.payload)
        if request.times.retry_count == len(pending.REQUEST_RETRY_S):
            # Two tries unanswered.  Perhaps it turned its key or forgot us, and its word of it was lost.  Whoever
            # passes the request on would pass the question on too, so nobody else need hear whom we talk to.
            self._pursue(Who(node=request.peer), now, asked=False, quiet=True)

    def _request_handed_off(self, request: Request, handoff: Handoff, now: float) -> None:
        if handoff is Handoff.REFUSED:
            self._fail_request(request, "refused")
        elif handoff is Handoff.ABSENT:
            request.absent_count += 1
            if request.absent_count >= 2:
                self._fail_request(request, "absent")
            elif not request.withdrawn:
                request.times.next_at = min(request.times.next_at, now + pending.ABSENT_RETRY_S)
        else:
            request.absent_count = 0

    def _fail_request(self, request: Request, reason: str) -> None:
        if self._requests.pop(request.seq, None) is not None:
            self._events.append(RequestFailed(request.peer, request.seq, request.kind, reason))

    def _introduce(self, node: NodeId, now: float, *, quiet: bool = False) -> None:
        """Ask a node for its card because of something that is not verified yet: few, and nobody waits for it."""
        if Who(node=node) not in self._pursuits and self._introduction_budget.take(now):
            self._pursue(Who(node=node), now, asked=False, quiet=quiet)

    def _pursue(self, who: Who, now: float, *, asked: bool, quiet: bool = False) -> None:
        running = self._pursuits.get(who)
        if running is not None:
            running.asked = running.asked or asked
            running.quiet = running.quiet and quiet
            return
        if len(self._pursuits) >= pending.QUESTION_COUNT_MAX:
            if asked:
                self._events.append(WhoFailed(who, "busy"))
            return
        times = Timetable(pending.QUESTION_RETRY_S, ends_at=now + pending.QUESTION_TIMEOUT_S, next_at=now)
        pursuit = Pursuit(who, self._author.next_seq(), times, asked, everybody=who.node is None, quiet=quiet)
        self._pursuits[who] = pursuit
        self._try_question(pursuit, now)

    def _try_question(self, pursuit: Pursuit, now: float) -> None:
        """Ask, first or again, unless that is more than our share."""
        if not self._question_budget.take(now):
            wait_s = self._question_budget.wait_s(now) * self._rng.uniform(1.0, 2.0)
            pursuit.times.next_at = min(pursuit.times.ends_at, now + wait_s)
            return
        self._ask(None if pursuit.everybody else pursuit.who.node, pursuit.who, pursuit.seq)
        pursuit.times.tried(now, self._rng)
        pursuit.everybody = not pursuit.quiet

    def _ask(self, to: NodeId | None, who: Who, seq: int) -> None:
        body = Question(who, self._author.card_bytes).encode()
        self._transmit(seq, to, None, self._author.sign(to, seq, Kind.WHO, body))

    def _question_handed_off(self, pursuit: Pursuit, handoff: Handoff, now: float) -> None:
        if handoff is Handoff.REFUSED:
            self._end_pursuit(pursuit, "refused")
        elif handoff is Handoff.ABSENT and pursuit.quiet:
            if pursuit.times.retry_count > 1:
                self._end_pursuit(pursuit, "absent")
        elif handoff is Handoff.ABSENT and pursuit.who.node is not None and pursuit.times.retry_count == 1:
            pursuit.times.next_at = now  # the node is no neighbour: ask the area, now

    def _end_pursuit(self, pursuit: Pursuit, reason: str) -> None:
        """Give a question up, and every request that waits for that card."""
        del self._pursuits[pursuit.who]
        if pursuit.asked:
            self._events.append(WhoFailed(pursuit.who, reason))
        if pursuit.who.node is not None:
            for request in [entry for entry in self._requests.values() if entry.peer == pursuit.who.node]:
                if request.key_id is None:
                    self._fail_request(request, "unknown-peer")

    # ── small things ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _own(self, who: Who) -> bool:
        """Say whether a question asks for us."""
        if who.node is not None:
            return who.node == self.me
        if who.name is not None:
            return who.name == self._author.member.name
        return who.address in self._author.member.addresses

    def _drop(self, reason: str) -> None:
        self.drops[reason] += 1
