"""The link machine: one link per adjacent node, from the first wish for it to the last use of it.

                 ┌────────────────failure, the peer still has a user─────────────┐
                 ▼                                                               │
    idle ──► waiting ──slot free, back-off over──► dialing ──Opened──► open ──release──► draining ──linger──► idle
      └─────────────────────OFFER─────────────────────┘                 └◄────acquire──────┘

It decides which node dials and when, whose offer wins and when a link may go.  It does not know what a link carries,
how its offers travel or what opens it: the caller drains signals, commands and events after every input.
It is one file, because each of these inputs moves the same table of peers from state to state.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import replace
from random import Random

from conflux.carrier.interface import (
    CANDIDATE_COUNT_MAX,
    AddCandidates,
    CandidatesFound,
    CarrierEnd,
    CarrierEvent,
    Closed,
    Command,
    Connect,
    ControlArrived,
    Describe,
    Described,
    Description,
    Disconnect,
    LinkKeys,
    Opened,
    SendControl,
    TetherDown,
    TetherUp,
)
from conflux.control.envelope import Kind
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import LinkId, NodeId
from conflux.link.event import (
    DialEnd,
    DialFailed,
    Drop,
    Event,
    LinkConfig,
    LinkDown,
    LinkEnd,
    LinkMessage,
    LinkStatus,
    LinkUp,
    Signal,
)
from conflux.link.peer import Attempt, Peer, State
from conflux.link.records import (
    ATTEMPT_BYTES,
    DISAGREEMENTS,
    NUMBER_MAX,
    Answer,
    Candidates,
    Offer,
    Refusal,
    RefusalWord,
)
from conflux.realm.listbook import DIGEST_BYTES

REDIAL_COUNT_MAX = 3  # dials in a row without back-off; a pair that still disagrees then cools down like any failure

# Ends of an open link that count as no failure: let go by either end, its process ended, or it dialled anew.
_ORDERLY = frozenset(LinkEnd) - {LinkEnd.FAILED}

# The carrier's orderly ends; each other one is a failure.
_CARRIER_ENDS = {CarrierEnd.ASKED: LinkEnd.ASKED, CarrierEnd.PEER: LinkEnd.PEER}


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
        self._lists: Callable[[], bytes] = lambda: bytes(DIGEST_BYTES)
        self._lists_told: Callable[[NodeId, bytes, float], None] = lambda peer, digest, now: None
        self._rng = rng
        self._entropy = entropy
        # Bounded by the users of this node, by answer_count_max and by how long a failure is remembered.
        self._peers: dict[NodeId, Peer] = {}
        self._by_link: dict[LinkId, Peer] = {}
        self._closing: dict[LinkId, NodeId] = {}  # disconnected, Closed not yet seen
        self._waiting: dict[NodeId, None] = {}  # in the order they asked
        self._link_next = 1
        self._signals: deque[Signal] = deque()
        self._commands: deque[Command] = deque()
        self._events: deque[Event] = deque()

    def compare_lists(self, lists: Callable[[], bytes], told: Callable[[NodeId, bytes, float], None]) -> None:
        """Tell peers the digest of this node's signed lists, which lists() returns; told() takes that of a peer."""
        self._lists, self._lists_told = lists, told

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
                    self._events.append(DialFailed(peer, DialEnd.BACKING_OFF, entry.hold_until))
                self._wait(entry, now=now)
            case State.WAITING | State.DIALING:
                pass
        return None

    def release(self, peer: NodeId, user: Hashable, *, now: float) -> None:
        """Want a link no longer.  When the last user leaves, an open link lingers and a dial of this node stops."""
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
                self._abandon(entry, RefusalWord.WITHDRAWN)
                self._rest(entry, now=now)
            case _:
                pass

    def send(self, link: LinkId, data: bytes) -> None:
        """Send one message on the link's conflux.link.1; no-op once the link is down."""
        entry = self._by_link.get(link)
        if entry is None or not entry.is_up:
            self._drop(Drop.SEND_ON_CLOSED_LINK)
            return
        self._commands.append(SendControl(link, data))

    def link(self, peer: NodeId) -> LinkId | None:
        """Return the open link to peer, or None."""
        entry = self._peers.get(peer)
        return entry.attempt.link if entry is not None and entry.is_up and entry.attempt is not None else None

    def described_at(self, peer: NodeId) -> float | None:
        """Return since when the peer may have this node's description of their link.

        infinity: the carrier makes it at this moment.  None: there is no link, and none is being opened.
        """
        entry = self._peers.get(peer)
        attempt = None if entry is None else entry.attempt
        if attempt is None:
            return None
        return float("inf") if attempt.described_at is None else attempt.described_at

    def offers(self, peer: NodeId, attempt: bytes) -> bool:
        """Say whether an offer of this node is still without an answer."""
        entry = self._peers.get(peer)
        current = None if entry is None else entry.attempt
        return current is not None and current.initiator and current.id == attempt and current.remote is None

    def offer_anew(self, peer: NodeId, attempt: bytes, *, now: float) -> None:
        """Give up an offer of this node without an answer, and make another.  No-op if it has one."""
        entry = self._peers.get(peer)
        if entry is None or not self.offers(peer, attempt):
            return
        self._drop_attempt(entry)
        if entry.redial_count >= REDIAL_COUNT_MAX:
            self._cool_down(entry, DialEnd.NO_ANSWER, now=now)
            return
        entry.redial_count += 1
        self._wait_or_rest(entry, now=now)

    def can_be_keyed(self, peer: NodeId, attempt: bytes) -> bool:
        """Say whether the carrier has yet to be told to connect an attempt: only then it can be given keys."""
        entry = self._peers.get(peer)
        if entry is None or entry.attempt is None or entry.attempt.id != attempt:
            return False
        link = entry.attempt.link
        return any(isinstance(command, Connect) and command.link == link for command in self._commands)

    def answered_by_secret(self, peer: NodeId, attempt: bytes, keys: LinkKeys | None) -> None:
        """Take note that this node's answer went along with a resumption.  keys: only if can_be_keyed().

        To be called as soon as next_signal() has given the answer out: the carrier gets the keys with Connect.
        """
        entry = self._peers.get(peer)
        if entry is not None and entry.attempt is not None and entry.attempt.id == attempt:
            entry.attempt.by_secret, entry.attempt.keys = True, keys

    def peer_returned(self, peer: NodeId, *, now: float) -> None:
        """Forget past failures: the peer was just heard of, so a dial may succeed now."""
        entry = self._peers.get(peer)
        if entry is None:
            return
        entry.failure_count, entry.hold_until = 0, now
        if entry.state is State.WAITING:
            self._wait(entry, now=now)
        elif entry.state is State.IDLE:
            self._rest(entry, now=now)

    def peer_lost(self, peer: NodeId, *, now: float) -> None:
        """The peer's process is gone, or is another one now: nothing opened with it can still work."""
        entry = self._peers.get(peer)
        if entry is None:
            return
        entry.number = 0  # a new process counts from the start
        entry.failure_count, entry.hold_until = 0, now
        if entry.attempt is None:
            self.peer_returned(peer, now=now)
        else:
            self._end_attempt(entry, LinkEnd.PEER_LOST, now=now)

    def peer_signed(self, peer: NodeId, *, now: float) -> None:
        """End a link that a secret opened: the peer has none that serves, so perhaps it was somebody else."""
        entry = self._peers.get(peer)
        if entry is None or entry.attempt is None or not entry.attempt.by_secret:
            return
        entry.number = 0  # it was perhaps somebody else's
        self._end_attempt(entry, LinkEnd.SIGNED, now=now)

    def _end_attempt(self, entry: Peer, end: LinkEnd, *, now: float) -> None:
        if entry.is_up:
            self._after_down(entry, self._drop_attempt(entry), end, now=now)
        else:
            self._drop_attempt(entry)
            self._wait_or_rest(entry, now=now)

    def peer_revoked(self, peer: NodeId, *, now: float) -> None:
        """End the link to a peer that is a member no more, and every wish for one."""
        entry = self._peers.get(peer)
        if entry is None:
            return
        waited = bool(entry.users) and not entry.is_up
        entry.failure_count, entry.hold_until = 0, now
        if entry.is_up:
            self._after_down(entry, self._drop_attempt(entry), LinkEnd.REVOKED, now=now)
            return
        entry.users.clear()
        if entry.state is State.DIALING:
            self._drop_attempt(entry)
        self._rest(entry, now=now)
        if waited:
            self._events.append(DialFailed(peer, DialEnd.REVOKED, now))

    def peer_of(self) -> dict[LinkId, NodeId]:
        """Return which node is at the other end of each link, also of one that is closing."""
        return {link: entry.node for link, entry in self._by_link.items()} | self._closing

    def peers(self) -> tuple[NodeId, ...]:
        """Return every node that this one has a link with, or wants one to."""
        return tuple(self._peers)

    # ── what the peer says ───────────────────────────────────────────────────────────────────────────────────────────

    def receive_signal(
        self,
        peer: NodeId,
        kind: Kind,
        body: bytes,
        seq: int,
        *,
        by_secret: bool = False,
        keys: LinkKeys | None = None,
        now: float,
    ) -> None:
        """Take a verified control message of kind OFFER, ANSWER, CANDIDATES or LINK_REFUSED.

        seq: the message's sequence number, for the answer.  by_secret: it came along with a resumption.  keys: agreed
        on there, with an answer.  Raises RemoteProtocolError; the state is then unchanged.
        """
        if peer == self.me:
            raise RemoteProtocolError("malformed", "link signalling from oneself")
        match kind:
            case Kind.OFFER:
                offer = Offer.decode_untrusted(body)
                self._lists_told(peer, offer.lists, now)
                self._receive_offer(peer, offer, seq, by_secret=by_secret, now=now)
            case Kind.ANSWER:
                answer = Answer.decode_untrusted(body)
                self._lists_told(peer, answer.lists, now)
                self._receive_answer(peer, answer, by_secret=by_secret, keys=keys)
            case Kind.CANDIDATES:
                self._receive_candidates(peer, Candidates.decode_untrusted(body))
            case Kind.LINK_REFUSED:
                self._receive_refusal(peer, Refusal.decode_untrusted(body), now=now)
            case _:
                raise LocalProtocolError(f"{kind!r} is not link signalling")

    def signal_failed(self, peer: NodeId, attempt: bytes, said: str, *, now: float) -> None:
        """No answer came to a signal that wanted one.  said: the control plane's word for it."""
        entry = self._peers.get(peer)
        if entry is None or entry.attempt is None or entry.attempt.id != attempt or not entry.is_dialing:
            return
        if entry.attempt.remote is None:
            self._drop_attempt(entry)
            self._cool_down(entry, DialEnd.NO_ANSWER, said, now=now)

    def _receive_offer(self, peer: NodeId, offer: Offer, seq: int, *, by_secret: bool, now: float) -> None:
        entry = self._peers.get(peer) or Peer(peer)
        current = entry.attempt
        if current is not None:
            if offer.attempt == current.id:
                self._repeat_answer(entry, current, seq)
                return
            crossed = offer.number == current.number
            # The peer gave an attempt up and counts from the start, as it does when it sees that this node restarted.
            # Or a secret made the other one, which was perhaps somebody else's: then its number counts for nothing.
            anew = not current.initiator and (
                (crossed and seq > current.offer_seq) or (current.by_secret and not by_secret)
            )
            is_late = offer.number < current.number and not anew
            crossed = crossed and not anew
            if is_late or (crossed and not (current.initiator and peer < self.me)):
                # Over an open link no offers cross: the peer lost it, and may dial again at once with a higher number.
                word = RefusalWord.GLARE if crossed and not entry.is_up else RefusalWord.STALE
                self._refuse(peer, offer.attempt, current.number, word, re=seq)
                return
        answer_count = sum(other.is_answering for other in self._peers.values())
        if answer_count >= self.config.answer_count_max and not entry.is_answering:
            self._refuse(peer, offer.attempt, offer.number, RefusalWord.BUSY, re=seq)
            return
        if entry.is_up:
            self._after_down(entry, self._drop_attempt(entry), LinkEnd.REPLACED, now=now)
        elif current is not None:
            self._drop_attempt(entry)
        self._peers[peer] = entry
        entry.number = max(entry.number, offer.number)
        attempt = self._begin(entry, offer.attempt, initiator=False, number=offer.number, now=now)
        attempt.remote = offer.description
        attempt.offer_seq, attempt.by_secret = seq, by_secret
        self._pump(now=now)

    def _repeat_answer(self, entry: Peer, attempt: Attempt, seq: int) -> None:
        """Answer an offer that came again: the answer was lost, or is not ready yet."""
        if attempt.initiator:
            self._drop(Drop.OWN_ATTEMPT_OFFERED)
            return
        attempt.offer_seq = seq
        if attempt.local is not None:
            self._answer(entry, attempt, attempt.local)

    def _receive_answer(self, peer: NodeId, answer: Answer, *, by_secret: bool, keys: LinkKeys | None) -> None:
        entry = self._peers.get(peer)
        attempt = entry.attempt if entry is not None else None
        if entry is None or attempt is None or answer.attempt != attempt.id or not attempt.initiator:
            # Tell the far end, or it keeps a socket open until its own timeout.
            self._drop(Drop.LATE_ANSWER)
            self._refuse(
                peer, answer.attempt, entry.number if entry is not None else 0, RefusalWord.UNKNOWN_ATTEMPT, re=None
            )
            return
        if attempt.remote is not None or attempt.local is None:
            self._drop(Drop.REPEATED_ANSWER)
            return
        attempt.remote, attempt.by_secret, attempt.keys = answer.description, by_secret, keys
        self._connect(attempt, answer.description)

    def _receive_candidates(self, peer: NodeId, found: Candidates) -> None:
        entry = self._peers.get(peer)
        attempt = entry.attempt if entry is not None else None
        if attempt is None or found.attempt != attempt.id:
            self._drop(Drop.LATE_CANDIDATES)
            return
        if attempt.connected:
            self._commands.append(AddCandidates(attempt.link, found.candidates))
        else:
            attempt.early = (attempt.early + found.candidates)[:CANDIDATE_COUNT_MAX]

    def _receive_refusal(self, peer: NodeId, refusal: Refusal, *, now: float) -> None:
        entry = self._peers.get(peer)
        attempt = entry.attempt if entry is not None else None
        if entry is None or attempt is None or refusal.attempt != attempt.id or entry.is_up:
            # Only the carrier can end an open link: a refusal that comes late must not.
            self._drop(Drop.LATE_REFUSAL)
            return
        entry.number = max(entry.number, refusal.number)
        self._drop_attempt(entry)
        if refusal.reason not in DISAGREEMENTS or entry.redial_count >= REDIAL_COUNT_MAX:
            self._cool_down(entry, DialEnd.REFUSED, refusal.reason, now=now)
            return
        entry.redial_count += 1
        if refusal.reason == RefusalWord.GLARE:
            # The peer's offer is under way; another one of this node helps only if that is lost.
            entry.hold_until = now + self.config.yield_s
        self._wait_or_rest(entry, now=now)

    # ── what the carrier says ────────────────────────────────────────────────────────────────────────────────────────

    def carrier_event(self, event: CarrierEvent, *, now: float) -> None:
        """Take one event of the carrier; the caller keeps their order."""
        if isinstance(event, Closed) and self._closing.pop(event.link, None) is not None:
            return
        entry = self._by_link.get(event.link)
        attempt = entry.attempt if entry is not None else None
        if entry is None or attempt is None:
            self._drop(Drop.LATE_CARRIER_EVENT)
            return
        match event:
            case Described(local=local):
                self._described(entry, attempt, local, now=now)
            case CandidatesFound(candidates=candidates):
                body = Candidates(attempt.id, candidates[:CANDIDATE_COUNT_MAX]).encode()
                self._signals.append(Signal(entry.node, Kind.CANDIDATES, body, None, attempt.id, answered=False))
            case Opened():
                self._opened(entry, attempt, now=now)
            case Closed(end=carrier_end, words=words):
                was_up = entry.is_up
                del self._by_link[attempt.link]
                entry.attempt = None
                if was_up:
                    end = _CARRIER_ENDS.get(carrier_end, LinkEnd.FAILED)
                    self._after_down(entry, attempt, end, words if end is LinkEnd.FAILED else "", now=now)
                else:
                    self._tell(entry, attempt, RefusalWord.FAILED)
                    self._cool_down(entry, DialEnd.FAILED, words, now=now)
            case ControlArrived(data=data):
                self._events.append(LinkMessage(entry.node, attempt.link, data))
            case TetherUp() | TetherDown():
                self._events.append(event)

    def _described(self, entry: Peer, attempt: Attempt, local: Description, *, now: float) -> None:
        if attempt.local is not None:
            self._drop(Drop.DESCRIBED_TWICE)
            return
        attempt.local, attempt.described_at = local, now
        if attempt.initiator:
            body = Offer(attempt.id, attempt.number, local, self._lists()).encode()
            self._signals.append(Signal(entry.node, Kind.OFFER, body, None, attempt.id, answered=True))
            return
        assert attempt.remote is not None
        self._answer(entry, attempt, local)
        self._connect(attempt, attempt.remote)

    def _opened(self, entry: Peer, attempt: Attempt, *, now: float) -> None:
        if entry.is_up:
            self._drop(Drop.OPENED_TWICE)
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
        """Return one command for the carrier, or None.  Drain next_signal() first: see answered_by_secret()."""
        command = self._commands.popleft() if self._commands else None
        if isinstance(command, Connect) and (entry := self._by_link.get(command.link)) is not None:
            assert entry.attempt is not None
            keys, entry.attempt.keys = entry.attempt.keys, None
            return replace(command, keys=keys)
        return command

    def next_event(self) -> Event | None:
        """Return one event for the node, or None."""
        return self._events.popleft() if self._events else None

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called, in the caller's monotonic seconds; None for never."""
        full = self._dial_count() >= self.config.dial_count_max  # the end of a dial then wakes the next peer that waits
        return min(
            (
                entry.wake_at
                for entry in self._peers.values()
                if entry.wake_at is not None and not (full and entry.state is State.WAITING)
            ),
            default=None,
        )

    def handle_timeout(self, *, now: float) -> None:
        """Give up dials that are too old, dial again after a back-off, and close links without a user."""
        due = [entry for entry in self._peers.values() if entry.wake_at is not None and entry.wake_at <= now]
        for entry in due:
            match entry.state:
                case State.DIALING:
                    self._abandon(entry, RefusalWord.TIMEOUT)
                    self._cool_down(entry, DialEnd.TIMEOUT, now=now)
                case State.DRAINING:
                    self._after_down(entry, self._drop_attempt(entry), LinkEnd.ASKED, now=now)
                case State.IDLE:
                    entry.failure_count = 0
                    self._rest(entry, now=now)
                case State.WAITING | State.OPEN:
                    pass  # _pump() below serves the peers that wait
        self._pump(now=now)

    def status(self) -> tuple[LinkStatus, ...]:
        """Return every peer with a link, with a wish for one or with failures remembered."""
        closing = (LinkStatus(node, "closed", link) for link, node in self._closing.items())
        return (*(entry.status() for entry in self._peers.values()), *closing)

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
        body = Answer(attempt.id, local, self._lists()).encode()
        self._signals.append(Signal(entry.node, Kind.ANSWER, body, attempt.offer_seq, attempt.id, answered=False))

    def _refuse(self, peer: NodeId, attempt: bytes, number: int, word: RefusalWord, *, re: int | None) -> None:
        body = Refusal(attempt, number, word).encode()
        self._signals.append(Signal(peer, Kind.LINK_REFUSED, body, re, attempt, answered=False))

    def _tell(self, entry: Peer, attempt: Attempt, word: RefusalWord) -> None:
        """Tell the far end that an attempt which it can know of is over."""
        if not attempt.initiator:
            re = attempt.offer_seq if attempt.local is None else None  # the offer still wants its answer
            self._refuse(entry.node, attempt.id, entry.number, word, re=re)
        elif attempt.local is not None:
            self._refuse(entry.node, attempt.id, entry.number, word, re=None)

    def _abandon(self, entry: Peer, word: RefusalWord) -> None:
        self._tell(entry, self._drop_attempt(entry), word)

    def _drop_attempt(self, entry: Peer) -> Attempt:
        """Close the attempt or link here; the caller sets the state."""
        attempt = entry.attempt
        assert attempt is not None
        entry.attempt, attempt.keys = None, None
        del self._by_link[attempt.link]
        self._closing[attempt.link] = entry.node
        self._commands.append(Disconnect(attempt.link))
        return attempt

    def _drain(self, entry: Peer, *, now: float) -> None:
        assert entry.attempt is not None
        linger_s = self.config.linger_s if entry.attempt.initiator else self.config.answer_linger_s
        entry.state, entry.wake_at = State.DRAINING, now + linger_s

    def _after_down(self, entry: Peer, attempt: Attempt, end: LinkEnd, said: str = "", *, now: float) -> None:
        """Tell of a link that was up and is no more."""
        assert attempt.opened_at is not None
        entry.users.clear()
        self._events.append(LinkDown(entry.node, attempt.link, end, said))
        if end not in _ORDERLY and now - attempt.opened_at < self.config.settle_s:
            self._back_off(entry, now=now)
        else:
            entry.failure_count = 0
        self._rest(entry, now=now)

    def _cool_down(self, entry: Peer, end: DialEnd, said: str = "", *, now: float) -> None:
        """Back off after an attempt that came to nothing, and tell the users that wait."""
        self._back_off(entry, now=now)
        if entry.users:
            self._events.append(DialFailed(entry.node, end, entry.hold_until, said))
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
        """Remember a peer without users only for its failures, and those only for a while."""
        self._waiting.pop(entry.node, None)
        entry.state, entry.wake_at = State.IDLE, None
        if entry.failure_count:
            entry.wake_at = entry.hold_until + self.config.backoff_s_max
        else:
            entry.redial_count = 0
            self._peers.pop(entry.node, None)
        self._pump(now=now)

    def _drop(self, reason: Drop) -> None:
        self.drop_counts[reason] += 1
