"""Has the datapath hold to the policy of the realm: makes its tables, and makes them anew when something changed.

What changes them: another policy, a node that is met for the first time, another name or tags of one, another own
credential, and the moments that rules name.  Without a policy it does nothing, and the datapath asks nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from conflux.control.plane import ControlPlane
from conflux.datapath.interface import Tables
from conflux.errors import ConfigError
from conflux.ids import IPAddress, NodeId
from conflux.realm.card import Card
from conflux.realm.member import Member
from conflux.realm.policy import SignedPolicy

TYPE_CHECKING = False  # a node without a policy does without
if TYPE_CHECKING:
    from conflux.policy.rules import Policy
    from conflux.policy.sides import Member as Side
    from conflux.policy.sides import Sides

MEMBER_COUNT_MAX = 4096  # nodes in the tables, 72 bytes each for every address; more than cards are kept
LOOK_AGAIN_S = 600.0  # a clock that was set makes a moment come sooner


class _Noted(NamedTuple):
    """A node in the tables.  until: its credential ends then, Unix seconds."""

    side: Side
    until: int


class Enforced(NamedTuple):
    """What this node holds to.  number: of the policy; None: there is none.  trouble: why it is not the newest."""

    number: int | None
    trouble: str | None


class Policing:
    """member: this node, as it is now.  own: its addresses.

    later: takes a policy whose rule file is read elsewhere, as that may take seconds, and then given to enforce();
    None: it is read at once.
    """

    def __init__(
        self,
        datapath: Tables,
        plane: ControlPlane,
        member: Callable[[], Member],
        own: Callable[[], tuple[IPAddress, ...]],
    ) -> None:
        self.later: Callable[[SignedPolicy], None] | None = None
        self._datapath = datapath
        self._plane = plane
        self._member = member
        self._own = own
        self._policy: Policy | None = None
        self._enforced = Enforced(None, None)
        self._sides: Sides | None = None
        self._number = 0  # of the policy
        self._is_too_large = False  # the tables last made
        self._members: dict[NodeId, _Noted] = {}
        self._due_at: float | None = None
        plane.policies.learnt = self._learnt
        self._begin()

    @property
    def enforced(self) -> Enforced:
        """What this node holds to now."""
        return self._enforced

    @property
    def policy(self) -> Policy | None:
        """The rules that this node holds to; None: there are none."""
        return self._policy

    def enforce(self, number: int, policy: Policy | None) -> None:
        """Hold to the rules of a policy from now on; None: they cannot be read, and those before stay."""
        if policy is None:
            self._trouble(f"policy {number} cannot be read by this version: the one before stays in force")
            return
        self._policy, self._number = policy, number
        self._plane.policies.card_stored = self._card_stored
        self._datapath.meets = self._meet
        for card in self._plane.cards():
            self._note(card)
        self._make()

    def adopt(self) -> None:
        """Take note that this node has another credential."""
        if self._policy is not None:
            self._make()

    def next_timeout(self) -> float | None:
        """Return when handle_timeout() has something to do."""
        return self._due_at

    def handle_timeout(self, *, now: float) -> None:
        """Make the tables anew if the moment of a rule has come."""
        if self._due_at is None or now < self._due_at:
            return
        until = None if self._sides is None else self._sides.until
        if until is not None and self._plane.now_unix >= until:
            self._make()
            until = None if self._sides is None else self._sides.until
        self._due_at = None if until is None else now + min(LOOK_AGAIN_S, max(0.5, until - self._plane.now_unix))

    # ── policies ──

    def _begin(self) -> None:
        """Hold to the newest policy on the disk that can be read, from the first packet on."""
        book = self._plane.policies.book
        if book.current is None:
            return
        for each in (book.current, *book.earlier):
            policy = _read(each)
            if policy is not None:
                self.enforce(each.head.number, policy)
                if each is not book.current:
                    self.enforce(book.current.head.number, None)
                return
        self._trouble("no policy that is kept here can be read by this version")

    def _learnt(self, signed: SignedPolicy | None) -> None:
        if signed is None:  # its signer was revoked before it signed, and there was none before
            self._policy, self._sides, self._due_at = None, None, None
            self._enforced = Enforced(None, None)
            self._plane.policies.card_stored = self._datapath.meets = None
            self._members.clear()
            self._datapath.set_policy(None)
        elif self.later is not None:
            self.later(signed)
        else:
            self.enforce(signed.head.number, _read(signed))

    def _trouble(self, text: str) -> None:
        self._enforced = self._enforced._replace(trouble=f"policy: {text}")

    # ── members ──

    def _meet(self, node: NodeId) -> None:
        """Take note that packets of a node, or for it, are about to pass."""
        card = self._plane.card(node)
        if card is not None and self._note(card):
            self._load()

    def _card_stored(self, card: Card) -> None:
        """Take note of a newer card: a node that has other tags may do other things."""
        if card.node_id in self._members and self._note(card):
            self._load()

    def _note(self, card: Card) -> bool:
        """Take a node into the tables; return whether that changes them."""
        credential = card.chain.credential
        noted = _Noted(_side(credential.name, credential.tags, card.addresses), card.chain.not_after)
        if self._members.get(card.node_id) == noted:
            return False
        self._members.pop(card.node_id, None)
        while len(self._members) >= MEMBER_COUNT_MAX:
            del self._members[next(iter(self._members))]
        self._members[card.node_id] = noted
        return True

    # ── tables ──

    def _make(self) -> None:
        from conflux.policy.sides import Sides

        credential = self._member().chain.credential
        me = _side(credential.name, credential.tags, self._own())
        assert self._policy is not None
        self._sides = Sides(self._policy, me, at_unix=self._plane.now_unix)
        self._due_at = None if self._sides.until is None else float("-inf")
        self._load()

    def _load(self) -> None:
        assert self._sides is not None
        for node, noted in list(self._members.items()):  # another node may have its addresses by now
            if noted.until <= self._plane.now_unix or self._plane.denies(node):
                del self._members[node]
        try:
            tables = self._sides.tables(tuple(noted.side for noted in self._members.values()))
        except ConfigError as error:
            self._is_too_large = True
            self._trouble(str(error))
            return
        self._datapath.set_policy(tables)
        if self._is_too_large or self._enforced.number != self._number:
            self._is_too_large, self._enforced = False, Enforced(self._number, None)


def _read(signed: SignedPolicy) -> Policy | None:
    from conflux.policy.reading import read_untrusted

    return read_untrusted(signed.text).policy


def _side(name: str, tags: tuple[str, ...], addresses: tuple[IPAddress, ...]) -> Side:
    from conflux.policy.rules import Node
    from conflux.policy.sides import Member

    return Member(Node(name, frozenset(tags)), addresses)
