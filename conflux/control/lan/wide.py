"""A node's part of LANs that are too large for everybody to be a neighbour of everybody.

    found, opened, lost ─► standing.py: who stands beside whom ─► NEAR, dials, closes
    for everybody       ─► spreading.py: the tree of the LAN   ─► SPREAD, NOTICE, GRAFT, PRUNE
    for one node        ─► ways.py, errands.py: a connection for it alone, else the way its messages came

Up to ten nodes nothing of this happens: what is open stands, and envelopes go to all of it.  channel.py has the
connections, bridge.py what goes from one LAN to another.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol

from conflux.budget import BudgetTable
from conflux.control.drop import Drop
from conflux.control.envelope import Envelope, Inner, Reach
from conflux.control.lan.circle import RING_FROM, STANDING_COUNT_MAX, Role
from conflux.control.lan.config import FORWARD_BACKLOG_BYTES_MAX
from conflux.control.lan.connection import Connection
from conflux.control.lan.errands import Errands, Waiting
from conflux.control.lan.frame import FrameType
from conflux.control.lan.handshake import INSTANCE_BYTES
from conflux.control.lan.meeting import TREE
from conflux.control.lan.neighbours import Neighbour
from conflux.control.lan.spreading import (
    ID_BYTES,
    NOTICE_ID_COUNT_MAX,
    TOLD_COUNT,
    TOLD_OF_QUESTIONS,
    Graft,
    Prune,
    Push,
    Replace,
    Tell,
    id_of,
)
from conflux.control.lan.standing import Close, Say, Standing, Stands
from conflux.control.lan.ways import Ways
from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId

TEND_S: Final = 1.0
SETTLE_S: Final = 0.3  # new faces are looked at together
STEPS_MAX: Final = 64  # between neighbours, from who began
HEAD_BYTES: Final = 1 + INSTANCE_BYTES
LAN_COUNT_MAX: Final = 32
# What one neighbour may bring of one sender, per second and at once; senders that mDNS does not show count as one.
# Chosen: 60 questions at once, as many as a node may ask.
SENDER_RATE, SENDER_BURST = 4.0, 64.0
SENDER_COUNT_MAX: Final = 4096
# New messages of one neighbour, whoever they say began them, per second and at once; senders that have not proved
# themselves to this node use half.  Chosen: a thousand boards say one or two a second; 60 questions of four at once.
NEW_RATE, NEW_BURST = 25.0, 256.0

Near = Neighbour[Connection]


class Ground(Protocol):
    """What is needed of the channel."""

    def connected(self, instance: bytes) -> Near | None:
        """Return the neighbour of that instance."""

    def wake(self, instances: Iterable[bytes], *, at_once: bool = False) -> frozenset[bytes]:
        """Dial these nodes, if they are not connected; return those that cannot be dialled, as they have no place.

        at_once: also those whose last try failed a moment ago.
        """

    def stands(self, neighbour: Near, stands: bool) -> None:
        """Take note that a neighbour stands from now on, or no longer."""

    def absent(self, node: NodeId) -> None:
        """Take note that what was to go to a node went nowhere."""


class Spread(NamedTuple):
    """What came in a SPREAD frame.  began: the instance of who said it first on this LAN."""

    steps: int
    began: bytes
    data: bytes


class Wide:
    """The LANs of one node, by name.

    me: our instance.  drop: counts what ends here, by reason.  is_on: else no LAN is ever a large one.
    """

    def __init__(
        self, me: bytes, ground: Ground, *, rng: random.Random, drop: Callable[[str], None], is_on: bool = True
    ) -> None:
        self.ways = Ways()
        self.meets_all = False  # this node has to know the questions that everybody here answers
        self._is_on = is_on
        self._me = me
        self._ground = ground
        self._rng = rng
        self._drop = drop
        self._lans: dict[str, Standing] = {}
        self._lan_of: dict[bytes, str] = {}
        self._shown: set[bytes] = set()  # by mDNS; the others are there because they are connected
        self._early: dict[bytes, Role] = {}  # of neighbours
        self._errands = Errands()
        self._senders = BudgetTable(SENDER_RATE, SENDER_BURST, SENDER_COUNT_MAX)
        self._new = BudgetTable(NEW_RATE, NEW_BURST, LAN_COUNT_MAX * STANDING_COUNT_MAX)
        self._new_of_strangers = BudgetTable(NEW_RATE / 2, NEW_BURST / 2, LAN_COUNT_MAX * STANDING_COUNT_MAX)
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0
        self._tending: asyncio.Handle | None = None
        self._tending_at = 0.0

    # ── what is known ─────────────────────────────────────────────────────────────────────────────────────────────────

    def of(self, instance: bytes) -> Standing | None:
        """Return the connections on the LAN where a node is."""
        lan = self._lan_of.get(instance)
        return None if lan is None else self._lans.get(lan)

    @property
    def is_wide(self) -> bool:
        """Whether any LAN is a large one."""
        return any(each.circle.is_ring for each in self._lans.values())

    def in_ring(self, instance: bytes) -> bool:
        """Say whether a node is on a large LAN."""
        standing = self.of(instance)
        return standing is not None and standing.circle.is_ring

    def stands(self, instance: bytes) -> bool:
        """Say whether a connection is there for good, so that what is for everybody goes over it."""
        standing = self.of(instance)
        return standing is None or instance not in standing or standing.stands(instance)

    def in_tree(self, instance: bytes) -> bool:
        """Say whether what is for everybody reaches a neighbour by the tree."""
        standing = self.of(instance)
        return standing is not None and standing.circle.is_ring and instance in standing.spreading

    def is_at_a_known_place(self, node: NodeId) -> bool:
        """Say whether a connection to a node of a large LAN can be opened for what is for it alone."""
        instance = self.ways.instance(node, _now())
        return instance is not None and instance != self._me and self.in_ring(instance)

    def wants(self, instance: bytes) -> bool:
        """Say whether a node is to be dialled when it is not connected."""
        standing = self.of(instance)
        if standing is None or instance in self._errands or standing.wants(instance, _now()):
            return True
        return self.meets_all and not standing.circle.has_met(instance)

    # ── who is there ──────────────────────────────────────────────────────────────────────────────────────────────────

    def found(self, instance: bytes, lan: str | None, *, shown: bool = True) -> None:
        """Take note of a node on a LAN.  shown: mDNS shows it; else it is connected, and says that the LAN is large."""
        if not self._is_on or lan is None or (lan not in self._lans and len(self._lans) >= LAN_COUNT_MAX):
            return
        standing = self._lans.setdefault(lan, Standing(self._me, self._rng))
        self._lan_of.setdefault(instance, lan)
        if self._lan_of[instance] != lan:
            return  # it is on both of two LANs: one ring is enough
        if shown:
            self._shown.add(instance)
        evicted = standing.circle.alive(instance)
        if evicted is not None:
            self._forget(evicted)
        if instance not in standing and (near := self._ground.connected(instance)) is not None:
            self.opened(near)
        if len(standing.circle) + 1 >= RING_FROM and not standing.circle.is_ring:
            self.tend()
        else:
            self._tend_soon(SETTLE_S)

    def gone(self, instance: bytes) -> None:
        """Take note that mDNS shows a node no longer."""
        standing = self.of(instance)
        if standing is None:
            return
        self._shown.discard(instance)
        standing.gone(instance, _now())
        if instance not in standing.circle:
            self._forget(instance)
        self._tend_soon(SETTLE_S)

    def _forget(self, instance: bytes) -> None:
        """Forget a node that its circle does not know any more."""
        self._shown.discard(instance)
        self._lan_of.pop(instance, None)
        self.ways.gone(instance)

    def opened(self, near: Near, *, replaces: bool = False) -> bool:
        """Take note of a new connection; say whether ground.stands() tells of it.

        replaces: it takes the place of one to the same process.
        """
        if not self._is_on:
            return False
        instance, now = near.peer.instance, _now()
        earlier = self.ways.proved(near.peer.node, instance)
        if earlier is not None and (held := self.of(earlier)) is not None:  # one node has one place, whatever it shows
            held.closed(earlier, now)
            held.circle.gone(earlier)
            self._forget(earlier)
        standing = self.of(instance)
        if standing is None:
            return False
        if replaces:
            standing.reopened(instance, dialled=near.dialled, now=now)
        else:
            standing.opened(instance, dialled=near.dialled, spreads=TREE in near.peer.features, now=now)
        if (role := self._early.pop(instance, None)) is not None:
            standing.near(instance, role, now)
        self.tend()
        self._run_errands(near)
        return True

    def lost(self, instance: bytes, *, dead: bool) -> None:
        """Take note that a connection ended.  dead: the node fell silent."""
        self._early.pop(instance, None)
        standing = self.of(instance)
        if standing is not None and instance in standing:
            standing.closed(instance, _now(), dead=dead)
            if instance not in self._shown:
                self.gone(instance)
            self.tend()

    def failed(self, instance: bytes) -> None:
        """Take note that a node could not be dialled."""
        standing = self.of(instance)
        if standing is not None:
            standing.failed(instance, _now())
            self.tend()
        for waiting in self._errands.take(instance):
            self._go_round(waiting)

    def pin(self, instance: bytes, *, before: bytes | None = None) -> None:
        """Always stand beside a node that a person named.  before: its instance when it was dialled last."""
        if before not in (None, instance) and (standing := self.of(before)) is not None:
            standing.circle.unpin(before)
        standing = self.of(instance)
        if standing is not None:
            standing.circle.pin(instance)

    def stop(self) -> None:
        """End the timers."""
        for timer in (self._timer, self._tending):
            if timer is not None:
                timer.cancel()
        self._timer = self._tending = None
        self._lans.clear()  # connections that end now are nobody's loss
        self._lan_of.clear()

    # ── what is for one node ──────────────────────────────────────────────────────────────────────────────────────────

    def errand(self, to: NodeId, data: bytes, *, own: bool, again: bool = False) -> bool:
        """Send an envelope over a connection that is opened for it; False: it is not known where the node is.

        again: it was sent before, and brought no answer.
        """
        instance = self.ways.instance(to, _now(), again=again)
        if instance is None or instance == self._me or not self.in_ring(instance):
            return False  # of this node's own messages some say that they began here
        near = self._ground.connected(instance)
        if near is not None:
            self.used(instance)
            return near.connection.send(FrameType.ENVELOPE, data)
        waiting = Waiting(to, data, own, again)
        if not self._errands.add(instance, waiting, _now()):
            if self._goes_round(waiting):
                return True
            self._drop(Drop.FORWARD_SLOW)
            return False
        if self._ground.wake((instance,), at_once=True):
            self.failed(instance)
        self._tend_soon(TEND_S)
        return True

    def used(self, instance: bytes) -> None:
        """Take note that something for one node goes over a connection."""
        standing = self.of(instance)
        if standing is not None:
            standing.used(instance, _now())

    def _run_errands(self, near: Near) -> None:
        for waiting in self._errands.take(near.peer.instance):
            if waiting.own and self.ways.instance(waiting.to, _now(), again=waiting.again) != near.peer.instance:
                self._go_round(waiting)  # another node is there than the message said
            else:
                near.connection.send(FrameType.ENVELOPE, waiting.data)

    def _go_round(self, waiting: Waiting) -> None:
        if not self._goes_round(waiting) and waiting.own:
            self._ground.absent(waiting.to)

    def _goes_round(self, waiting: Waiting) -> bool:
        """Send an envelope the way that the node's messages came; False: no way is known."""
        by = self.ways.by(waiting.to, _now(), again=waiting.again)
        instance = None if by is None else self.ways.instance(by, _now())
        near = None if instance is None else self._ground.connected(instance)
        return near is not None and near.connection.send(FrameType.ENVELOPE, waiting.data)

    # ── what is for everybody ─────────────────────────────────────────────────────────────────────────────────────────

    def say(self, envelope: Envelope, data: bytes, instances: Iterable[bytes]) -> bool:
        """Spread an envelope on every large LAN where one of these neighbours is; say whether there is any."""
        lans = {id(each): each for each in map(self.of, instances) if each is not None and each.circle.is_ring}
        for standing in lans.values():
            body = bytes((0,)) + self._me + data
            standing.spreading.spread(id_of(data), body, now=_now(), told=_told_of(envelope))
            self._flow(standing)
        return bool(lans)

    def take_untrusted(self, near: Near, kind: FrameType, body: bytes) -> Spread | None:
        """Take a frame of a neighbour; return what is new to this node.  Raises RemoteProtocolError."""
        instance, now = near.peer.instance, _now()
        standing = self.of(instance)
        if standing is None or instance not in standing:
            if kind is FrameType.NEAR:
                self._early[instance] = _role_untrusted(body)  # said right after the handshake
            return None
        spreading = standing.spreading
        spread: Spread | None = None
        match kind:
            case FrameType.NEAR:
                standing.near(instance, _role_untrusted(body), now)
                self.tend()
                return None
            case FrameType.NOTICE:
                ids = [body[at : at + ID_BYTES] for at in range(0, len(body), ID_BYTES)]
                if len(body) % ID_BYTES or not 0 < len(ids) <= NOTICE_ID_COUNT_MAX:
                    raise RemoteProtocolError(Drop.MALFORMED, "a notice of eight bytes each")
                if not spreading.told(ids, instance, now=now):
                    self._drop(Drop.FLOOD)
            case FrameType.GRAFT:
                if len(body) != ID_BYTES:
                    raise RemoteProtocolError(Drop.MALFORMED, "a graft of eight bytes")
                spreading.grafted(body, instance, now=now)
            case FrameType.PRUNE:
                if body:
                    raise RemoteProtocolError(Drop.MALFORMED, "a prune with a body")
                spreading.pruned(instance)
            case _ if instance in spreading:
                spread = self._spread_untrusted(standing, near, body)
            case _:
                self._drop(Drop.NOT_FOR_US)  # else a member could bring so much to every board at once
        self._flow(standing)
        return spread

    def _spread_untrusted(self, standing: Standing, near: Near, body: bytes) -> Spread | None:
        if len(body) <= HEAD_BYTES:
            raise RemoteProtocolError(Drop.MALFORMED, "nothing spreads")
        instance = near.peer.instance
        spread = Spread(body[0], body[1:HEAD_BYTES], body[HEAD_BYTES:])
        id_ = id_of(spread.data)
        if standing.spreading.has(id_):
            standing.spreading.spread(id_, b"", now=_now(), via=instance)
            self._drop(Drop.DUPLICATE)
            return None
        if spread.steps >= STEPS_MAX:
            self._drop(Drop.HOP_LIMIT)
            return None
        if spread.steps == 0 and spread.began != instance:
            raise RemoteProtocolError(Drop.MALFORMED, "who begins says where")
        if Envelope.decode_untrusted(spread.data).to is not None:  # before the bridge notes that it passed
            raise RemoteProtocolError(Drop.MALFORMED, "what is for one node does not spread")
        if not self._may_bring(near, spread.began):
            standing.spreading.refuse(id_, instance)
            self._drop(Drop.FLOOD)
            return None
        return spread

    def _may_bring(self, near: Near, began: bytes) -> bool:
        """Say whether a neighbour may bring one more new message, of a sender that it names."""
        standing, via, now = self.of(near.peer.instance), near.peer.node, _now()
        if standing is None or not self._senders.take((via, began if began in standing.circle else b""), now):
            return False
        if not standing.circle.is_proved(began) and not self._new_of_strangers.take(via, now):
            return False
        return self._new.take(via, now)

    def refuse(self, near: Near, spread: Spread) -> None:
        """Take note that what a neighbour spreads is over budget: another one may bring it."""
        standing = self.of(near.peer.instance)
        if standing is not None:
            standing.spreading.refuse(id_of(spread.data), near.peer.instance)

    def received_untrusted(self, near: Near, data: bytes, spread: Spread | None) -> None:
        """Take an envelope of a neighbour that is new here: spread it on its LAN, and learn which way it came.

        spread: as it came along the tree; None: it came as on a small LAN.  Raises RemoteProtocolError.
        """
        envelope, instance = Envelope.decode_untrusted(data), near.peer.instance
        self._learn_untrusted(envelope, near, None if spread is None else spread.began)
        if envelope.to is not None:
            self.used(instance)
        elif spread is not None:
            self._go_on(near, envelope, spread)
        elif self.in_tree(instance):  # to it, this LAN is a small one
            if self._may_bring(near, instance):
                self._go_on(near, envelope, Spread(0, instance, data))
            else:
                self._drop(Drop.FLOOD)

    def _go_on(self, near: Near, envelope: Envelope, spread: Spread) -> None:
        """Spread what came from a neighbour further on its LAN."""
        standing, now = self.of(near.peer.instance), _now()
        if standing is None or (not standing.circle.is_ring and near.peer.instance not in standing.spreading):
            return
        body = bytes((spread.steps + 1,)) + spread.began + spread.data
        standing.spreading.spread(
            id_of(spread.data),
            body,
            now=now,
            via=near.peer.instance,
            sender=spread.began if standing.circle.is_proved(spread.began) else b"",
            told=_told_of(envelope),
        )
        self._flow(standing)

    def _learn_untrusted(self, envelope: Envelope, near: Near, began: bytes | None) -> None:
        """Remember which way a readable message came."""
        if envelope.key_id is not None or not self.in_ring(near.peer.instance):
            return
        try:
            node = Inner.decode_untrusted(envelope.payload).src
        except RemoteProtocolError:
            return  # counted where it is read
        self.ways.heard_untrusted(node, began, near.peer.node, _now())

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def tend(self) -> None:
        """Look at every LAN again, and do what is decided."""
        if self._tending is not None:
            self._tending.cancel()
            self._tending = None
        now = _now()
        for standing in list(self._lans.values()):
            standing.tend(now)
            self._act(standing)
        for instance in self._errands.late(now):
            for waiting in self._errands.take(instance):
                self._go_round(waiting)
        if self.is_wide:
            self._tend_soon(TEND_S)

    def _tend_soon(self, after_s: float) -> None:
        at = _now() + after_s
        if self._tending is not None:
            if self._tending_at <= at:
                return
            self._tending.cancel()
        self._tending_at = at
        self._tending = asyncio.get_running_loop().call_at(at, self.tend)

    def _act(self, standing: Standing) -> None:
        while (act := standing.next_act()) is not None:
            near = self._ground.connected(act.instance)
            if near is None:
                continue
            match act:
                case Say(_, role):
                    near.connection.send(FrameType.NEAR, bytes((role,)))
                case Close():
                    near.connection.close("idle")
                case Stands(_, stands):
                    self._ground.stands(near, stands)
        if standing.circle.is_ring:
            wanted = standing.wanted(_now())
            if self.meets_all:
                wanted += [each for each in standing.circle.nodes() if not standing.circle.has_met(each)][:8]
            for instance in self._ground.wake(wanted):
                standing.circle.gone(instance)
                self._forget(instance)
                self._tend_soon(SETTLE_S)
        self._flow(standing)

    def _flow(self, standing: Standing) -> None:
        """Send what the tree of a LAN has to send."""
        spreading = standing.spreading
        while (out := spreading.next_out()) is not None:
            near = self._ground.connected(out.to)
            if near is None:
                continue
            match out:
                case Push(_, data):
                    if near.connection.backlog_bytes + len(data) > FORWARD_BACKLOG_BYTES_MAX:
                        self._drop(Drop.FORWARD_SLOW)
                    else:
                        near.connection.send(FrameType.SPREAD, data)
                case Tell(_, ids):
                    near.connection.send(FrameType.NOTICE, b"".join(ids))
                case Graft(_, id_):
                    near.connection.send(FrameType.GRAFT, id_)
                case Prune():
                    near.connection.send(FrameType.PRUNE)
                case Replace(to):
                    self._drop(Drop.SWALLOWS)
                    standing.distrust(to, _now())
                    self._tend_soon(0.0)
        due = spreading.next_timeout()
        if due is not None and (self._timer is None or due < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = asyncio.get_running_loop().call_at(due, self._due)

    def _due(self) -> None:
        self._timer = None
        for standing in list(self._lans.values()):
            standing.spreading.handle_timeout(now=_now())
            self._flow(standing)


def _told_of(envelope: Envelope) -> int | None:
    """Return how many beside the tree are told of an envelope; None: all."""
    if envelope.reach is Reach.REALM:
        return None  # a signed list: who is denied by it should have no friend left
    return TOLD_COUNT if envelope.bucket is None else TOLD_OF_QUESTIONS


def _role_untrusted(body: bytes) -> Role:
    if len(body) != 1 or body[0] > max(Role):
        raise RemoteProtocolError(Drop.MALFORMED, "what a connection is for is one byte")
    return Role(body[0])


def _now() -> float:
    return asyncio.get_running_loop().time()
