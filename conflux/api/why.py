"""`conflux why NAME`: where a node is known from, what was tried for it, what each said, and what comes next.

Kinds and times alone: cli/why.py makes the sentences.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from conflux.control.channel import ControlChannel
from conflux.control.who import Who
from conflux.ids import NodeId, format_node_id
from conflux.node import Node
from conflux.node.event import Reason, Step
from conflux.node.status import DestinationState, Outlook
from conflux.node.trail import Outcome, Trail, Tried
from conflux.realm.card import Card
from conflux.search.interface import Candidate


class Verdict(StrEnum):
    """How things stand with a node, in a word."""

    FLOWING = "flowing"  # packets pass
    SILENT = "silent"  # a route is there, and nothing comes back over it
    OPENING = "opening"  # packets wait while a way is opened
    RETRYING = "retrying"  # packets wait for the next try
    GIVEN_UP = "given-up"  # packets are refused for a while
    IDLE = "idle"  # nothing is sent, so nothing is open
    UNKNOWN = "unknown"  # no node answers to the name
    EXPIRED = "expired"  # its credential has ended
    REVOKED = "revoked"  # it is a member no more
    OWN_EXPIRED = "own-expired"  # this node's credential has ended
    OWN_REVOKED = "own-revoked"  # this node is a member no more


class KnownBy(StrEnum):
    """What a node is known by."""

    LAN = "lan"  # it is a neighbour
    BEHIND = "behind"  # a neighbour brings its messages
    BROKER = "broker"  # its messages come over a broker
    CARD = "card"  # its card is here, and no message came


class NextKind(StrEnum):
    """What is tried next."""

    RETRY = "retry"  # everything, once more
    PATH = "path"  # another path, beside those that are being tried
    DIRECT = "direct"  # the direct path, beside the one that carries
    PACKET = "packet"  # whatever there is, with the next packet


class Source(NamedTuple):
    """Where a node is known from.  address: on the LAN.  via: the neighbour that brings its messages.

    at: Unix seconds; of a neighbour since when, else when it was heard last; None: not as far as is remembered.
    """

    by: KnownBy
    channel: str | None = None
    address: str | None = None
    via: str | None = None
    at: float | None = None


class FailureRow(NamedTuple):
    """Why a step failed.  step, reason: kinds.  who: the node that it is about, by name.  said: its own word."""

    step: Step
    reason: str
    said: str
    who: str


class TriedRow(NamedTuple):
    """The latest try of one path.  path: by name, the destination last.

    at: Unix seconds; of its begin with TRYING, else of its end.  waited_s: how long nothing came, with UNANSWERED.
    again_at: it is not tried before; None: it may be tried.
    """

    path: tuple[str, ...]
    outcome: Outcome
    at: float
    waited_s: float | None
    failure: FailureRow | None
    again_at: float | None


class Next(NamedTuple):
    """What is tried next.  at: Unix seconds; None: as soon as there is a packet."""

    kind: NextKind
    at: float | None


class Ruled(NamedTuple):
    """Whether a flow may begin at one end.  rule: what allows it, by name; None: the default does, or nothing."""

    allowed: bool
    rule: str | None


class RuledFlow(NamedTuple):
    """What the policy says of a flow.  number: of the policy.  there: from here to the node; here: the other way."""

    flow: str
    number: int
    there: Ruled
    here: Ruled


class Why(NamedTuple):
    """The answer to `conflux why NAME`.  Instants are Unix seconds; None: never, or not known.

    asked: the word that was given.  heard_at: its last verified control message.  left_at: it ceased to be a neighbour
    then, and was not heard since.  expires_at: of its credential, or this node's with OWN_EXPIRED.  because: one word
    of those who revoked it.  ruled: None without a policy, or if no flow was asked for.
    path: what carries packets, by name.  trying: the paths under way.  handshake: why no
    stream was agreed the last time.  neighbours: of this node.  broker: this node is connected to one.  realm_at: now,
    by the realm's clock, against which dates of credentials are held.
    """

    asked: str
    name: str | None
    node: str | None
    verdict: Verdict
    sources: tuple[Source, ...] = ()
    heard_at: float | None = None
    left_at: float | None = None
    restarted_at: float | None = None
    expires_at: float | None = None
    revoked_at: float | None = None
    because: str | None = None
    path: tuple[str, ...] | None = None
    rtt_ms: float | None = None
    trying: tuple[tuple[str, ...], ...] = ()
    handshake: FailureRow | None = None
    tried: tuple[TriedRow, ...] = ()
    next: Next | None = None
    neighbours: int = 0
    broker: bool = False
    realm_at: float = 0.0
    ruled: RuledFlow | None = None


class Explainer:
    """Explains the nodes of one realm as one of them sees them now.  now: by the node's clock, in monotonic seconds."""

    def __init__(self, node: Node, channels: Sequence[ControlChannel], now: float) -> None:
        self._node = node
        self._channels = channels
        self._monotonic = now
        self._unix = time.time()

    # ── a node that is known ──

    def known(self, asked: str, card: Card, flow: str = "") -> Why:
        """Explain a node whose card is here.  flow: what of the policy is asked for.  Raises ConfigError for none."""
        node, peer, now = self._node, card.node_id, self._monotonic
        trail, outlook = node.trails.of(peer), node.outlook(peer, now=now)
        candidates = {each.hops: each for each in node.search.explain(peer, now=now)}
        own = self._own()
        rtt_ms, suspect = self._measured(peer)
        return self._why(
            asked,
            card.name,
            peer,
            self._verdict(outlook, suspect) if own is None else own,
            sources=self._sources(peer, trail),
            heard_at=self._at(trail.heard_at),
            left_at=self._at(_left_at(trail)),
            restarted_at=self._at(trail.restarted_at),
            expires_at=card.chain.not_after if own is not Verdict.OWN_EXPIRED else node.member.chain.not_after,
            path=None if outlook.path is None else self._names(outlook.path),
            rtt_ms=rtt_ms,
            trying=tuple(map(self._names, outlook.trying)),
            handshake=None if trail.handshake is None else self._failure(trail.handshake.reason, (peer,)),
            tried=tuple(self._tried(each, outlook, candidates) for each in reversed(trail.tried)),
            next=self._next(outlook),
            ruled=self._ruled(card, flow) if flow else None,
        )

    def _ruled(self, card: Card, flow: str) -> RuledFlow | None:
        from conflux.policy.judge import judge
        from conflux.policy.rules import Node as End
        from conflux.policy.terms import parse_flow

        first = parse_flow(flow)[0].first
        policing, mine, theirs = self._node.policing, self._node.member.chain.credential, card.chain.credential
        policy, number = policing.policy, policing.enforced.number
        if policy is None or number is None:
            return None
        me, other = End(mine.name, frozenset(mine.tags)), End(theirs.name, frozenset(theirs.tags))

        def ruled(source: End, target: End) -> Ruled:
            at_unix = self._node.plane.now_unix
            verdict = judge(policy, source, target, first >> 16, first & 0xFFFF, at_unix=at_unix)
            return Ruled(verdict.is_allowed, None if verdict.rule is None else verdict.rule.name)

        return RuledFlow(flow, number, ruled(me, other), ruled(other, me))

    def _verdict(self, outlook: Outlook, suspect: bool) -> Verdict:
        match outlook.state:
            case None:
                return Verdict.IDLE if outlook.refused_until is None else Verdict.GIVEN_UP
            case DestinationState.WAITING:
                return Verdict.RETRYING
            case DestinationState.FLOWING if not suspect:
                return Verdict.FLOWING
            case DestinationState.FLOWING | DestinationState.SUSPECT:
                return Verdict.SILENT
            case _:
                return Verdict.OPENING

    def _measured(self, peer: NodeId) -> tuple[float | None, bool]:
        """Return the round trip of the stream to a node, and whether its feedback stopped."""
        status = self._node.status(now=self._monotonic)
        stream = next((each.stream for each in status.destinations if each.node == peer), None)
        if stream is not None:
            for sender in status.datapath.senders:
                if sender.stream == stream.hex():
                    return sender.rtt_ms, sender.suspect
        return None, False

    def _sources(self, peer: NodeId, trail: Trail) -> tuple[Source, ...]:
        id_, found = format_node_id(peer), []
        for channel in self._channels:
            for each in channel.status():
                if each.node == id_:
                    since = self._unix - each.age_s
                    found.append(Source(KnownBy.LAN, channel.name, each.address, None, since))
        if found:
            return tuple(found)
        at = self._at(trail.heard_at)
        if at is None:
            return (Source(KnownBy.CARD),)
        if trail.heard_via in (None, peer):  # of a neighbour that left, its last word came on the LAN
            broker = next((channel.name for channel in self._channels if channel.far), None)
            by = KnownBy.BROKER if trail.heard_via is None and broker is not None else KnownBy.CARD
            return (Source(by, broker if by is KnownBy.BROKER else None, at=at),)
        assert trail.heard_via is not None
        return (Source(KnownBy.BEHIND, via=self._node.name_of(trail.heard_via), at=at),)

    def _tried(self, tried: Tried, outlook: Outlook, candidates: dict[tuple[NodeId, ...], Candidate]) -> TriedRow:
        candidate, outcome = candidates.get(tried.hops), tried.outcome
        if outcome is Outcome.TRYING and tried.hops not in outlook.trying:
            outcome = Outcome.LEFT
        return TriedRow(
            path=self._names(tried.hops),
            outcome=outcome,
            at=self._when(tried.at),
            waited_s=None if tried.waited_s is None else round(tried.waited_s, 1),
            failure=None if tried.reason is None else self._failure(tried.reason, tried.hops),
            again_at=None if candidate is None else self._at(candidate.paused_until),
        )

    def _failure(self, reason: Reason, hops: tuple[NodeId, ...]) -> FailureRow:
        who = hops[0] if reason.by is None else reason.by
        return FailureRow(reason.step, reason.end.value, reason.said, self._node.name_of(who))

    def _next(self, outlook: Outlook) -> Next | None:
        if outlook.state is None:
            return Next(NextKind.PACKET, self._at(outlook.refused_until))
        for kind, at in (
            (NextKind.RETRY, outlook.retry_at),
            (NextKind.PATH, outlook.next_at),
            (NextKind.DIRECT, outlook.direct_at),
        ):
            if at is not None:
                return Next(kind, self._at(at))
        return None

    # ── a node that is not ──

    def unknown(self, asked: str, who: Who, node: NodeId | None) -> Why:
        """Explain why no card is to be had for a word.  who: what it asks for.  node: whose it is, if that is known."""
        name, own = who.name, self._own()
        if own is not None:
            expires_at = self._node.member.chain.not_after if own is Verdict.OWN_EXPIRED else None
            return self._why(asked, name, node, own, expires_at=expires_at)
        revoked = self._node.trails.revoked(name or "") if node is None else node
        if revoked is not None and (denials := self._node.plane.lists.book.denials_of(revoked)):
            denial = denials[0].denial
            because = denial.reason if denial.node == revoked else None  # else its issuer is denied
            return self._why(asked, name, revoked, Verdict.REVOKED, revoked_at=denial.since, because=because)
        ended = self._node.plane.ended(who)
        if ended is not None:
            return self._why(asked, ended.name, ended.node, Verdict.EXPIRED, expires_at=ended.not_after)
        left_at = None if node is None else self._at(_left_at(self._node.trails.of(node)))
        return self._why(asked, name, node, Verdict.UNKNOWN, left_at=left_at)

    # ── both ──

    def _own(self) -> Verdict | None:
        """Return what is wrong with this node itself, so that it reaches no other; None: nothing."""
        if self._node.plane.is_revoked:
            return Verdict.OWN_REVOKED
        return Verdict.OWN_EXPIRED if self._node.plane.is_expired else None

    def _why(self, asked: str, name: str | None, node: NodeId | None, verdict: Verdict, **facts: Any) -> Why:
        why = Why(
            asked,
            name,
            None if node is None else format_node_id(node),
            verdict,
            neighbours=sum(len(channel.status()) for channel in self._channels),
            broker=any(channel.far and channel.state.up for channel in self._channels),
            realm_at=self._node.plane.now_unix,
        )
        return why._replace(**facts)

    def _names(self, hops: tuple[NodeId, ...]) -> tuple[str, ...]:
        return tuple(map(self._node.name_of, hops))

    def _when(self, at: float) -> float:
        return round(self._unix + at - self._monotonic, 3)

    def _at(self, at: float | None) -> float | None:
        return None if at is None else self._when(at)


def _left_at(trail: Trail) -> float | None:
    """Return when a node ceased to be a neighbour, if it was not heard since by another way."""
    if trail.is_neighbour or trail.neighbour_at is None:
        return None
    return None if trail.heard_at is not None and trail.heard_at > trail.neighbour_at else trail.neighbour_at
