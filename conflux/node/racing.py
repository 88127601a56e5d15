"""The race of paths for each destination: which is tried next, and each try's steps from a dial to a route.

    search ─path─► Try ─► link to its first hop ─► the cards of its hops ─► route being set up ─► destinations.py

Decides what is tried and when a try is over.  Whether a route that is confirmed carries the stream, and what follows
when every path has failed, is destinations.py's to say.
"""

from __future__ import annotations

from collections.abc import Callable

from conflux.control.plane import ControlPlane
from conflux.control.question import Who
from conflux.datapath.interface import Tables
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId, format_node_id
from conflux.link.links import Links
from conflux.node.destination import Destination, Tell, Try
from conflux.node.relaying import may_relay
from conflux.realm.card import Card
from conflux.route import machine as route
from conflux.route.onion import HopKey
from conflux.search.interface import Path, Search

TRY_COUNT_MAX = 3  # paths tried at once for one destination


class Races:
    """Every destination's tries.  Its state is the destination's; all_failed is called when none is left to try."""

    def __init__(
        self,
        *,
        datapath: Tables,
        plane: ControlPlane,
        routes: route.Routes,
        links: Links,
        search: Search,
        tell: Tell,
        all_failed: Callable[[Destination, str, float], None],
    ) -> None:
        self._datapath = datapath
        self._plane = plane
        self._routes = routes
        self._links = links
        self._search = search
        self._tell = tell
        self._all_failed = all_failed

    # ── trying ──

    def try_next(self, destination: Destination, now: float) -> None:
        """Try the next candidate beside those that are being tried."""
        destination.race_at = None
        taken = destination.beaten | {attempt.path for attempt in destination.routed}
        fresh = [path for path in self._search.paths(destination.node, now=now) if path not in taken]
        if not fresh or len(destination.tries) >= TRY_COUNT_MAX:
            if destination.active is None and not destination.tries and destination.stream_agreed:
                self._all_failed(destination, "no path", now)
            return
        destination.race_at = now + self._search.patience_s(fresh[0])
        self.try_path(destination, fresh[0], now, wanted=False)

    def try_path(self, destination: Destination, path: Path, now: float, *, wanted: bool) -> None:
        """Try a path, unless it is being tried; wanted: the route is to carry the stream, better or not."""
        for attempt in destination.tries:
            if attempt.path == path:
                attempt.wanted = attempt.wanted or wanted
                return
        cold = bool(path.relays) and not any(attempt.path == path for attempt in destination.routed)
        destination.tries.append(Try(path, wanted, cold))
        self.advance(destination, now)

    def advance(self, destination: Destination, now: float) -> None:
        """Every try takes its next step: a link to its first hop, the cards of its hops, the route."""
        for attempt in list(destination.tries):
            if attempt.route is not None or attempt not in destination.tries:
                continue
            link = self._links.link(attempt.path.first)
            if link is None:
                self._dial(destination, attempt, now)
            elif destination.stream_agreed and destination.stream is not None:
                self._links.acquire(attempt.path.first, _user(destination, attempt.path.first), now=now)
                hops = self._hop_keys(destination, attempt, now)
                if hops is not None:
                    try:
                        attempt.route = self._routes.build(destination.stream, hops, link, now=now)
                        attempt.began_at = now
                    except RemoteProtocolError as error:  # a card whose key is no key
                        self.drop(destination, attempt, error.reason, now)

    def _dial(self, destination: Destination, attempt: Try, now: float) -> None:
        first = attempt.path.first
        if self._links.acquire(first, _user(destination, first), now=now) is None and not attempt.dialing:
            attempt.dialing = True
            by_way = f"by way of {node_name(first, self._plane)}" if attempt.path.relays else ""
            self._tell("dial", destination.card, by_way)

    def _hop_keys(self, destination: Destination, attempt: Try, now: float) -> list[HopKey] | None:
        """Return every hop's key; None if one is being asked for, or is not to be had and the try is over.

        Only our own neighbour is asked, who knows us anyway.  A far relay's key comes from the destination: to ask the
        relay would tell it who is about to use it.
        """
        hops: list[HopKey] = []
        for node in attempt.path.relays:
            card = self._plane.card(node)
            if card is not None and may_relay(card):
                hops.append(_hop_key(card))
            elif node in destination.vantage:
                hops.append(destination.vantage[node])
            elif card is None and node == attempt.path.first:
                self._plane.who(Who(node=node), now=now)
                return None
            else:
                self.drop(destination, attempt, "no-relay" if card is not None else "no-key", now)
                return None
        return [*hops, _hop_key(destination.card)]

    # ── ending a try ──

    def drop(self, destination: Destination, attempt: Try, reason: str, now: float) -> None:
        """A path is not to be had; when it was the last one, the whole try has failed."""
        if attempt not in destination.tries:
            return  # gone with its stream, when another path failed just now
        destination.tries.remove(attempt)
        self.close_route(attempt)
        self._search.failed(attempt.path, reason, now=now)
        self._tell("failed", destination.card, f"{path_words(attempt.path, self._plane)}: {reason}")
        self.release_unused(destination, attempt.path.first, now)
        if destination.active is None and destination.retry_at is None:
            self.try_next(destination, now)
            if not destination.tries and destination.retry_at is None:
                self._all_failed(destination, reason, now)

    def close_route(self, attempt: Try, last: bytes = b"") -> None:
        """Tear down the route a try holds, if any; last: the stream's last frame, which the teardown carries."""
        number, attempt.route = attempt.route, None
        hop = None if number is None else self._routes.close(number, last)
        if hop is not None:
            self._datapath.remove_feedback_label(hop.link, hop.label_in)

    def release_unused(self, destination: Destination, first: NodeId, now: float) -> None:
        """Let the link to first go, unless a path the destination uses or tries begins with it."""
        if all(attempt.path.first != first for attempt in destination.routed):
            self._links.release(first, _user(destination, first), now=now)


def node_name(node: NodeId, plane: ControlPlane) -> str:
    """Return what a person calls a node: its card's name, or its id."""
    card = plane.card(node)
    return format_node_id(node) if card is None else card.name


def path_names(path: Path, plane: ControlPlane) -> list[str]:
    """Return the names of a path's hops."""
    return [node_name(node, plane) for node in path.hops]


def path_words(path: Path, plane: ControlPlane) -> str:
    """Return a path as a person reads it."""
    return "via " + ", ".join(path_names(path, plane)[:-1]) if path.relays else "direct"


def _hop_key(card: Card) -> HopKey:
    return HopKey(card.node_id, card.hop_key_id, card.hop_public)


def _user(destination: Destination, first: NodeId) -> tuple[str, NodeId, NodeId]:
    return ("to", destination.node, first)
