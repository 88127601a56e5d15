"""The link machine: one link per adjacent node, from the first wish for it to the last use of it.

                 ┌────────────────failure, somebody still wants it───────────────┐
                 ▼                                                               │
    idle ──► waiting ──slot free, back-off over──► dialing ──Opened──► open ──release──► draining ──linger──► idle
      └─────────────────────OFFER─────────────────────┘                 └◄────acquire──────┘

Decides who dials and when, whose offer wins and when a link may go.  Does not know what a link carries, how its offers
travel or what opens it: signals, commands and events are drained by the caller after every input.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable
from random import Random

from conflux.carrier.interface import (
    AddCandidates,
    CandidatesFound,
    CarrierEvent,
    Closed,
    Command,
    Connect,
    ControlArrived,
    Describe,
    Described,
    Description,
    Disconnect,
    Opened,
    SendControl,
    TetherDown,
    TetherUp,
)
from conflux.control.channel import Kind
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import LinkId, NodeId, format_node_id
from conflux.link.interface import DialFailed, LinkConfig, LinkDown, LinkMessage, LinkUp, Signal
from conflux.link.peer import Attempt, Peer, State
from conflux.link.records import ATTEMPT_BYTES, CANDIDATE_COUNT_MAX, NUMBER_MAX, Answer, Candidates, Offer, Refusal

LinkEvent = LinkUp | LinkDown | LinkMessage | DialFailed | TetherUp | TetherDown

REDIAL_COUNT_MAX = 3  # dials in a row without back-off; a pair that still disagrees then cools down like any failure

# Refusals that say "we two disagree about which attempt is on", not "no".
_DISAGREEMENTS = frozenset({"glare", "stale", "unknown-attempt", "withdrawn"})

# Ends of an open link that are nobody's failure: we closed it, they closed it, their process ended, they dialled anew.
_ORDERLY = frozenset({"asked", "peer", "peer-lost", "replaced"})


class Links:
    """Every link of one node."""

    def __init__(
        self,
        me: NodeId,
        *,
        rng: Random,
        entropy: Callable[[int], bytes],
        config: LinkConfig | None = None,
    ) -> None:
        self.me = me
        self.config = config or LinkConfig()
        self.drop_counts: Counter[str] = Counter()
        self._rng = rng
        self._entropy = entropy
        self._peers: dict[NodeId, Peer] = {}  # bounded by our own users, answer_count_max and the back-off's memory
        self._by_link: dict[LinkId, Peer] = {}
        self._closing: dict[LinkId, NodeId] = {}  # disconnected, Closed not yet seen
        self._waiting: dict[NodeId, None] = {}  # in the order they asked
        self._link_next = 1
        self._signals: deque[Signal] = deque()
        self._commands: deque[Command] = deque()
        self._events: deque[LinkEvent] = deque()

    # ── what the node asks ───────────────────────────────────────────────────────────────────────────────────────────

    def acquire(self, peer: NodeId, user: Hashable, *, now: float) -> LinkId | None:
        """Want a link to peer on behalf of user.  Returns it if it is open; otherwise LinkUp or DialFailed follows.

        Acquiring twice is once.  A user that comes while the peer is backing off gets DialFailed at once, and waits.
        """
        if peer == self.me:
            raise LocalProtocolError("a link to oneself")
        entry = self._peers.setdefault(peer, Peer(peer))
        entry.users.add(user)
        match entry.state:
            case State.OPEN | State.DRAINING:
                assert entry.attempt is not None
                entry.state, entry.wake_at = State.OPEN, None
                return entry.attempt.link
            case State.IDLE:
                if entry.hold_until > now:
                    self._events.append(DialFailed(peer, "backing-off", entry.hold_until))
                self._wait(entry, now=now)
            case State.WAITING | State.DIALING:
                pass
        return None

    def release(self, peer: NodeId, user: Hashable, *, now: float) -> None:
        """Want it no longer.  The last user's leaving starts the linger of an open link and stops a dial of ours."""
        entry = self._peers.get(peer)
        if entry is None or user not in entry.users:
            return
        entry.users.discard(user)
        if entry.users:
            return
        match entry.state:
            case State.OPEN:
                self._drain(entry, now=now)
            case State.WAITING:
                self._rest(entry, now=now)
            case State.DIALING if entry.is_dialing:
                self._abandon(entry, "withdrawn")
                self._rest(entry, now=now)
            case _:
                pass

    def send(self, link: LinkId, data: bytes) -> None:
        """Send one message on the link's conflux.link.1; no-op once the link is down."""
        entry = self._by_link.get(link)
        if entry is None or not entry.is_up:
            self.drop_counts["send-on-closed-link"] += 1
            return
        self._commands.append(SendControl(link, data))

    def link(self, peer: NodeId) -> LinkId | None:
        """Return the open link to peer, or None."""
        entry = self._peers.get(peer)
        return entry.attempt.link if entry is not None and entry.is_up and entry.attempt is not None else None

    def peer_returned(self, peer: NodeId, *, now: float) -> None:
        """Forget past failures: the peer was just heard of, so a dial is worth trying now."""
        entry = self._peers.get(peer)
        if entry is None:
            return
        entry.failure_count, entry.hold_until = 0, now
        if entry.state is State.WAITING:
            self._wait(entry, now=now)
        elif entry.state is State.IDLE:
            self._rest(entry, now=now)

    def peer_lost(self, peer: NodeId, *, now: float) -> None:
        """The process at the other end is gone, or is another one now: nothing opened with it can still work."""
        entry = self._peers.get(peer)
        if entry is None:
            return
        entry.number = 0  # a new process counts from the start
        entry.failure_count, entry.hold_until = 0, now
        match entry.state:
            case State.OPEN | State.DRAINING:
                self._after_down(entry, self._drop_attempt(entry), "peer-lost", now=now)
            case State.DIALING:
                self._drop_attempt(entry)
                self._wait_or_rest(entry, now=now)
            case State.IDLE | State.WAITING:
                self.peer_returned(peer, now=now)

    # ── what the peer says ───────────────────────────────────────────────────────────────────────────────────────────

    def receive_signal(self, peer: NodeId, kind: Kind, body: bytes, seq: int, *, now: float) -> None:
        """Take a verified control message of kind OFFER, ANSWER, CANDIDATES or LINK_REFUSED.

        seq: the message's sequence number, for the answer.  Raises RemoteProtocolError; the state is then unchanged.
        """
        if peer == self.me:
            raise RemoteProtocolError("malformed", "link signalling from oneself")
        match kind:
            case Kind.OFFER:
                self._receive_offer(peer, Offer.decode_untrusted(body), seq, now=now)
            case Kind.ANSWER:
                self._receive_answer(peer, Answer.decode_untrusted(body))
            case Kind.CANDIDATES:
                self._receive_candidates(peer, Candidates.decode_untrusted(body))
            case Kind.LINK_REFUSED:
                self._receive_refusal(peer, Refusal.decode_untrusted(body), now=now)
            case _:
                raise LocalProtocolError(f"{kind!r} is not link signalling")

    def signal_failed(self, peer: NodeId, attempt: bytes, reason: str, *, now: float) -> None:
        """No answer came to a signal that wanted one."""
        entry = self._peers.get(peer)
        if entry is None or entry.attempt is None or entry.attempt.id != attempt or not entry.is_dialing:
            return
        if entry.attempt.remote is None:
            self._drop_attempt(entry)
            self._cool_down(entry, reason, now=now)

    def _receive_offer(self, peer: NodeId, offer: Offer, seq: int, *, now: float) -> None:
        entry = self._peers.get(peer) or Peer(peer)
        current = entry.attempt
        if current is not None:
            if offer.attempt == current.id:
                self._repeat_answer(entry, current, seq)
                return
            crossed = offer.number == current.number
            # The peer gave an attempt up and begins to count anew, as when it sees that we are another process.
            anew = crossed and not current.initiator and seq > current.offer_seq
            crossed = crossed and not anew
            if offer.number < current.number or (crossed and not (current.initiator and peer < self.me)):
                self._refuse(peer, offer.attempt, current.number, "glare" if crossed else "stale", re=seq)
                return
        answer_count = sum(other.is_answering for other in self._peers.values())
        if answer_count >= self.config.answer_count_max and not entry.is_answering:
            self._refuse(peer, offer.attempt, offer.number, "busy", re=seq)
            return
        if entry.is_up:
            self._after_down(entry, self._drop_attempt(entry), "replaced", now=now)
        elif current is not None:
            self._drop_attempt(entry)
        self._peers[peer] = entry
        entry.number = max(entry.number, offer.number)
        attempt = self._begin(entry, offer.attempt, initiator=False, number=offer.number, now=now)
        attempt.remote = offer.description
        attempt.offer_seq = seq
        self._pump(now=now)

    def _repeat_answer(self, entry: Peer, attempt: Attempt, seq: int) -> None:
        """The offer came again: the answer was lost, or is not ready yet."""
        if attempt.initiator:
            self.drop_counts["own-attempt-offered"] += 1
            return
        attempt.offer_seq = seq
        if attempt.local is not None:
            self._answer(entry, attempt, attempt.local)

    def _receive_answer(self, peer: NodeId, answer: Answer) -> None:
        entry = self._peers.get(peer)
        attempt = entry.attempt if entry is not None else None
        if entry is None or attempt is None or answer.attempt != attempt.id or not attempt.initiator:
            # Tell the far side, or it keeps a socket open until its own timeout.
            self.drop_counts["late-answer"] += 1
            self._refuse(peer, answer.attempt, entry.number if entry is not None else 0, "unknown-attempt", re=None)
            return
        if attempt.remote is not None or attempt.local is None:
            self.drop_counts["repeated-answer"] += 1
            return
        attempt.remote = answer.description
        self._connect(attempt, answer.description)

    def _receive_candidates(self, peer: NodeId, found: Candidates) -> None:
        entry = self._peers.get(peer)
        attempt = entry.attempt if entry is not None else None
        if attempt is None or found.attempt != attempt.id:
            self.drop_counts["late-candidates"] += 1
            return
        if attempt.connected:
            self._commands.append(AddCandidates(attempt.link, found.candidates))
        else:
            attempt.early = (attempt.early + found.candidates)[:CANDIDATE_COUNT_MAX]

    def _receive_refusal(self, peer: NodeId, refusal: Refusal, *, now: float) -> None:
        entry = self._peers.get(peer)
        attempt = entry.attempt if entry is not None else None
        if entry is None or attempt is None or refusal.attempt != attempt.id or entry.is_up:
            # Of an open link only its carrier can tell the end: an old word must not cut it.
            self.drop_counts["late-refusal"] += 1
            return
        entry.number = max(entry.number, refusal.number)
        self._drop_attempt(entry)
        if refusal.reason not in _DISAGREEMENTS or entry.redial_count >= REDIAL_COUNT_MAX:
            self._cool_down(entry, f"refused: {refusal.reason}", now=now)
            return
        entry.redial_count += 1
        if refusal.reason == "glare":  # their offer is under way; only its loss makes ours worth repeating
            entry.hold_until = now + self.config.yield_s
        self._wait_or_rest(entry, now=now)

    # ── what the carrier says ────────────────────────────────────────────────────────────────────────────────────────

    def carrier_event(self, event: CarrierEvent, *, now: float) -> None:
        """Take one event of the carrier, in the order they came."""
        if isinstance(event, Closed) and self._closing.pop(event.link, None) is not None:
            return
        entry = self._by_link.get(event.link)
        attempt = entry.attempt if entry is not None else None
        if entry is None or attempt is None:
            self.drop_counts["late-carrier-event"] += 1
            return
        match event:
            case Described(local=local):
                self._described(entry, attempt, local)
            case CandidatesFound(candidates=candidates):
                body = Candidates(attempt.id, candidates[:CANDIDATE_COUNT_MAX]).encode()
                self._signals.append(Signal(entry.node, Kind.CANDIDATES, body, None, attempt.id, answered=False))
            case Opened():
                self._opened(entry, attempt, now=now)
            case Closed(reason=reason):
                was_up = entry.is_up
                del self._by_link[attempt.link]
                entry.attempt = None
                if was_up:
                    self._after_down(entry, attempt, reason, now=now)
                else:
                    self._tell(entry, attempt, "failed")
                    self._cool_down(entry, reason, now=now)
            case ControlArrived(data=data):
                self._events.append(LinkMessage(entry.node, attempt.link, data))
            case TetherUp() | TetherDown():
                self._events.append(event)

    def _described(self, entry: Peer, attempt: Attempt, local: Description) -> None:
        if attempt.local is not None:
            self.drop_counts["described-twice"] += 1
            return
        attempt.local = local
        if attempt.initiator:
            body = Offer(attempt.id, attempt.number, local).encode()
            self._signals.append(Signal(entry.node, Kind.OFFER, body, None, attempt.id, answered=True))
            return
        assert attempt.remote is not None
        self._answer(entry, attempt, local)
        self._connect(attempt, attempt.remote)

    def _opened(self, entry: Peer, attempt: Attempt, *, now: float) -> None:
        if entry.is_up:
            self.drop_counts["opened-twice"] += 1
            return
        attempt.opened_at = now
        entry.redial_count = 0
        self._events.append(LinkUp(entry.node, attempt.link))
        entry.state, entry.wake_at = State.OPEN, None
        if not entry.users:
            self._drain(entry, now=now)
        self._pump(now=now)

    # ── drains and time ──────────────────────────────────────────────────────────────────────────────────────────────

    def next_signal(self) -> Signal | None:
        """Return one control message to send, or None."""
        return self._signals.popleft() if self._signals else None

    def next_command(self) -> Command | None:
        """Return one command for the carrier, or None."""
        return self._commands.popleft() if self._commands else None

    def next_event(self) -> LinkEvent | None:
        """Return one event for the node, or None."""
        return self._events.popleft() if self._events else None

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, in the caller's monotonic seconds; None for never."""
        full = self._dial_count() >= self.config.dial_count_max  # those who wait are then woken by a dial's end
        return min(
            (
                entry.wake_at
                for entry in self._peers.values()
                if entry.wake_at is not None and not (full and entry.state is State.WAITING)
            ),
            default=None,
        )

    def handle_timeout(self, *, now: float) -> None:
        """Do what time asks for: dials too old, back-offs over, links nobody used."""
        due = [entry for entry in self._peers.values() if entry.wake_at is not None and entry.wake_at <= now]
        for entry in due:
            match entry.state:
                case State.DIALING:
                    self._abandon(entry, "timeout")
                    self._cool_down(entry, "timeout", now=now)
                case State.DRAINING:
                    self._after_down(entry, self._drop_attempt(entry), "asked", now=now)
                case State.IDLE:
                    entry.failure_count = 0
                    self._rest(entry, now=now)
                case State.WAITING | State.OPEN:
                    pass  # the pump below serves those who wait
        self._pump(now=now)

    def status(self) -> list[dict[str, object]]:
        """Every peer with a link, the wish for one or a failure remembered, as plain values."""
        closing = [
            {"peer": format_node_id(node), "state": "closed", "link": link} for link, node in self._closing.items()
        ]
        return [entry.status() for entry in self._peers.values()] + closing

    # ── transitions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _pump(self, *, now: float) -> None:
        """Start the dials that may start, first come first served."""
        for node in list(self._waiting):
            if self._dial_count() >= self.config.dial_count_max:
                return
            entry = self._peers[node]
            if entry.hold_until > now:
                continue
            entry.number = min(entry.number + 1, NUMBER_MAX)
            self._begin(entry, self._entropy(ATTEMPT_BYTES), initiator=True, number=entry.number, now=now)

    def _dial_count(self) -> int:
        return sum(entry.is_dialing for entry in self._by_link.values())

    def _begin(self, entry: Peer, attempt_id: bytes, *, initiator: bool, number: int, now: float) -> Attempt:
        link = LinkId(self._link_next)
        self._link_next += 1
        attempt = Attempt(attempt_id, link, initiator, number)
        self._waiting.pop(entry.node, None)
        entry.state, entry.attempt = State.DIALING, attempt
        entry.wake_at = now + self.config.dial_timeout_s
        self._by_link[link] = entry
        self._commands.append(Describe(link, initiator))
        return attempt

    def _connect(self, attempt: Attempt, remote: Description) -> None:
        attempt.connected = True
        self._commands.append(Connect(attempt.link, remote))
        if attempt.early:
            self._commands.append(AddCandidates(attempt.link, attempt.early))
            attempt.early = ()

    def _answer(self, entry: Peer, attempt: Attempt, local: Description) -> None:
        body = Answer(attempt.id, local).encode()
        self._signals.append(Signal(entry.node, Kind.ANSWER, body, attempt.offer_seq, attempt.id, answered=False))

    def _refuse(self, peer: NodeId, attempt: bytes, number: int, reason: str, *, re: int | None) -> None:
        body = Refusal(attempt, number, reason).encode()
        self._signals.append(Signal(peer, Kind.LINK_REFUSED, body, re, attempt, answered=False))

    def _tell(self, entry: Peer, attempt: Attempt, reason: str) -> None:
        """Tell the far side that an attempt it can know of is over."""
        if not attempt.initiator:
            re = attempt.offer_seq if attempt.local is None else None  # the offer still wants its answer
            self._refuse(entry.node, attempt.id, entry.number, reason, re=re)
        elif attempt.local is not None:
            self._refuse(entry.node, attempt.id, entry.number, reason, re=None)

    def _abandon(self, entry: Peer, reason: str) -> None:
        self._tell(entry, self._drop_attempt(entry), reason)

    def _drop_attempt(self, entry: Peer) -> Attempt:
        """Close the attempt or link here; the state is the caller's to set."""
        attempt = entry.attempt
        assert attempt is not None
        entry.attempt = None
        del self._by_link[attempt.link]
        self._closing[attempt.link] = entry.node
        self._commands.append(Disconnect(attempt.link))
        return attempt

    def _drain(self, entry: Peer, *, now: float) -> None:
        assert entry.attempt is not None
        linger_s = self.config.linger_s if entry.attempt.initiator else self.config.answer_linger_s
        entry.state, entry.wake_at = State.DRAINING, now + linger_s

    def _after_down(self, entry: Peer, attempt: Attempt, reason: str, *, now: float) -> None:
        """A link that was up is no more."""
        assert attempt.opened_at is not None
        entry.users.clear()
        self._events.append(LinkDown(entry.node, attempt.link, reason))
        if reason not in _ORDERLY and now - attempt.opened_at < self.config.settle_s:
            self._back_off(entry, now=now)
        else:
            entry.failure_count = 0
        self._rest(entry, now=now)

    def _cool_down(self, entry: Peer, reason: str, *, now: float) -> None:
        """An attempt came to nothing: back off, and tell whoever waits."""
        self._back_off(entry, now=now)
        if entry.users:
            self._events.append(DialFailed(entry.node, reason, entry.hold_until))
        self._wait_or_rest(entry, now=now)

    def _back_off(self, entry: Peer, *, now: float) -> None:
        entry.redial_count = 0
        entry.failure_count += 1
        doublings = min(entry.failure_count - 1, 16)
        span_s = min(self.config.backoff_s_max, self.config.backoff_s_min * 2**doublings)
        entry.hold_until = now + span_s * (0.5 + 0.5 * self._rng.random())

    def _wait_or_rest(self, entry: Peer, *, now: float) -> None:
        if entry.users:
            self._wait(entry, now=now)
        else:
            self._rest(entry, now=now)

    def _wait(self, entry: Peer, *, now: float) -> None:
        entry.state = State.WAITING
        entry.wake_at = entry.hold_until if entry.hold_until > now else None
        self._waiting[entry.node] = None
        self._pump(now=now)

    def _rest(self, entry: Peer, *, now: float) -> None:
        """Nobody wants the peer: remember its failures for a while, and otherwise nothing."""
        self._waiting.pop(entry.node, None)
        entry.state, entry.wake_at = State.IDLE, None
        if entry.failure_count:
            entry.wake_at = entry.hold_until + self.config.backoff_s_max
        else:
            entry.redial_count = 0
            self._peers.pop(entry.node, None)
        self._pump(now=now)
