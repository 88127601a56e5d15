"""Passing the routes of others on: finds the next hop's link for a set-up, and has the datapath switch its labels.

What this file holds ends with the set-up, except the links a route keeps open.  The rest of a confirmed route is in the
datapath's table and in route/relays.py: two links and four labels.  Nothing of it is logged.
"""

from __future__ import annotations

from collections.abc import Callable

from conflux.control.plane import ControlPlane
from conflux.control.who import Who
from conflux.datapath.interface import Tables
from conflux.ids import LinkId, NodeId
from conflux.link.links import Links
from conflux.realm.broker.subjects import PUBLIC_RELAY
from conflux.realm.card import Card
from conflux.realm.credential import RELAY
from conflux.route.event import LinkWanted, RelayEvent, RelayGone, RelayReady
from conflux.route.message import RefusalWord
from conflux.route.relays import Relays

NO_IPV6 = "no-ipv6"  # on a card: this node's device has its IPv4 address alone
FEATURE = "relay"  # on a card: this node passes routes on; its credential must allow it
PUBLIC = PUBLIC_RELAY
# Cards that this node asks for at once for the set-ups of one neighbour, and of all.  Its own questions keep half of
# their budget (control/plane.py), however many node ids a neighbour invents.  A card comes in milliseconds or never.
LOOKUP_PER_NEIGHBOUR_MAX = 8
LOOKUP_COUNT_MAX = 32


def is_permitted(card: Card) -> bool:
    """Say whether the realm lets the node relay."""
    return RELAY in card.chain.credential.capabilities


def may_relay(card: Card) -> bool:
    """Say whether the node offers to relay, and the realm lets it."""
    return FEATURE in card.features and is_permitted(card)


def is_public_relay(card: Card) -> bool:
    """Say whether the node offers to relay for any two that cannot reach each other."""
    return PUBLIC in card.features and may_relay(card)


class Relaying:
    """The node's side of every route that passes through."""

    def __init__(
        self,
        relays: Relays,
        *,
        datapath: Tables,
        plane: ControlPlane,
        links: Links,
        neighbour: Callable[[LinkId], NodeId | None],
    ) -> None:
        """neighbour(link): the node at the other end of an open link."""
        self._relays = relays
        self._datapath = datapath
        self._plane = plane
        self._links = links
        self._neighbour = neighbour
        self._wanted: dict[int, NodeId] = {}  # set-ups that wait for a link, or for the card to dial with
        self._lookups: dict[int, LinkId] = {}  # those that wait for a card, and the link each came over
        self._held: dict[int, tuple[NodeId, ...]] = {}  # the neighbours whose links a route keeps open

    def on_event(self, event: RelayEvent, now: float) -> None:
        """Take one event of the relays."""
        match event:
            case LinkWanted(number, _, node) if node == self._plane.me:
                self._relays.link_failed(number, RefusalWord.LOOP)
            case LinkWanted(number, before, node):
                self._hold(number, self._neighbour(before), now)
                self._wanted[number] = node
                if self._plane.card(node) is None:
                    self._look_up(number, before, node, now)
                else:
                    self._dial(number, node, now)
            case RelayReady(number, before_hop, ahead_hop):
                self._datapath.add_relay(before_hop, ahead_hop, now=now)
            case RelayGone(number, before_gone, _):
                self._wanted.pop(number, None)
                self._lookups.pop(number, None)
                if before_gone is not None:
                    self._datapath.remove_relay(before_gone.link, before_gone.label_in)
                for node in self._held.pop(number, ()):
                    self._links.release(node, ("through", number), now=now)

    def _look_up(self, number: int, before: LinkId, node: NodeId, now: float) -> None:
        """Ask the next hop alone for its card: the hop before must not hear where the set-up goes."""
        asked = sum(link == before for link in self._lookups.values())
        if asked >= LOOKUP_PER_NEIGHBOUR_MAX or len(self._lookups) >= LOOKUP_COUNT_MAX:
            del self._wanted[number]
            self._relays.link_failed(number, RefusalWord.BUSY)
            return
        self._lookups[number] = before
        self._plane.who(Who(node=node), now=now, quiet=True)

    def _hold(self, number: int, node: NodeId | None, now: float) -> LinkId | None:
        if node is None:
            return None
        self._held[number] = (*self._held.get(number, ()), node)
        return self._links.acquire(node, ("through", number), now=now)

    def _dial(self, number: int, node: NodeId, now: float) -> None:
        link = self._hold(number, node, now)
        if link is not None:
            del self._wanted[number]
            self._relays.link_open(number, link)

    def card_found(self, node: NodeId, now: float) -> None:
        """Let the set-ups that wait for a card dial its node."""
        for number in [number for number, wanted in self._wanted.items() if wanted == node]:
            if self._lookups.pop(number, None) is not None:
                self._dial(number, node, now)

    def who_failed(self, query: Who) -> None:
        """Refuse the set-ups to a node id that no node answers to."""
        if query.node is not None:
            self._give_up(query.node, RefusalWord.UNKNOWN_NEXT)

    def link_up(self, node: NodeId, link: LinkId) -> None:
        """Send the set-ups that wait for a link on over it."""
        for number in [number for number, wanted in self._wanted.items() if wanted == node]:
            del self._wanted[number]
            self._lookups.pop(number, None)
            self._relays.link_open(number, link)

    def dial_failed(self, node: NodeId) -> None:
        """Refuse the set-ups that wait for a link which cannot be had."""
        self._give_up(node, RefusalWord.UNREACHABLE)

    def _give_up(self, node: NodeId, word: RefusalWord) -> None:
        for number in [number for number, wanted in self._wanted.items() if wanted == node]:
            del self._wanted[number]
            self._relays.link_failed(number, word)
