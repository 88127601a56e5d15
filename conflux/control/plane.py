"""The control plane: what all channels have in common, once.

    Arrival ─► receive_untrusted() ─► arrivals.py verifies ───────────────► next_event()    ─► node
    node    ─► request(), reply()  ─► sign, seal, retry (requests.py) ────► next_transmit() ─► channels

It signs and seals, verifies and unseals, retries and repeats answers, finds cards by question, and drops what is
forged, foreign, replayed or too much.  It knows no engine and does no I/O.

Recovery: a peer that restarted, or replaced its hop key, cannot read what this node seals.  It answers with its new
card (or this node asks for it, at the second retry), and pending messages go out again at once, sealed to the new key.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Hashable

from conflux.budget import BudgetTable
from conflux.control.arrivals import Arrivals, Verified
from conflux.control.author import Author
from conflux.control.cards import CardBook, KnownCard
from conflux.control.chains import Chains
from conflux.control.channel import Arrival
from conflux.control.choice import Handed
from conflux.control.drop import Drop
from conflux.control.ended import Ended
from conflux.control.envelope import Inner, Kind, Reach
from conflux.control.event import (
    CardChanged,
    CardFound,
    Event,
    Heard,
    Learnt,
    ListLearnt,
    Message,
    PlaneStatus,
    Transmit,
    Unanswered,
    WhoFailed,
)
from conflux.control.giving import Giving
from conflux.control.lists import Lists
from conflux.control.missing import Missing
from conflux.control.near import Near
from conflux.control.pairs import NO_TOKEN, Pairs
from conflux.control.pending import Answer, Answers
from conflux.control.policies import Policies
from conflux.control.presence import Presences
from conflux.control.questions import Ask, Questions
from conflux.control.requests import Requests
from conflux.control.who import Presence, Question, Who
from conflux.crypto.seal import SealKey
from conflux.errors import RemoteProtocolError
from conflux.ids import BootId, NodeId
from conflux.realm.card import Card
from conflux.realm.credential import Chain
from conflux.realm.listbook import ListBook
from conflux.realm.lists import SignedList
from conflux.realm.member import Member
from conflux.realm.policy import SignedPolicy
from conflux.realm.policybook import PolicyBook

REFRESH = "refresh"  # what this node itself wants to know anew is in no channel's budget
BEHIND_COUNT_MAX = 1024
# How often the whole area is asked for a node that a broker does not find, per second and at once, for each node.  It
# may have moved behind another one; most often it is off, and the question is 14 kB, four times.
LOOK_AROUND_RATE, LOOK_AROUND_BURST = 1 / 300, 1.0
PATH_COUNT_MAX = 256  # that were heard and not collected yet; one that is lost is heard again


class ControlPlane:
    """One node's part in every control channel.

    boot: larger than any boot id that this node used before.  clock: unix seconds, for dates in credentials only.
    observe: is given dates that the realm has signed; a clock behind them should catch up.  book: the signed lists that
    were kept, policies: the policies; None: this node holds none yet.
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
        book: ListBook | None = None,
        policies: PolicyBook | None = None,
        new_hop_key: Callable[[], SealKey] = SealKey.generate,
    ) -> None:
        self.me = member.node_id
        self.boot = boot
        self.drops: Counter[str] = Counter()
        self._rng = rng
        self._clock = clock
        self._author = Author(member, boot=boot, entropy=entropy, now=now, features=features, new_hop_key=new_hop_key)
        book = ListBook(member.anchor, clock) if book is None else book
        self.lists = Lists(book, me=self.me, rng=rng)
        policies = policies or PolicyBook(book, clock, observe=observe)
        self.policies = Policies(policies, me=self.me, rng=rng, clock=clock)
        book.note(member.chain)
        self.chains = Chains()
        self._grants = self.chains.grants
        self._grants.learn(member.chain)
        self.near = Near(self._author)
        self._book = CardBook(member.anchor, clock, observe, book.judge, self.chains)
        self._was_revoked = self.is_revoked
        self._requests = Requests(author=self._author, book=self._book, denies=book.denies, rng=rng)
        self._questions = Questions(
            next_seq=self._author.next_seq, rng=rng, repeats=lambda: self._missing.is_far or self._book.knows_earlier
        )
        self._answers = Answers()
        self.pairs = Pairs(self._author, self._book)
        self._arrivals = Arrivals(
            author=self._author,
            book=self._book,
            lists=self.lists,
            policies=self.policies,
            wanted=self._wanted,
            introduce=self._introduce,
            ask_back=self._ask_back,
            follow=lambda node, now: self.refresh(node, now=now),
            offer_card=self._offer_card,
            paired=self.pairs.take,
        )
        self._giving = Giving()
        self.presences = Presences(rng=rng, now=now)
        self._transmits: deque[Transmit] = deque()
        self._events: deque[Event] = deque()
        self._paths: deque[Learnt] = deque(maxlen=PATH_COUNT_MAX)
        self._behind: dict[NodeId, None] = {}  # nodes whose last message another node handed to a broker
        self._missing = Missing()
        self._looks = BudgetTable(LOOK_AROUND_RATE, LOOK_AROUND_BURST, BEHIND_COUNT_MAX)

    # ── commands of the node ──────────────────────────────────────────────────────────────────────────────────────────

    def request(self, peer: NodeId, kind: Kind, body: bytes, *, now: float) -> int:
        """Send a message that wants an answer; return its token.

        The answer is a Message with re == token; without one, RequestFailed follows.  A missing card of the peer is
        asked for first.
        """
        token = self._requests.request(peer, kind, body, now=now)
        self._drain(now)
        return token

    def withdraw(self, token: int) -> None:
        """Do not send a request again.  An answer that arrives all the same is still a Message."""
        self._requests.withdraw(token)

    def reply(self, to: Message, kind: Kind, body: bytes, *, now: float) -> None:
        """Answer a message.  If it arrives again, the plane repeats the identical answer by itself."""
        message = self._author.sign(to.peer, self._author.next_seq(), kind, body, re=to.seq)
        known = self._book.find(to.peer)
        if known is None:
            self._drop(Drop.NO_CARD)
            return
        self._give_answer(self._answers.add(to.peer, to.boot, to.seq, message, now), known)

    def notify(self, peer: NodeId, kind: Kind, body: bytes, *, now: float) -> None:
        """Send a message once and expect no answer; it is dropped without a card of the peer."""
        known = self._book.find(peer)
        if known is None:
            self._drop(Drop.NO_CARD)
            return
        message = self._author.sign(peer, self._author.next_seq(), kind, body)
        self._transmit(NO_TOKEN, peer, known.card.hop_key_id, self._author.seal(known, message))

    def who(self, query: Who, *, now: float, quiet: bool = False) -> None:
        """Ask which node owns an address, a name or a node id, or has a feature.  CardFound or WhoFailed follows.

        CardFound follows at once if the card is known.  Of a feature's nodes, the first that answers is found.
        quiet: ask only the node itself, which query then names.
        """
        if self._author.owns(query):
            self._events.append(CardFound(self._author.card, query))
            return
        known = self._book.find_answer(query)
        if known is not None:
            self._events.append(CardFound(known.card, query))
            return
        if self._missing.holds(query, now):
            self._events.append(WhoFailed(query, Unanswered.NO_ANSWER))
            return
        if query.node is not None and self.lists.book.denies(query.node):
            self._events.append(WhoFailed(query, Unanswered.REVOKED))
            return
        self._ask(query, now, asked=True, quiet=quiet)

    def refresh(self, node: NodeId, *, now: float) -> None:
        """Ask a node, and only that node, for its card again: the hop key or the credential on ours is an older one."""
        self._ask_stranger(node, REFRESH, node, now, quiet=True)

    def seek(self, node: NodeId, arrival: Arrival, *, now: float) -> None:
        """Ask for a node's card, first the node itself, because of an envelope that this node passes on to it."""
        if self._book.find(node) is None:
            self._introduce(node, arrival, now)

    def adopt(self, member: Member, *, now: float) -> None:
        """Use a renewed credential of the same node from now on."""
        self._author.adopt(member)
        self._grants.learn(member.chain)
        self.lists.book.note(member.chain)
        self.presences.soon(Reach.NEAR, now=now)

    def describe(self, features: tuple[str, ...], *, now: float) -> None:
        """Say other features of this node on its card from now on."""
        self._author.describe(features)
        self.presences.soon(Reach.NEAR, now=now)

    def publish(self, signed: SignedList | SignedPolicy, *, now: float) -> None:
        """Send what was signed here to everybody, and hold to it.  Raises RemoteProtocolError."""
        if isinstance(signed, SignedPolicy):
            self.policies.publish(signed, now=now)
        else:
            self.lists.publish(signed, now=now)
        self._drain_lists(now)

    def told_untrusted(self, data: bytes, *, now: float) -> None:
        """Take a signed list that came by another way than an envelope."""
        try:
            self.lists.receive_untrusted(self.me, Kind.LIST, data, "told", now=now)
        except RemoteProtocolError as error:
            self._drop(error.reason)
        self._drain_lists(now)

    def hear_lists(self, peer: NodeId, digest: bytes, *, now: float) -> None:
        """Compare with the digest of a peer's signed lists, which it told this node."""
        self.lists.hear(peer, digest, now=now, direct=True)
        self._drain_lists(now)

    # ── inputs of the channels ────────────────────────────────────────────────────────────────────────────────────────

    def receive_untrusted(self, arrival: Arrival, *, now: float) -> None:
        """Take one envelope from a channel.  Anything wrong with it is a counted drop."""
        try:
            verified = self._arrivals.verify_untrusted(arrival, now=now)
            if verified is not None:
                self._take(verified, arrival, now)
                if verified.fresh and (resumed := self._arrivals.resume_untrusted(verified.inner.src, now=now)):
                    self._take(*resumed, now)
        except RemoteProtocolError as error:
            if error.reason == Drop.UNKNOWN_SENDER:
                self._missing.clear()  # a node is there that was not known
            self._drop(error.reason)
        self._drain_lists(now)

    def handoff(self, token: int, handed: Handed, *, now: float) -> None:
        """Take note what became of a Transmit."""
        self._requests.handed_off(token, handed, now=now)
        self._questions.handed_off(token, handed, now=now)
        self._drain(now)

    def absent(self, peer: NodeId, channel: str, *, now: float) -> None:
        """Take note that nobody took what a channel had accepted for a peer.

        What no other channel took counts as absent for that try.  A peer that was behind another node may be behind a
        third one by now, or the one between may be back: the peer is asked for at every absence, and the answer comes
        that way.  One that was behind none may have moved, and is asked for now and then.
        """
        if self._requests.absent(peer, channel, now=now) and (peer in self._behind or self._looks.take(peer, now)):
            self._questions.ask(Who(node=peer), asked=False, quiet=False, area=True, now=now)
        self._questions.absent(peer, channel, now=now)
        self._drain(now)

    def peer_returned(self, peer: NodeId, *, now: float) -> None:
        """Take note that a channel sees the peer (again).

        The next handle_timeout() repeats every request to it, and every open question.
        """
        self._missing.clear()
        self.lists.met(now=now)
        self._say_presence(peer)
        self._requests.hurry(peer, now=now)
        self._questions.hurry(now=now)

    def channel_up(self, *, now: float) -> None:
        """Take note that a channel without neighbours came up.

        The nodes that hear of this one there compare its lists with theirs.  The next handle_timeout() repeats every
        request and question.
        """
        self._missing.reach_far()
        self.lists.met(now=now)
        self._say_presence(None)
        self._requests.hurry(None, now=now)
        self._questions.hurry(now=now)

    def bridge_up(self) -> None:
        """Take note that a neighbour passes on what is for nodes beyond."""
        self._missing.reach_far()

    # ── doors of a machine ────────────────────────────────────────────────────────────────────────────────────────────

    def next_transmit(self) -> Transmit | None:
        """Return the next envelope to send."""
        return self._transmits.popleft() if self._transmits else self.pairs.next_transmit()

    def next_event(self) -> Event | None:
        """Return the next event."""
        return self._events.popleft() if self._events else None

    def next_path(self) -> Learnt | None:
        """Return the path of a broker by which a node was heard."""
        return self._paths.popleft() if self._paths else None

    def next_timeout(self) -> float:
        """Return when handle_timeout() has something to do; there is always a presence to come."""
        others = (self._requests, self._questions, self.lists, self.policies)
        due = [at for at in (each.next_timeout() for each in others) if at is not None]
        return min(self._author.next_timeout(), self.presences.next_timeout(), *due)

    def handle_timeout(self, *, now: float) -> None:
        """Do what is due."""
        self._author.handle_timeout(now=now)
        if (reach := self.presences.take_due(now=now)) is not None:
            self._say_presence(None, reach)
        self._requests.handle_timeout(now=now)
        self._questions.handle_timeout(now=now)
        self._drain(now)
        self.lists.handle_timeout(now=now)
        self.policies.handle_timeout(now=now)
        self._drain_lists(now)

    # ── what is known ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def own_card(self) -> Card:
        """This node's card as it is now."""
        return self._author.card

    @property
    def is_revoked(self) -> bool:
        """Whether this node itself is a member no more."""
        return self.lists.book.denies(self.me, self._author.member.chain.credential.issuer)

    def hop_key(self, key_id: bytes) -> SealKey | None:
        """Return the private hop key of that id, for onion layers; None: never this node's, or erased."""
        return self._author.hop_keys.find(key_id)

    def denies(self, node: NodeId) -> bool:
        """Say whether a signed list names a node as a member no more."""
        return self.lists.book.denies(node)

    def card(self, node: NodeId) -> Card | None:
        """Return the node's card, if it is known and its credential has not ended."""
        known = self._book.find(node)
        return None if known is None else known.card

    def cards(self) -> tuple[Card, ...]:
        """Return every card of another node that is kept; the credential of some may have ended."""
        return tuple(self._book)

    def card_of(self, query: Who) -> Card | None:
        """Return the card of the node that a question asks for."""
        known = self._book.find_answer(query)
        return None if known is None else known.card

    def card_by_name(self, name: str) -> Card | None:
        """Return the card of the node of that name."""
        return self.card_of(Who(name=name))

    def ended(self, query: Who) -> Ended | None:
        """Return the node that a question asks for, if its credential ended, and that was seen here."""
        return self._book.ended.find(query)

    def note_ended(self, chain: Chain) -> None:
        """Take note that a node came whose credential, which the realm signed, has ended."""
        credential = chain.credential
        if self._book.find(credential.node_id) is None:
            self._book.ended.add(Ended(credential.node_id, credential.name, credential.addresses, chain.not_after))

    @property
    def now_unix(self) -> int:
        """The date by the realm's clock, in Unix seconds."""
        return self._clock()

    @property
    def is_expired(self) -> bool:
        """Say whether this node's own credential has ended."""
        return self.now_unix >= self._author.card.chain.not_after

    def contested_names(self) -> dict[str, tuple[NodeId, ...]]:
        """Return the names that several nodes have; the first one is who answers to it.  See claims.py."""
        return self._book.contested()

    def status(self) -> PlaneStatus:
        """Return what a person may want to see."""
        return PlaneStatus(
            boot=self.boot.hex(),
            hop_key=self._author.hop_keys.key_id.hex(),
            cards=len(self._book),
            requests=len(self._requests),
            questions=tuple(str(who) for who in self._questions.open()),
            drops=dict(self.drops + self.lists.drops + self.policies.drops),
        )

    def erase(self) -> None:
        """Erase the hop keys; afterwards no recorded message to this node can be read."""
        self._author.hop_keys.erase()

    # ── receiving ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, verified: Verified, arrival: Arrival, now: float) -> None:
        inner, sender = verified.inner, verified.sender
        if verified.repeated:  # which way it came this time says nothing: anyone who heard it can send it again
            self._repeat_answer(inner, sender, now)
            return
        # Nor does the way of an older one, which was dropped here while its sender was unknown.
        if verified.newest and (heard := self.hear(inner.src, arrival)) is not None:
            self._events.append(heard)
        if verified.fresh:
            self._store(sender, now)
        self._act(inner, sender, now)

    def hear(self, src: NodeId, arrival: Arrival) -> Heard | None:
        """Take note which way a verified message of src came; return what is to be told of it, if anything."""
        if arrival.path is not None:
            self._paths.append(Learnt(arrival.channel, src, arrival.path))
            owner = self._book.owner(arrival.path)
            self._behind.pop(src, None)
            if owner != src:
                self._behind[src] = None
                if len(self._behind) > BEHIND_COUNT_MAX:
                    del self._behind[next(iter(self._behind))]
            return Heard(src, None if owner == src else owner)
        return None if arrival.via is None else Heard(src, arrival.via)

    def _offer_card(self, arrival: Arrival, now: float) -> None:
        """Give a neighbour our card: an envelope that it brought is sealed to a key that we do not hold.

        If the neighbour only passed it on, the sender asks for our card at its second retry, a second after the first
        try.  Giving the card to all would be faster, but then anyone could make us send 14 kB to all neighbours with
        one small envelope.
        """
        via = arrival.via
        if via is not None and self._giving.cards_given.take(arrival.channel, via, now):
            message = self._author.sign(via, self._author.next_seq(), Kind.CARD, self._author.card_bytes)
            self._transmit(NO_TOKEN, via, None, message)

    def _wanted(self, inner: Inner) -> bool:
        """Say whether something here waits for that card: a card that is not wanted takes no room in the book."""
        return self._questions.waits_for(inner.re) or self._requests.waits_for(inner.src)

    def _act(self, inner: Inner, known: KnownCard, now: float) -> None:
        """Do what a verified, fresh message asks for."""
        kind = Kind(inner.kind)
        if kind is Kind.CARD:
            self._answered(known)
            self._requests.card_came(inner.src, now=now)
        if kind in (Kind.CARD, Kind.PRESENCE):
            return
        if kind is Kind.WHO:
            self._answered(known)  # it may ask back because of a question of ours, which its card answers
            card = self._author.give_card(inner.src, inner.seq, self.near.card_for(known.card))
            self._give_answer(self._answers.add(inner.src, inner.boot, inner.seq, card, now, plain=True), known)
            return
        if inner.re != 0 and not self._requests.answered(inner.re, inner.src):
            raise RemoteProtocolError(Drop.LATE, "answers nothing that is pending")
        self._events.append(Message(inner.src, kind, inner.body, inner.seq, inner.re, inner.boot))

    def _repeat_answer(self, inner: Inner, known: KnownCard, now: float) -> None:
        answer = self._answers.find(inner.src, inner.boot, inner.seq, now)
        if answer is None:
            raise RemoteProtocolError(Drop.REPLAYED)
        if answer.plain:  # a card: the first may have been shorter than the asker can read
            answer.message = self._author.give_card(inner.src, inner.seq, self._author.card_bytes)
        self._give_answer(answer, known, again=True)

    def _store(self, fresh: KnownCard, now: float) -> None:
        """Keep a verified card, tell what it changes, and send what waited for it."""
        replaced = self._book.store(fresh)
        self._missing.clear()
        if replaced is not None and replaced.boot != fresh.card.boot:
            self._events.append(CardChanged(fresh.card))
            # The new process does not know our card either: a question, which carries it, goes ahead of what is sealed
            # anew.
            if self._requests.waits_for(fresh.node_id):
                self._send_question(Ask(self._author.next_seq(), fresh.node_id, Who(node=fresh.node_id)))
        self.policies.stored(fresh.card)
        self._answered(fresh)
        self._requests.card_stored(fresh, now=now)
        self._drain(now)
        for answer in self._answers.sealed_to(fresh.node_id, fresh.card.boot, now):
            if answer.key_id != fresh.card.hop_key_id:
                self._give_answer(answer, fresh, again=True)

    def _answered(self, known: KnownCard) -> None:
        """End the questions that a card answers."""
        for question in self._questions.take_answered(known):
            if question.asked:
                self._events.append(CardFound(known.card, question.who))

    # ── signed lists, and the policy ──────────────────────────────────────────────────────────────────────────────────

    def _drain_lists(self, now: float) -> None:
        while (send := self.lists.next_send() or self.policies.next_send()) is not None:
            self._transmit_plain(send.to, send.kind, send.body, send.reach)
        while (change := self.lists.next_change()) is not None:
            revoked = dict.fromkeys(change.denied, "") | self._book.remove_denied()
            if self.is_revoked and not self._was_revoked:
                revoked[self.me] = self._author.member.name
            self._was_revoked = self.is_revoked
            self._requests.revoked(revoked)
            self._drain(now)
            self._events.append(ListLearnt(change.key, revoked, change.voided))
            self.policies.recheck()
        for said in (self.lists, self.policies):
            if said.announce_at is not None:
                self.presences.by(said.announce_at)
                said.announce_at = None

    def _say_presence(self, to: NodeId | None, reach: Reach = Reach.ALL) -> None:
        self._transmit_plain(to, Kind.PRESENCE, Presence(self._author.card.serial, self.lists.digest).encode(), reach)
        if to is None or self.near.takes_policies(to):
            self.policies.tell(to, reach)

    # ── sending ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _transmit(self, token: int, to: NodeId, key_id: bytes | None, payload: bytes, *, again: bool = False) -> None:
        self._transmits.append(Transmit(token, self._author.envelope(to, key_id, payload), again))

    def _give_answer(self, answer: Answer, to: KnownCard, *, again: bool = False) -> None:
        if answer.plain:
            answer.payload = answer.message
        elif answer.key_id != to.card.hop_key_id:
            answer.key_id = to.card.hop_key_id
            answer.payload = self._author.seal(to, answer.message)
        self._transmit(NO_TOKEN, to.node_id, answer.key_id, answer.payload, again=again)

    def _introduce(self, node: NodeId, arrival: Arrival, now: float) -> None:
        """Ask a node for its card because of a message that is not verified yet: the budget for that is small."""
        self._ask_stranger(node, arrival.channel, arrival.source, now)

    def _ask_back(self, node: NodeId, arrival: Arrival, now: float) -> None:
        """Ask the sender of a question for its card; the question carries ours, which answers it."""
        take = self._giving.asked_back.take
        if Who(node=node) not in self._questions and take(arrival.channel, arrival.source, now):
            self._ask(Who(node=node), now, asked=False, quiet=True)

    def _ask_stranger(self, node: NodeId, group: str, source: Hashable, now: float, *, quiet: bool = False) -> None:
        if Who(node=node) not in self._questions and self._giving.introductions.take(group, source, now):
            self._ask(Who(node=node), now, asked=False, quiet=quiet)

    def _ask(self, who: Who, now: float, *, asked: bool, quiet: bool = False) -> None:
        self._questions.ask(who, asked=asked, quiet=quiet, now=now)
        self._drain(now)

    def _drain(self, now: float) -> None:
        """Send what requests and questions have to send, and tell which of them ended."""
        while (transmit := self._requests.next_transmit()) is not None:
            self._transmits.append(transmit)
        while (want := self._requests.next_want()) is not None:
            self._questions.ask(Who(node=want.node), asked=False, quiet=want.quiet, now=now)
        while (ask := self._questions.next_ask()) is not None:
            self._send_question(ask)
        while (ended := self._questions.next_end()) is not None:
            silent = ended.sent and ended.reason is Unanswered.NO_ANSWER
            if silent:
                self._missing.note(ended.who, now)
            if ended.asked:
                self._events.append(WhoFailed(ended.who, ended.reason))
            if ended.who.node is not None and ended.reason is not Unanswered.BUSY:
                self._requests.card_not_found(ended.who.node)
        while (failed := self._requests.next_failure()) is not None:
            self._events.append(failed)

    def _send_question(self, ask: Ask) -> None:
        # All tries of a question have one number: who answered the first one repeats that answer.
        card = self._author.card_bytes
        if not ask.repeated:
            card = self._author.short_card_bytes if self._grants.is_one else card
            card = self._author.bare_card_bytes if self.near.takes_bare_cards(ask.to) else card
        if ask.who.node is None and not (ask.repeated and self._book.knows_earlier):
            card = b""
            for node in self.near.earlier():  # an earlier build drops what follows
                said = Question(ask.who, self._author.card_bytes).encode()
                message = self._author.sign(node, ask.seq, Kind.WHO, said)
                self._transmits.append(Transmit(NO_TOKEN, self._author.envelope(node, None, message)))
        body = Question(ask.who, card).encode()
        message = self._author.sign(ask.to, ask.seq, Kind.WHO, body)
        bucket = ask.who.bucket if ask.to is None else None
        self._transmits.append(
            Transmit(ask.seq, self._author.envelope(ask.to, None, message, bucket=bucket), ask.again)
        )

    def _transmit_plain(self, to: NodeId | None, kind: Kind, body: bytes, reach: Reach = Reach.ALL) -> None:
        """Send what anybody may read to a node, or to all."""
        message = self._author.sign(to, self._author.next_seq(), kind, body)
        self._transmits.append(Transmit(NO_TOKEN, self._author.envelope(to, None, message, reach=reach)))

    def _drop(self, reason: str) -> None:
        self.drops[reason] += 1
