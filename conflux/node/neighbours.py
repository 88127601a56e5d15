"""The nodes at the other ends of open links, and the routes that come in from them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from conflux.carrier.interface import TetherDown, TetherUp
from conflux.datapath.interface import Tables
from conflux.ids import LinkId, NodeId
from conflux.link.event import DialEnd, DialFailed, LinkDown, LinkMessage, LinkUp
from conflux.link.event import Event as LinkEvent
from conflux.link.links import Links
from conflux.node.destinations import Destinations
from conflux.node.event import Event, EventKind, Reason
from conflux.node.relaying import Relaying
from conflux.route import event as route
from conflux.route.routes import Routes
from conflux.stream.event import ReceiverEnd
from conflux.stream.streams import Streams


class Neighbours:
    """Hands every event of links and routes to the machines that it concerns.

    tell: takes what a person may want to see.  counting_drops: counts what a peer said and a machine refused.
    """

    def __init__(
        self,
        open_links: dict[LinkId, NodeId],
        *,
        datapath: Tables,
        links: Links,
        streams: Streams,
        routes: Routes,
        destinations: Destinations,
        relaying: Relaying,
        tell: Callable[[Event], None],
        counting_drops: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """open_links: the node at the other end of each open link.  It is kept here and read elsewhere."""
        self._open_links = open_links
        self._datapath = datapath
        self._links = links
        self._streams = streams
        self._routes = routes
        self._destinations = destinations
        self._relaying = relaying
        self._tell = tell
        self._counting_drops = counting_drops

    def on_link_event(self, event: LinkEvent, now: float) -> None:
        """Take one event of the links."""
        match event:
            case LinkUp(peer=peer, link=link):
                self._open_links[link] = peer
                self._tell(Event(EventKind.LINK, peer))
                self._relaying.link_up(peer, link)
                self._destinations.link_changed(peer, now)
            case LinkDown(peer=peer, link=link, end=end, said=said, let_go=let_go):
                self._routes.link_down(link, let_go=let_go)
                self._open_links.pop(link, None)
                self._destinations.link_changed(peer, now)
                self._tell(Event(EventKind.CLOSED, peer, reason=Reason(end, said)))
            case LinkMessage(link=link, data=data):
                with self._counting_drops():
                    self._routes.receive_untrusted(link, data, now=now)
            case DialFailed(peer=peer, end=end) if end is not DialEnd.BACKING_OFF:
                self._relaying.dial_failed(peer)
                self._destinations.dial_failed(event, now)
            case TetherUp(link=link, tether=tether):
                self._routes.tether_up(link, tether)
            case TetherDown(link=link, tether=tether):
                self._routes.tether_down(link, tether)

    def on_route_event(self, event: route.Event, now: float) -> None:
        """Take one event of the routes that begin or end here."""
        match event:
            case route.RouteAsked():
                self._destinations.route_asked(event, now)
            case route.RouteReady():
                self._destinations.route_ready(event, now)
            case route.RouteFailed():
                self._destinations.route_failed(event, now)
            case route.RouteLost():
                self._destinations.route_lost(event, now)
            case route.ReceiverRoute(id_, hop):
                self._datapath.add_receiver_route(id_, hop, now=now)
                if (neighbour := self._open_links.get(hop.link)) is not None:
                    self._links.acquire(neighbour, ("from", hop.link, hop.label_in), now=now)
                    self._destinations.reached_by(self._streams.receives(id_), neighbour, now)
            case route.ReceiverRouteGone(id_, hop, last):
                if last and self._datapath.verify_last(id_, last):
                    self._streams.close_receiver(id_, ReceiverEnd.DONE)
                self._datapath.remove_receiver_route(hop.link, hop.label_in)
                if (neighbour := self._open_links.get(hop.link)) is not None:
                    self._links.release(neighbour, ("from", hop.link, hop.label_in), now=now)
