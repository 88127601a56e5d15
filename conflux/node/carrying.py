"""Which route carries a stream: the first that is confirmed, then a better one; and what follows when one fails.

A route that was left retires: it stays until the frames under way on it have arrived.  The stream does not notice.
"""

from __future__ import annotations

from collections import deque

from conflux.carrier.interface import Hop
from conflux.control.plane import ControlPlane
from conflux.datapath.interface import Feedback, Tables
from conflux.errors import UserError
from conflux.ids import NodeId
from conflux.link.links import Links
from conflux.node.destination import Counts, Destination, Sending, Try
from conflux.node.event import Event, EventKind, NodeEnd, Reason, reason_of
from conflux.node.racing import Races
from conflux.route.event import RouteAsked, RouteEnd, RouteFailed, RouteLost, RouteReady
from conflux.route.message import RefusalWord
from conflux.route.routes import HOP_COUNT_MAX, LIFETIME_S, RELAYED_TIMEOUT_S
from conflux.search.interface import Measured, Path, Search

RETIRE_S = 1.0  # frames may be under way on a route that was left; it is torn down after this
MEASURE_COUNT_MAX = 3  # round trips of a direct path before a relay keeps the stream: one may be late by chance
REFRESH_S = LIFETIME_S * 0.8  # then a new route over the same path replaces the one that would expire
# Between streams opened anew because a set-up was refused: the next may be refused likewise, as soon as it is there.
RENEW_S_MIN = 10.0


class Carrying:
    """Chooses the route of each destination's stream.  The state is in Sending."""

    def __init__(
        self,
        *,
        datapath: Tables,
        plane: ControlPlane,
        links: Links,
        search: Search,
        races: Races,
        events: deque[Event],
    ) -> None:
        """events: where what happened is put, in order; destinations.py hands it out."""
        self._datapath = datapath
        self._plane = plane
        self._links = links
        self._search = search
        self._races = races
        self._events = events

    # ── what the routes report ──

    def route_asked(
        self, destination: Destination, sending: Sending, attempt: Try, event: RouteAsked, now: float
    ) -> None:
        """A direct route is being set up: if no route carries the stream, its packets need not wait for the answer.

        They are sealed to the node that the link leads to, so nothing is lost but the packets if it refuses.
        """
        if sending.active is None and all(other.early is None for other in sending.race.tries):
            attempt.early = event.hop
            self._datapath.set_route(sending.stream, event.hop, now=now)
            self._tell_frames(destination, sending, attempt, now)

    def route_ready(
        self, destination: Destination, sending: Sending, attempt: Try, event: RouteReady, now: float
    ) -> None:
        """A route is confirmed: it carries the stream if none does, if it was asked for, or if it is clearly better."""
        took_s = now - attempt.began_at
        self._search.opened(attempt.path, took_s, now=now)
        if not attempt.cold:
            attempt.measured_count += 1
            self._search.measured(attempt.path, Measured(took_s, 0, 0, 0), now=now)
        active = sending.active
        if active is None or active.suspect or attempt.wanted:
            self._switch(destination, sending, attempt, event.hop, now)
        elif attempt.path == active.path:  # a probe, and feedback has come meanwhile: nothing to repair
            sending.race.tries.remove(attempt)
            self._races.close_route(attempt)
        elif attempt.cold:  # its links are open now: set it up again, to measure the round trip
            attempt.cold = False
            self._set_up_again(destination, attempt, now)
        elif self._search.prefers(attempt.path, took_s, active.path):
            self._switch(destination, sending, attempt, event.hop, now)
        elif not attempt.path.relays and attempt.measured_count < MEASURE_COUNT_MAX:
            self._set_up_again(destination, attempt, now)
        else:
            sending.race.beaten.add(attempt.path)
            sending.race.tries.remove(attempt)
            self._races.close_route(attempt)
            self._races.release_unused(destination, attempt.path.first, now)

    def _set_up_again(self, destination: Destination, attempt: Try, now: float) -> None:
        self._races.close_route(attempt)
        self._races.advance(destination, now)

    def route_failed(
        self, destination: Destination, sending: Sending, attempt: Try, event: RouteFailed, now: float
    ) -> bool:
        """A route that was asked for is not to be had.  True: the stream is of no use, open a new one."""
        self._races.end_early(sending, attempt, now)
        attempt.route = None
        if _is_worth_another_link(event, attempt.path) and not attempt.again:
            attempt.again, attempt.cold = True, bool(attempt.path.relays)
            self._races.advance(destination, now)
            return False
        hops, refusal, active = attempt.path.hops, event.refusal, sending.active
        of_active = active is not None and attempt.path == active.path
        may_renew = now >= destination.renewed_at + RENEW_S_MIN
        if refusal is not None and refusal.is_of(RefusalWord.UNKNOWN_STREAM, len(hops) - 1) and may_renew:
            destination.renewed_at = now
            return True  # the far end lost or ended the stream; a relay's word for it is only a failed path
        if refusal is not None and refusal.word is RefusalWord.STALE_KEY and refusal.hop < len(hops):
            stale = hops[refusal.hop]  # its hop key turned: the one held here is old
            if stale in (hops[0], hops[-1]):  # both know this node anyway, so they may be asked
                self._plane.refresh(stale, now=now)
            elif active is None and may_renew:
                # The destination names the relay's new key with a new stream.  The relay itself is not asked: else it
                # need only claim "stale-key" to learn which node uses it.
                destination.renewed_at = now
                return True
            elif active is not None and of_active and not active.suspect:
                # A refresh; the route carries until it expires, and the next stream brings the new key.
                sending.race.tries.remove(attempt)
                active.refresh_at = None
                reason = Reason(RefusalWord.STALE_KEY, by=stale)
                self._events.append(Event(EventKind.FAILED, destination.node, path=hops, reason=reason))
                return False
        # Feedback says that the active path works, so a failed set-up over it alone is no reason to leave it: a hop may
        # be busy for a moment.  A refresh is tried again.
        if (not of_active or sending.suspect) and event.end is RouteEnd.TIMEOUT and not attempt.path.relays:
            self._links.peer_lost(attempt.path.first, now=now)  # the far end of the link does not answer
        self._races.drop(destination, attempt, reason_of(event, hops), now)
        if of_active and sending.suspect:
            self._lose(destination, sending, now)  # the probe of the active path failed as well as its feedback
        return False

    def route_lost(self, destination: Destination, sending: Sending, event: RouteLost, now: float) -> None:
        """A route that was confirmed is gone."""
        active = sending.active
        if active is not None and active.route == event.route:
            self._search.failed(active.path, event.end, now=now)
            reason = Reason(event.end)
            self._events.append(Event(EventKind.SUSPECT, destination.node, path=active.path.hops, reason=reason))
            self._lose(destination, sending, now)
        elif (attempt := sending.of_route(event.route)) in sending.retiring:
            sending.retiring.remove(attempt)
            self._races.release_unused(destination, attempt.path.first, now)

    # ── what the datapath reports ──

    def feedback(self, sending: Sending, feedback: Feedback, now: float) -> None:
        """Take the far end's counts: the search learns the increase since its last report."""
        active = sending.active
        if active is None or feedback.epoch != sending.epoch:
            return  # a late report of the epoch before: its counts say nothing about this one
        active.suspect = False
        counts = Counts(feedback.received_count, feedback.lost_count, feedback.marked_count)
        new = (max(0, count - old) for count, old in zip(counts, sending.counts, strict=True))
        sending.counts = counts
        self._search.measured(active.path, Measured(feedback.rtt_s, *new), now=now)

    def doubt(self, destination: Destination, now: float) -> None:
        """Suspect the active route: set another one up over the same path, and race the other paths beside it.

        Packets that went by a route before it was confirmed wait for that now.
        """
        sending = destination.sending
        if sending is not None and sending.active is None:
            for attempt in sending.race.tries:
                self._races.end_early(sending, attempt, now)
        if sending is None or sending.active is None or sending.active.suspect:
            return
        sending.active.suspect = True
        sending.race.beaten.clear()
        # Not wanted: it carries the stream if the suspicion still holds when it is confirmed.
        self._races.try_beside(destination, sending.active.path, now)

    def avoid(self, destination: Destination, node: NodeId, now: float) -> None:
        """Leave every path by way of a node that is a member no more."""
        sending = destination.sending
        if sending is None:
            return
        sending.vantage.pop(node, None)
        for attempt in [entry for entry in sending.race.tries if node in entry.path.relays]:
            self._races.drop(destination, attempt, Reason(NodeEnd.REVOKED, by=node), now)
        if sending.active is not None and node in sending.active.path.relays:
            self._search.failed(sending.active.path, NodeEnd.REVOKED, now=now)
            self._lose(destination, sending, now)

    # ── commands, time ──

    def move(self, destination: Destination, current: Path, via: tuple[NodeId, ...] | None, now: float) -> Path:
        """Try a path that is to carry the stream: through via, or the best one that is not current.

        Raises UserError if there is no such path.
        """
        node = destination.node
        if via is not None:
            path = Path((*via, node))
            ends = {node, self._plane.me}
            if ends & set(via) or len(set(via)) < len(via) or len(path.hops) > HOP_COUNT_MAX:
                raise UserError(f"a path is at most {HOP_COUNT_MAX} hops, each another node")
        else:
            others = [entry for entry in self._search.paths(node, now=now) if entry != current]
            if not others:
                raise UserError("no other path is known")
            path = others[0]
        self._races.try_path(destination, path, now, wanted=True)
        return path

    def handle_timeout(self, destination: Destination, *, now: float) -> None:
        """Tear down routes that have retired, and replace a route before it expires."""
        sending = destination.sending
        if sending is None:
            return
        for attempt in [entry for entry in sending.retiring if entry.until <= now]:
            sending.retiring.remove(attempt)
            self._races.close_route(attempt)
            self._races.release_unused(destination, attempt.path.first, now)
        active = sending.active
        if active is not None and active.refresh_at is not None and active.refresh_at <= now:
            active.refresh_at = now + RELAYED_TIMEOUT_S
            self._races.try_path(destination, active.path, now, wanted=True)

    # ── changing ──

    def _switch(self, destination: Destination, sending: Sending, attempt: Try, hop: Hop, now: float) -> None:
        """Let the route carry the stream; the one before retires."""
        sending.race.tries.remove(attempt)
        old, sending.active = sending.active, attempt
        was_early = attempt.early is not None
        if attempt.early != hop:
            self._datapath.set_route(sending.stream, hop, now=now)
        attempt.early = None
        for other in sending.race.tries:
            self._races.end_early(sending, other, now)
        attempt.refresh_at = now + REFRESH_S
        self._races.carried(destination, attempt.path, now)
        hops = attempt.path.hops
        if old is None:
            if not was_early:
                self._tell_frames(destination, sending, attempt, now)
            return
        old.until = now + RETIRE_S
        sending.retiring.append(old)
        if old.path != attempt.path:
            sending.race.beaten.add(old.path)
            took_s = now - attempt.began_at
            self._events.append(Event(EventKind.MOVED, destination.node, path=hops, took_s=took_s))

    def _tell_frames(self, destination: Destination, sending: Sending, attempt: Try, now: float) -> None:
        took_s = now - sending.began_at
        self._events.append(Event(EventKind.FRAMES, destination.node, path=attempt.path.hops, took_s=took_s))

    def _lose(self, destination: Destination, sending: Sending, now: float) -> None:
        """Leave the stream without a route: its packets wait again, and other paths are tried."""
        lost, sending.active = sending.active, None
        assert lost is not None
        self._races.close_route(lost)
        self._datapath.set_route(sending.stream, None, now=now)
        sending.race.beaten.clear()
        sending.began_at = now
        self._races.release_unused(destination, lost.path.first, now)
        self._races.advance(destination, now)
        self._races.try_all(destination, lost.path, now)


def _is_worth_another_link(event: RouteFailed, path: Path) -> bool:
    """Say whether a link was let go in good order under the set-up: the first one, or one that a relay reports."""
    if event.refusal is None:
        return event.end is RouteEnd.LINK_CLOSED
    return any(event.refusal.is_of(RefusalWord.LINK_CLOSED, hop) for hop in range(len(path.relays)))
