"""Passing other people's routes on: finds the next hop's link for a set-up, and tells the datapath what to switch.

Nothing here outlives the set-up: what stays of a route is in the datapath's table and in the route machine, two links
and four labels.  Nothing of it is logged.
"""

from __future__ import annotations

from collections.abc import Callable

from conflux.control.plane import ControlPlane
from conflux.control.question import Who
from conflux.datapath.interface import Tables
from conflux.ids import LinkId, NodeId
from conflux.link.links import Links
from conflux.realm.card import Card
from conflux.realm.credential import RELAY
from conflux.route.relay import Event, LinkWanted, RelayGone, RelayReady, Relays

FEATURE = "relay"  # on a card: this node passes routes on; its credential must allow it
# Cards that set-ups of one neighbour, and of all, may have us ask for at once: our own questions keep half of their
# budget (control/plane.py) however many nodes somebody makes up.  A card comes within milliseconds, or never.
LOOKUP_PER_NEIGHBOUR_MAX = 8
LOOKUP_COUNT_MAX = 32


def may_relay(card: Card) -> bool:
    """Say whether the node offers to relay, and the realm lets it."""
    return FEATURE in card.features and RELAY in card.chain.credential.capabilities


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
        """neighbour(link): who is at the other end of an open link."""
        self._relays = relays
        self._datapath = datapath
        self._plane = plane
        self._links = links
        self._neighbour = neighbour
        self._wanted: dict[int, NodeId] = {}  # set-ups that wait for a link, or for the card to dial with
        self._lookups: dict[int, LinkId] = {}  # those that wait for a card, and the link each came over
        self._held: dict[int, tuple[NodeId, ...]] = {}  # whose links a route keeps open

    def on_event(self, event: Event, now: float) -> None:
        """Take one event of the relays."""
        match event:
            case LinkWanted(number, _, node) if node == self._plane.me:
                self._relays.link_failed(number, "loop")
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
        """Ask the next hop for its card, and nobody else: the hop before must not hear where its set-up goes."""
        asked = sum(link == before for link in self._lookups.values())
        if asked >= LOOKUP_PER_NEIGHBOUR_MAX or len(self._lookups) >= LOOKUP_COUNT_MAX:
            del self._wanted[number]
            self._relays.link_failed(number, "busy")
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
        """A card came: set-ups that want its node can dial."""
        for number in [number for number, wanted in self._wanted.items() if wanted == node]:
            if self._lookups.pop(number, None) is not None:
                self._dial(number, node, now)

    def who_failed(self, query: Who) -> None:
        """Nobody is that node: set-ups that want it are refused."""
        if query.node is not None:
            self._give_up(query.node, "unknown-next")

    def link_up(self, node: NodeId, link: LinkId) -> None:
        """A link opened: set-ups that want it go on."""
        for number in [number for number, wanted in self._wanted.items() if wanted == node]:
            del self._wanted[number]
            self._lookups.pop(number, None)
            self._relays.link_open(number, link)

    def dial_failed(self, node: NodeId) -> None:
        """A dial came to nothing: set-ups that want it are refused."""
        self._give_up(node, "unreachable")

    def _give_up(self, node: NodeId, reason: str) -> None:
        for number in [number for number, wanted in self._wanted.items() if wanted == node]:
            del self._wanted[number]
            self._relays.link_failed(number, reason)
