"""What arrives: from an envelope of a channel to a message that is known to be its sender's, fresh and for this node.

Arrival ─► budget, envelope, seal, lists, replay, card, signature ─► Verified ─► plane.py

Signed lists need no seal and no card: they go to lists.py from here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from conflux.budget import BudgetTable, Ration, SharedBudget
from conflux.control.author import Author
from conflux.control.cards import CardBook, KnownCard
from conflux.control.channel import Arrival
from conflux.control.drop import Drop
from conflux.control.envelope import LIST_KINDS, PLAIN_KINDS, POLICY_KINDS, Envelope, Inner, Kind, Paired
from conflux.control.kept import KeptMessages
from conflux.control.lists import Lists
from conflux.control.policies import Policies
from conflux.control.replay import SeenEnvelopes, Sources, Verdict
from conflux.control.who import Presence, Question
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.realm.card import Card

# Budgets, per second and at once.  An arrival is charged to the neighbour that hands it over, before the plane looks at
# it.  An unseal or a signature is charged to (neighbour, claimed sender): a neighbour that claims to carry messages of
# another node uses up its own budget only.  Chosen: a gateway that opens 50 streams at once stays below.
ARRIVAL_RATE, ARRIVAL_BURST = 100.0, 400.0
SOURCE_RATE, SOURCE_BURST = 20.0, 100.0
BUDGET_KEY_COUNT_MAX = 1024
# Cards that are verified, of one neighbour or path of a broker, and of all of a channel.  Each costs 2 ms on a server
# and 10 on a small board, and senders can be made up.  Chosen: a hundred nodes behind one bridge that start together.
CARDS_EACH, CARDS_TOTAL = Ration(15.0, 96.0), Ration(40.0, 256.0)

SEALED_KINDS = frozenset(Kind) - PLAIN_KINDS


class Verified(NamedTuple):
    """A message to act on.

    fresh: the sender's card came with it and is new.  repeated: it was here before.  newest: its sender sent it after
    all that were here before.
    """

    inner: Inner
    sender: KnownCard
    fresh: bool
    repeated: bool
    newest: bool


class Arrivals:
    """Verifies what the channels hand over.

    wanted: says whether something waits for the card in a message.  introduce: asks a node for its card, because of an
    arrival.  ask_back: the same, because of its question, which came without a card.
    follow: asks only the node itself for a newer one.  offer_card: gives this node's card to the neighbour
    that brought an envelope sealed to a key that is not here.  paired: takes a payload under an id of two nodes.
    """

    def __init__(
        self,
        *,
        author: Author,
        book: CardBook,
        lists: Lists,
        policies: Policies,
        wanted: Callable[[Inner], bool],
        introduce: Callable[[NodeId, Arrival, float], None],
        ask_back: Callable[[NodeId, Arrival, float], None],
        follow: Callable[[NodeId, float], None],
        offer_card: Callable[[Arrival, float], None],
        paired: Callable[[Paired, Arrival], None],
    ) -> None:
        self._author = author
        self._book = book
        self._lists = lists
        self._policies = policies
        self._wanted = wanted
        self._introduce = introduce
        self._ask_back = ask_back
        self._follow = follow
        self._offer_card = offer_card
        self._paired = paired
        self._sources = Sources()
        self._seen = SeenEnvelopes()
        self._kept = KeptMessages()
        self._arrival_budget = BudgetTable(ARRIVAL_RATE, ARRIVAL_BURST, BUDGET_KEY_COUNT_MAX)
        self._card_budget = SharedBudget(each=CARDS_EACH, total=CARDS_TOTAL, count_max=BUDGET_KEY_COUNT_MAX)
        self._source_budget = BudgetTable(SOURCE_RATE, SOURCE_BURST, BUDGET_KEY_COUNT_MAX)

    def verify_untrusted(self, arrival: Arrival, *, now: float) -> Verified | None:
        """Return the message in an envelope if it is one to act on.  Raises RemoteProtocolError: a word of Drop."""
        envelope = arrival.envelope
        if not self._arrival_budget.take(arrival.source, now):
            raise RemoteProtocolError(Drop.FLOOD)
        if envelope.to not in (None, self._author.me):
            raise RemoteProtocolError(Drop.NOT_FOR_US)
        if envelope in self._seen:
            raise RemoteProtocolError(Drop.DUPLICATE)
        inner = self._open_untrusted(envelope, arrival, now)
        if inner is None:
            return None
        if inner.src == self._author.me:
            raise RemoteProtocolError(Drop.OWN_ECHO)
        if not self._source_budget.take((arrival.source, inner.src), now):
            raise RemoteProtocolError(Drop.FLOOD)
        if inner.kind in LIST_KINDS:
            self._receive_list_untrusted(inner, arrival, now)
            return None
        if inner.kind in POLICY_KINDS:
            self._receive_policy_untrusted(inner, arrival, now)
            return None
        if inner.kind == Kind.WHO and self._is_from_stranger_untrusted(inner):
            # Its signature cannot be verified, so nothing comes of it but our own question, which has our card.
            self._ask_back(inner.src, arrival, now)
            return None
        told = Presence.decode_untrusted(inner.body) if inner.kind == Kind.PRESENCE else None
        if told is not None:
            direct = envelope.to is not None
            self._lists.hear(inner.src, told.lists, now=now, direct=direct, source=arrival.source)
            if not direct:
                self._policies.there(inner.src, envelope.reach, now=now)
            if envelope.to is not None and self._book.find(inner.src) is None:
                return None  # a new neighbour whose card nothing here needs yet
        return self._admit_untrusted(inner, told, arrival, now)

    def _is_from_stranger_untrusted(self, inner: Inner) -> bool:
        """Say whether a question has no card, and its sender's is not here.  Raises RemoteProtocolError if denied."""
        if Question.decode_untrusted(inner.body).card or self._book.find(inner.src) is not None:
            return False
        if self._lists.book.denies(inner.src):
            raise RemoteProtocolError(Drop.REVOKED)
        return True

    def resume_untrusted(self, src: NodeId, *, now: float) -> tuple[Verified, Arrival] | None:
        """Return the message that waited for the card of src, which is here now.  Raises RemoteProtocolError."""
        kept = self._kept.take(src, now)
        return None if kept is None else (self._admit_untrusted(kept.inner, None, kept.arrival, now), kept.arrival)

    def _admit_untrusted(self, inner: Inner, told: Presence | None, arrival: Arrival, now: float) -> Verified:
        """Return a message if it is its sender's, and fresh.  told: what a PRESENCE says."""
        if inner.kind not in (Kind.WHO, Kind.CARD) and self._lists.book.denies(inner.src):
            raise RemoteProtocolError(Drop.REVOKED)
        verdict = self._sources.check(inner.src, inner.boot, inner.seq)
        if verdict is Verdict.OLD_BOOT:
            raise RemoteProtocolError(Drop.OLD_BOOT)
        if verdict is Verdict.TOO_OLD:
            raise RemoteProtocolError(Drop.REPLAYED)
        known, fresh = self._sender_of_untrusted(inner, arrival, now)
        if told is not None:
            self._see_presence(known, inner, told, arrival, now)
        elif inner.boot > known.card.boot:
            # The sender restarted, and we hold its card of before.  The new card comes first, so that the node ends
            # everything agreed with the old process before it hears of the new one.
            self._introduce(inner.src, arrival, now)
            self._kept.keep(inner, arrival, now)
            raise RemoteProtocolError(Drop.STALE_CARD)
        elif inner.boot < known.card.boot:
            raise RemoteProtocolError(Drop.OLD_BOOT)
        self._seen.add(arrival.envelope, now)
        newest = self._sources.is_newest(inner.src, inner.boot, inner.seq)
        self._sources.accept(inner.src, inner.boot, inner.seq)
        return Verified(inner, known, fresh, verdict is Verdict.REPEATED, newest)

    def _receive_list_untrusted(self, inner: Inner, arrival: Arrival, now: float) -> None:
        """Take a LIST, which proves itself, or a LISTS_ASK, whose answer is large and goes to whom it names."""
        kind = Kind(inner.kind)
        known = kind is Kind.LISTS_ASK and self._knows_asker_untrusted(inner, arrival)
        self._lists.receive_untrusted(inner.src, kind, inner.body, arrival.source, now=now, known=known)

    def _receive_policy_untrusted(self, inner: Inner, arrival: Arrival, now: float) -> None:
        """Take a message about the policy, likewise."""
        kind = Kind(inner.kind)
        known = kind is Kind.POLICY_ASK and self._knows_asker_untrusted(inner, arrival)
        self._policies.receive_untrusted(
            inner.src, kind, inner.body, arrival.source, to_all=arrival.envelope.to is None, now=now, known=known
        )

    def _knows_asker_untrusted(self, inner: Inner, arrival: Arrival) -> bool:
        """Say whether a question is certainly of the node that it names.  Raises RemoteProtocolError if it is not."""
        if arrival.envelope.to is None:
            raise RemoteProtocolError(Drop.MALFORMED, "a question for one node, but for all")
        known = self._book.find(inner.src)
        if known is not None:
            self._author.verify_untrusted(inner, arrival.envelope.to, known.verify_key)
        return known is not None

    def _open_untrusted(self, envelope: Envelope, arrival: Arrival, now: float) -> Inner | None:
        """Return the message inside; None for what another takes: a question for another node, a resumption."""
        if envelope.key_id is None:
            inner = Inner.decode_untrusted(envelope.payload)
            if inner.kind not in PLAIN_KINDS:
                raise RemoteProtocolError(Drop.NOT_SEALED)
            if inner.kind == Kind.WHO and not self._author.owns(Question.decode_untrusted(inner.body).who):
                return None
            return inner
        if envelope.to is None:
            raise RemoteProtocolError(Drop.MALFORMED, "sealed, but for all")
        if self._author.hop_keys.find(envelope.key_id) is None:
            paired = Paired.find_untrusted(envelope.payload)
            if paired is not None:
                self._paired(paired, arrival)
                return None
        try:
            inner = self._author.unseal_untrusted(envelope.key_id, envelope.payload)
        except RemoteProtocolError as error:
            if error.reason == Drop.UNKNOWN_KEY:
                self._offer_card(arrival, now)
            raise
        if inner.kind not in SEALED_KINDS:
            raise RemoteProtocolError(Drop.MALFORMED, f"sealed message of kind {inner.kind}")
        return inner

    def _sender_of_untrusted(self, inner: Inner, arrival: Arrival, now: float) -> tuple[KnownCard, bool]:
        """Return the card of who signed inner, and whether it came with the message and is new."""
        held = self._book.find(inner.src)
        if inner.kind not in (Kind.WHO, Kind.CARD):
            if held is None:
                if inner.kind != Kind.PRESENCE:
                    self._introduce(inner.src, arrival, now)
                    self._kept.keep(inner, arrival, now)
                raise RemoteProtocolError(Drop.UNKNOWN_SENDER)
            self._author.verify_untrusted(inner, arrival.envelope.to, held.verify_key)
            return held, False
        data = inner.body
        if inner.kind == Kind.WHO:
            data = Question.decode_untrusted(inner.body).card
            if held is not None and not data:
                self._author.verify_untrusted(inner, arrival.envelope.to, held.verify_key)
                return held, False
        elif held is None and not self._wanted(inner):
            raise RemoteProtocolError(Drop.UNSOLICITED)

        def vouch(card: Card) -> None:
            """Have a card verified only for a message of its own key, and within the budget: it costs 1 to 10 ms."""
            if card.boot != inner.boot:
                raise RemoteProtocolError(Drop.MALFORMED, "card of another boot than the message")
            key = card.chain.credential.verify_key() if held is None or held.card is not card else held.verify_key
            self._author.verify_untrusted(inner, arrival.envelope.to, key)
            if held is not None and held.card is card:
                return
            if not self._card_budget.take(arrival.channel, arrival.source, now):
                raise RemoteProtocolError(Drop.FLOOD, "cards")

        known = self._book.judge_untrusted(inner.src, data, vouch)
        return known, known is not held

    def _see_presence(self, known: KnownCard, inner: Inner, told: Presence, arrival: Arrival, now: float) -> None:
        """Ask a node for its card if it has a newer one than the one that is known.

        It runs as a newer process, or the same process was given another credential or replaced its hop key.
        """
        if inner.boot > known.card.boot:
            self._introduce(inner.src, arrival, now)
        elif inner.boot == known.card.boot and told.card_serial > known.card.serial:
            self._follow(inner.src, now)
