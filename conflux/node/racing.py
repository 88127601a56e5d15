"""The race of paths for each destination: which is tried next, and each try's steps from a dial to a route.

    search ─path─► Try ─► link to its first hop ─► the cards of its hops ─► route being set up ─► carrying.py

It decides what is tried and when a try is over.  carrying.py decides whether a confirmed route carries the stream, and
destinations.py what follows when no path is left.
"""

from __future__ import annotations

from collections import deque

from conflux.budget import TokenBucket
from conflux.control.plane import ControlPlane
from conflux.control.who import Who
from conflux.datapath.interface import Tables
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.link.event import DialFailed
from conflux.link.links import Links
from conflux.node.destination import Destination, Sending, Try
from conflux.node.event import Event, EventKind, NodeEnd, Reason
from conflux.node.relaying import PUBLIC, is_permitted, may_relay
from conflux.realm.card import CLEAR_SLOT, ONE_SLOT, Card
from conflux.route.onion import HopKey
from conflux.route.routes import Routes
from conflux.search.interface import Path, Search

TRY_COUNT_MAX = 3  # paths tried at once for one destination
FORCE_S = 5.0  # between set-ups over a direct path that was lost just now: its far end may end each at once
SEEK_S = 10.0  # between questions for a relay that every node can dial: each goes to the whole area
SEEK_LOST_S = 0.3  # between two such questions if what carried was lost since the first: its answer may be what is gone
SEEK_COUNT_MAX = 3  # such questions that are saved up, for paths that are lost one after the other


class Races:
    """Tries the paths of each destination.  The state is in Race."""

    def __init__(
        self,
        *,
        datapath: Tables,
        plane: ControlPlane,
        routes: Routes,
        links: Links,
        search: Search,
        events: deque[Event],
    ) -> None:
        """events: where what happened is put, in order; destinations.py hands it out."""
        self._datapath = datapath
        self._plane = plane
        self._routes = routes
        self._links = links
        self._search = search
        self._events = events
        self._sought_at = float("-inf")  # when a relay was last asked for
        self._lost_at = float("-inf")  # when what carried a stream was last lost
        self._seeking = TokenBucket(1 / SEEK_S, SEEK_COUNT_MAX)

    # ── trying ──

    def try_next(self, destination: Destination, now: float) -> None:
        """Try the next candidate beside those that are being tried."""
        sending = destination.sending
        if sending is None:
            return
        race = sending.race
        race.next_at = None
        fresh = self._fresh(destination, sending, now)
        if fresh:
            race.next_at = now + self._search.patience_s(fresh[0])
            self.try_path(destination, fresh[0], now, wanted=False)
        elif not sending.is_carried and race.seek_at is None and self._search.wants_relay(destination.node):
            race.seek_at = self._seek(now)

    def try_beside(self, destination: Destination, path: Path, now: float) -> None:
        """Set another route up over a path whose feedback stopped, and try the next candidate beside it.

        A relay that is not known yet is asked for when the new route has had its time: the suspicion may be wrong.
        """
        sending = destination.sending
        if sending is None:
            return
        self._lost_at, sending.race.seek_at = now, now + self._search.patience_s(path)
        self.try_path(destination, path, now, wanted=False)
        self.try_next(destination, now)

    def try_all(self, destination: Destination, lost: Path, now: float) -> None:
        """Try all that could carry at once: lost, which carried, is gone, and packets wait.

        If nothing is known but the direct path, and that was lost twice within FORCE_S, nothing is tried.

        A relay that is not known yet is asked for at once if no other is known, else when these have had their time.
        """
        sending = destination.sending
        if sending is None:
            return
        direct = Path((destination.node,))
        self._lost_at, sending.race.seek_at = now, None
        while sending.active is None and (fresh := self._fresh(destination, sending, now)):
            self.try_path(destination, fresh[0], now, wanted=False)
        if not sending.race.tries and (lost.relays or now >= destination.forced_at + FORCE_S):
            if not lost.relays:
                destination.forced_at = now
            self.try_path(destination, direct, now, wanted=False)  # it failed lately, but keeps the stream meanwhile
        if any(attempt.path.relays for attempt in sending.race.tries):
            sending.race.next_at = now + self._search.patience_s(direct)
        else:
            self.try_next(destination, now)

    def try_by(self, destination: Destination, node: NodeId, now: float) -> None:
        """Try a path by way of a node at once, beside what runs: the node is new or came back, and nothing carries."""
        sending = destination.sending
        if sending is None or sending.is_carried:
            return
        fresh = [path for path in self._fresh(destination, sending, now) if node in path.relays]
        if fresh:
            sending.race.next_at = now + self._search.patience_s(fresh[0])
            self.try_path(destination, fresh[0], now, wanted=False)

    def _fresh(self, destination: Destination, sending: Sending, now: float) -> list[Path]:
        """Return the candidates that are worth a try, the best first; none if enough are being tried."""
        race = sending.race
        taken = race.beaten | {attempt.path for attempt in sending.routed}
        if len(race.tries) >= TRY_COUNT_MAX:
            return []
        return [path for path in self._search.paths(destination.node, now=now) if path not in taken]

    def _seek(self, now: float) -> float:
        """Ask for a relay that every node can dial: what is known does not reach a destination, or not soon.

        Returns when it may be asked for again.
        """
        pause_s = SEEK_LOST_S if self._lost_at >= self._sought_at else SEEK_S
        if now >= self._sought_at + pause_s and self._seeking.take(now):
            self._sought_at = now
            self._plane.who(Who(feature=PUBLIC), now=now)
            return now + SEEK_S
        return max(self._sought_at + pause_s, now + self._seeking.wait_s(now))

    def agreed(self, destination: Destination, now: float) -> None:
        """The stream is agreed: routes can be set up, and the destination's vantage may have better candidates."""
        sending = destination.sending
        if sending is None:
            return
        race, candidates = sending.race, self._search.paths(destination.node, now=now)
        if self._is_linked(destination):  # its time was the handshake's up to now
            race.next_at = now + self._search.patience_s(Path((destination.node,)))
        guesses = [attempt for attempt in race.tries if attempt.path not in candidates]
        for attempt in guesses:
            race.tries.remove(attempt)  # its dial may serve the next one
        self.advance(destination, now)
        if sending.active is None and (guesses or race.next_at is None):
            self.try_next(destination, now)
        for attempt in guesses:
            self.release_unused(destination, attempt.path.first, now)

    def handle_timeout(self, destination: Destination, *, now: float) -> None:
        """Try the next candidate if the ones being tried had their time, and the direct path when it is due.

        No next candidate beside a direct path that carries, if a public relay is all there is: it is a detour, and
        costs two links.  Nor beside a direct link that waits for the handshake alone: the far end may have just
        started, and a relay would wait for it too.
        """
        sending = destination.sending
        if sending is None:
            return
        race = sending.race
        if race.direct_at is not None and race.direct_at <= now:
            race.direct_at = None
            if sending.active is not None and sending.active.path.relays:
                self.try_path(destination, Path((destination.node,)), now, wanted=False)
        if race.seek_at is not None and race.seek_at <= now:
            race.seek_at = None
            if not sending.is_carried:
                self.try_next(destination, now)
        if race.next_at is None or race.next_at > now:
            return
        direct = sending.active is not None and not sending.suspect and not sending.active.path.relays
        if direct and self._search.wants_relay(destination.node):
            race.next_at = None
        elif not sending.agreed and self._is_linked(destination):
            race.next_at = None  # agreed() goes on
        else:
            self.try_next(destination, now)

    def _is_linked(self, destination: Destination) -> bool:
        """Say whether the direct path is being tried, and its link is open."""
        direct = any(not attempt.path.relays for attempt in destination.tries)
        return direct and self._links.link(destination.node) is not None

    def try_path(self, destination: Destination, path: Path, now: float, *, wanted: bool) -> None:
        """Try a path, unless it is being tried; wanted: the route is to carry the stream, better or not."""
        for attempt in destination.tries:
            if attempt.path == path:
                attempt.wanted = attempt.wanted or wanted
                return
        cold = bool(path.relays) and not any(attempt.path == path for attempt in destination.routed)
        destination.tries.append(Try(path, wanted, cold))
        self.advance(destination, now)

    def carried(self, destination: Destination, path: Path, now: float) -> None:
        """A path carries the stream from now on: see what else is worth a try beside it.

        The direct path takes over from a relayed one when it can.  Beside the direct one no public relay is tried.
        """
        sending = destination.sending
        if sending is None:
            return
        race = sending.race
        race.direct_at = race.seek_at = None
        if path.relays:
            self._plan_direct(destination, sending, now)
        elif self._search.wants_relay(destination.node):
            for attempt in [entry for entry in race.tries if entry.path.relays and not entry.wanted]:
                race.tries.remove(attempt)
                self.close_route(attempt)
                self.release_unused(destination, attempt.path.first, now)

    def _plan_direct(self, destination: Destination, sending: Sending, now: float) -> None:
        """Say when the direct path is tried again, if it may be."""
        if _wants_direct(destination, sending):
            sending.race.direct_at = self._search.direct_at(destination.node, now=now)

    def advance(self, destination: Destination, now: float) -> None:
        """Take the next step of every try: a link to its first hop, the cards of its hops, the route."""
        sending = destination.sending
        if sending is None:
            return
        for attempt in list(sending.race.tries):
            if attempt.route is not None or attempt not in sending.race.tries:
                continue
            first = attempt.path.first
            link = self._links.link(first)
            if link is None:
                self._dial(destination, attempt, now)
            elif sending.agreed:
                self._links.acquire(first, _user(destination, first), now=now)
                hops = self._hop_keys(destination, sending, attempt, now)
                if hops is None:
                    continue
                try:
                    attempt.route = self._routes.build(sending.stream, hops, link, now=now)
                    attempt.began_at = now
                except RemoteProtocolError:
                    self.drop(destination, attempt, Reason(NodeEnd.BAD_KEY), now)

    def _dial(self, destination: Destination, attempt: Try, now: float) -> None:
        first = attempt.path.first
        if self._links.acquire(first, _user(destination, first), now=now) is None and not attempt.dialing:
            attempt.dialing = True
            attempt.dialed_at = now if attempt.dialed_at is None else attempt.dialed_at
            self._events.append(Event(EventKind.DIAL, destination.node, path=attempt.path.hops))

    def _hop_keys(self, destination: Destination, sending: Sending, attempt: Try, now: float) -> list[HopKey] | None:
        """Return every hop's key; None if one is being asked for, or if one is not to be had and the try is over.

        Only a neighbour is asked: it knows this node anyway.  A far relay's key comes from the destination: to ask the
        relay would tell it who is about to use it.  But the destination's word makes no relay of a node whose
        credential, where it is known, permits none.
        """
        hops: list[HopKey] = []
        for node in attempt.path.relays:
            card = self._plane.card(node)
            if card is not None and may_relay(card):
                hops.append(_hop_key(card))
            elif card is None and node == attempt.path.first:
                self._plane.who(Who(node=node), now=now)
                return None
            elif node in sending.vantage and (card is None or is_permitted(card)):
                hops.append(sending.vantage[node])
            else:
                end = NodeEnd.NO_RELAY if card is not None else NodeEnd.NO_KEY
                self.drop(destination, attempt, Reason(end, by=node), now)
                return None
        return [*hops, _hop_key(destination.card)]

    # ── what the links and the control plane report ──

    def link_changed(self, destination: Destination, peer: NodeId, now: float) -> None:
        """A link to peer opened or closed: go on, or say again that one is wanted."""
        for attempt in destination.tries:
            if attempt.path.first == peer:
                attempt.dialing = False
        sending = destination.sending
        is_up = peer == destination.node and self._links.link(peer) is not None
        if sending is not None and is_up and _wants_direct(destination, sending):
            sending.race.direct_at = now  # the far end got through, so no pause matters
        self.advance(destination, now)

    def dial_failed(self, destination: Destination, event: DialFailed, now: float) -> None:
        """A dial came to nothing: paths that begin with it are not to be had now."""
        for attempt in list(destination.tries):
            if attempt.route is None and attempt.path.first == event.peer:
                self.drop(destination, attempt, Reason(event.end, event.said), now)

    def relay_unknown(self, destination: Destination, node: NodeId, now: float) -> None:
        """No node answers to the id of a relay: paths through it are not to be had."""
        for attempt in list(destination.tries):
            if attempt.route is None and node in attempt.path.relays:
                self.drop(destination, attempt, Reason(NodeEnd.UNKNOWN_RELAY, by=node), now)

    # ── ending a try ──

    def drop(self, destination: Destination, attempt: Try, reason: Reason, now: float) -> None:
        """End a try whose path is not to be had; the next candidate takes its place while no route carries."""
        sending = destination.sending
        if sending is None or attempt not in sending.race.tries:
            return  # it ended when another path failed just now
        sending.race.tries.remove(attempt)
        sending.race.reason = reason
        self.end_early(sending, attempt, now)
        self.close_route(attempt)
        self._search.failed(attempt.path, str(reason), now=now)
        self._events.append(Event(EventKind.FAILED, destination.node, path=attempt.path.hops, reason=reason))
        self.release_unused(destination, attempt.path.first, now)
        if sending.active is None:
            self.try_next(destination, now)
        elif not attempt.path.relays:
            self._plan_direct(destination, sending, now)

    def end(self, destination: Destination, sending: Sending, now: float) -> None:
        """Tear down every route of a stream that the destination no longer sends."""
        if sending.active is not None and sending.active.path.relays:
            for attempt in sending.race.tries:
                if attempt.dialed_at is not None and self._links.link(attempt.path.first) is None:
                    self._search.unanswered(attempt.path, now - attempt.dialed_at, now=now)
        for attempt in sending.routed:
            self.close_route(attempt)
        for first in dict.fromkeys(attempt.path.first for attempt in sending.routed):
            self.release_unused(destination, first, now)

    def close_route(self, attempt: Try, last: bytes = b"") -> None:
        """Tear down the route a try holds, if any; last: the stream's last frame, which the teardown carries."""
        number, attempt.route = attempt.route, None
        hop = None if number is None else self._routes.close(number, last)
        if hop is not None:
            self._datapath.remove_feedback_label(hop.link, hop.label_in)

    def end_early(self, sending: Sending, attempt: Try, now: float) -> None:
        """Let packets wait again that went by a try's route before it was confirmed; no-op if none did."""
        hop, attempt.early = attempt.early, None
        if hop is None:
            return
        self._datapath.remove_feedback_label(hop.link, hop.label_in)
        if sending.active is None:
            self._datapath.set_route(sending.stream, None, now=now)

    def release_unused(self, destination: Destination, first: NodeId, now: float) -> None:
        """Let the link to first go, unless a path the destination uses or tries begins with it."""
        if all(attempt.path.first != first for attempt in destination.routed):
            self._links.release(first, _user(destination, first), now=now)


def _hop_key(card: Card) -> HopKey:
    return HopKey(
        card.node_id,
        card.hop_key_id,
        card.hop_public,
        one_slot=ONE_SLOT in card.features,
        clear=CLEAR_SLOT in card.features,
    )


def _wants_direct(destination: Destination, sending: Sending) -> bool:
    """Say whether a relayed path carries, and the direct one is neither tried nor beaten, nor was a path asked for."""
    active, race, direct = sending.active, sending.race, Path((destination.node,))
    known = direct in race.beaten or any(attempt.path == direct for attempt in race.tries)
    return active is not None and bool(active.path.relays) and not active.wanted and not known


def _user(destination: Destination, first: NodeId) -> tuple[str, NodeId, NodeId]:
    return ("to", destination.node, first)
