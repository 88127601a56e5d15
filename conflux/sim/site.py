"""One large LAN, simulated: the real machines of every board, in virtual time, and every byte counted.

    board: Standing (Circle, Spreading) ─ dials, NEAR, SPREAD, NOTICE, GRAFT, PRUNE, pings ─► board

There is no TLS and there are no keys: a connection is there or not, and a frame arrives after a few milliseconds.  A
board that loses power says nothing; others find out when it answers no ping, or no segment that they sent.  Every frame
is counted as it goes, each in an Ethernet frame of its own: what is around its bytes was measured on real connections.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from conflux.control.lan.circle import Role
from conflux.control.lan.config import PING_LATER_S, PING_S
from conflux.control.lan.frame import FrameType, encode_frame
from conflux.control.lan.spreading import Graft, Prune, Push, Replace, Tell, id_of
from conflux.control.lan.standing import Close, Say, Standing, Stands

SEGMENT_BYTES, ACK_BYTES = 88, 66  # Ethernet, IPv4, TCP with timestamps, TLS record; and the bare acknowledgement
FRAME_HEAD_BYTES: Final = len(encode_frame(FrameType.PING))
SPREAD_HEAD_BYTES, ID_BYTES = 9, 8
QUESTION_BYTES: Final = 129  # the envelope of a question for a name
SILENCE_S = (32.0, 45.0)  # until a board that lost power is missed
UNACKED_S: Final = 10.0
DIAL_S: Final = 0.01
DIAL_DEAD_S: Final = 3.0
ANNOUNCED_S = (0.02, 0.12)  # until an announcement is heard, as the others answer at random
PLAN_S: Final = 0.3  # new faces are looked at together
LOOK_S: Final = 1.0


class Board:
    """One board.  swallows: it passes nothing on."""

    def __init__(self, site: Site, number: int) -> None:
        self.site = site
        self.number = number
        self.instance = site.rng.randbytes(8)
        self.standing = Standing(self.instance, random.Random(site.rng.random()))  # noqa: S311
        self.alive = True
        self.swallows = False
        self.dialling: set[bytes] = set()
        self.open: dict[bytes, float] = {}  # connections; of each, when its next ping is due if nothing is heard
        self.dialled: set[bytes] = set()  # those of them that this board made
        self.heard: dict[bytes, float] = {}
        self.copies = 0
        self._due = False
        self._timer_at: float | None = None

    @property
    def degree(self) -> int:
        """How many connections stand."""
        return len(self.standing.standing)

    def look(self) -> None:
        """Do what is due, once a second."""
        if self.alive:
            self.standing.tend(self.site.now)
            self.act()
            self._ping()
            self.site.at(LOOK_S, self.look)

    def hears(self, instance: bytes) -> None:
        """Take note of a sign of a neighbour: so long it needs no ping."""
        self.open[instance] = self.site.now + (PING_S if instance in self.dialled else PING_LATER_S)

    def ends(self, instance: bytes) -> bool:
        """Take note that a connection ended; say whether there was one."""
        self.dialled.discard(instance)
        return self.open.pop(instance, None) is not None

    def _ping(self) -> None:
        for instance, due in list(self.open.items()):
            if self.site.now >= due:
                self.hears(instance)  # one ping at a time
                self.site.stats["pings"] += 1
                self.site.frame(self, instance, 0, partial(Board._pinged, via=self.instance), answered=True)

    def _pinged(self, via: bytes) -> None:
        self.site.stats["pongs"] += 1
        self.site.frame(self, via, 0, lambda _: None)

    def soon(self) -> None:
        """Look at new faces, together with those that come meanwhile."""
        if not self._due:
            self._due = True
            self.site.at(self.site.rng.uniform(PLAN_S / 2, PLAN_S), self._now)

    def _now(self) -> None:
        self._due = False
        if self.alive:
            self.standing.tend(self.site.now)
            self.act()

    def act(self) -> None:
        """Carry out what the machines decided."""
        site = self.site
        while (act := self.standing.next_act()) is not None:
            if isinstance(act, Say):
                site.frame(self, act.instance, 1, partial(Board.said, other=self, role=act.role))
            elif isinstance(act, Close):
                site.close(self, act.instance)
            elif isinstance(act, Stands):
                site.stats["stands" if act.stands else "parts"] += 1
        for instance in self.standing.wanted(self.site.now):
            if instance not in self.dialling and instance not in self.open and len(self.dialling) < 8:
                self.dialling.add(instance)
                site.dial(self, instance)
        self.flow()

    def flow(self) -> None:
        """Send what spreads."""
        site, spreading = self.site, self.standing.spreading
        while (out := spreading.next_out()) is not None:
            if self.swallows and not isinstance(out, Replace):
                continue
            match out:
                case Push(to, data):
                    site.stats["pushes"] += 1
                    size = SPREAD_HEAD_BYTES + len(data)
                    site.frame(self, to, size, partial(Board.hear, data=data, via=self.instance))
                case Tell(to, ids):
                    site.frame(self, to, ID_BYTES * len(ids), partial(Board.told, ids=ids, via=self.instance))
                case Graft(to, id_):
                    site.stats["grafts"] += 1
                    site.frame(self, to, ID_BYTES, partial(Board.grafted, id_=id_, via=self.instance))
                case Prune(to):
                    site.frame(self, to, 0, partial(Board.pruned, via=self.instance))
                case Replace(to):
                    site.stats["replaced"] += 1
                    self.standing.distrust(to, site.now)
        due = spreading.next_timeout()
        if due is not None and (self._timer_at is None or due < self._timer_at):
            self._timer_at = due
            site.at(max(0.0, due - site.now), self._timer)

    def _timer(self) -> None:
        self._timer_at = None
        if self.alive:
            self.standing.spreading.handle_timeout(now=self.site.now)
            self.flow()

    def say(self, data: bytes, told: int | None = 2) -> None:
        """Send something to everybody."""
        self.heard[data] = self.site.now
        self.standing.spreading.spread(id_of(data), data, now=self.site.now, told=told)
        self.flow()

    def hear(self, data: bytes, via: bytes) -> None:
        """Take a whole message of a neighbour."""
        self.copies += 1
        self.site.stats["copies"] += 1
        told = self.site.told_of.get(data, 2)
        sender = self.site.sender_of.get(data, b"")
        now = self.site.now
        if self.standing.spreading.spread(id_of(data), data, now=now, via=via, sender=sender, told=told):
            self.heard[data] = now
        self.act()

    def told(self, ids: tuple[bytes, ...], via: bytes) -> None:
        """Take a notice."""
        self.standing.spreading.told(ids, via, now=self.site.now)
        self.flow()

    def grafted(self, id_: bytes, via: bytes) -> None:
        """Take a GRAFT."""
        self.standing.spreading.grafted(id_, via, now=self.site.now)
        self.flow()

    def pruned(self, via: bytes) -> None:
        """Take a PRUNE."""
        self.standing.spreading.pruned(via)

    def said(self, other: Board, role: Role) -> None:
        """Take a NEAR."""
        self.standing.near(other.instance, role, self.site.now)
        self.act()


class Site:
    """One LAN.  multicast_loss: of an announcement, at each board; it is said three times."""

    def __init__(self, count: int, seed: int = 1, *, multicast_loss: float = 0.03) -> None:
        self.rng = random.Random(seed)  # noqa: S311
        self.now = 0.0
        self.stats: Counter[str] = Counter()
        self.boards: list[Board] = []
        self.by_instance: dict[bytes, Board] = {}
        self.sender_of: dict[bytes, bytes] = {}
        self.told_of: dict[bytes, int | None] = {}
        self._loss = multicast_loss
        self._split: Callable[[Board], bool] | None = None
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        for _ in range(count):
            self.add()

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def at(self, delay_s: float, act: Callable[[], None]) -> None:
        """Do something later."""
        self._number += 1
        heapq.heappush(self._queue, (self.now + delay_s, self._number, act))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, act = heapq.heappop(self._queue)
            act()
        self.now = end

    # ── boards ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self) -> Board:
        """Switch a board on: it and the others are shown to each other."""
        board = Board(self, len(self.boards))
        for other in self.living():
            self._show(board, other)
            self._show(other, board)
        self.boards.append(board)
        self.by_instance[board.instance] = board
        self.at(self.rng.uniform(0.0, LOOK_S), board.look)
        return board

    def _show(self, to: Board, who: Board) -> None:
        if self.rng.random() >= self._loss**3:
            self.at(self.rng.uniform(*ANNOUNCED_S), lambda: self._shown(to, who))

    def _shown(self, to: Board, who: Board) -> None:
        if to.alive and self._meet(to, who):
            to.standing.circle.alive(who.instance)
            to.soon()

    def kill(self, boards: Iterable[Board]) -> None:
        """Take the power of these boards; nobody is told."""
        for board in boards:
            board.alive = False
            for instance in board.open:
                other = self.by_instance[instance]
                self.at(self.rng.uniform(*SILENCE_S), partial(self._miss, other, board))

    def split(self, part: Callable[[Board], bool] | None) -> None:
        """Let boards of which one is in a part and the other is not reach each other no more; None: all do again."""
        self._split = part
        for board in self.living():
            for instance in list(board.open):
                other = self.by_instance[instance]
                if not self._meet(board, other):
                    self.at(self.rng.uniform(*SILENCE_S), partial(self._miss, board, other))

    def _meet(self, a: Board, b: Board) -> bool:
        return self._split is None or self._split(a) == self._split(b)

    def living(self) -> list[Board]:
        """Return the boards that have power."""
        return [board for board in self.boards if board.alive]

    # ── connections ───────────────────────────────────────────────────────────────────────────────────────────────────

    def dial(self, board: Board, instance: bytes) -> None:
        """Try to connect."""
        other = self.by_instance.get(instance)
        there = other is not None and other.alive and self._meet(board, other)
        self.stats["dials"] += 1
        self.at(DIAL_S if there else DIAL_DEAD_S, lambda: self._dialled(board, instance))

    def _dialled(self, board: Board, instance: bytes) -> None:
        board.dialling.discard(instance)
        other = self.by_instance.get(instance)
        if not board.alive or instance in board.open:
            return
        if other is None or not other.alive or not self._meet(board, other):
            board.standing.failed(instance, self.now)
            board.act()
            return
        self.stats["opened"] += 1
        for one, far, dialled in ((board, other, True), (other, board, False)):
            if dialled:
                one.dialled.add(far.instance)
            one.hears(far.instance)
            one.standing.opened(far.instance, dialled=dialled, spreads=True, now=self.now)
            one.act()

    def close(self, board: Board, instance: bytes) -> None:
        """Close a connection in order: both ends know."""
        other = self.by_instance[instance]
        for one, far in ((board, other), (other, board)):
            if one.ends(far.instance) and one.alive:
                one.standing.closed(far.instance, self.now)
                self.at(0.0, one.act)

    def _miss(self, board: Board, other: Board) -> None:
        """Let a board find that another one is silent."""
        if board.alive and not (other.alive and self._meet(board, other)) and board.ends(other.instance):
            board.standing.closed(other.instance, self.now, dead=True)
            board.act()

    def frame(
        self, board: Board, to: bytes, size: int, act: Callable[[Board], None], *, answered: bool = False
    ) -> None:
        """Send one frame over a connection.  size: of its body.  answered: its acknowledgement comes with an answer."""
        if to not in board.open:
            return
        other = self.by_instance[to]
        self.stats["frames"] += 1
        self.stats["bytes"] += SEGMENT_BYTES + FRAME_HEAD_BYTES + size + (0 if answered else ACK_BYTES)
        if not other.alive or not self._meet(board, other):
            self.at(UNACKED_S, lambda: self._miss(board, other))
            return

        def arrive() -> None:
            if other.alive and board.instance in other.open:
                other.hears(board.instance)
                act(other)

        self.at(self.rng.uniform(0.001, 0.005), arrive)

    # ── what is measured ──────────────────────────────────────────────────────────────────────────────────────────────

    def broadcast(self, board: Board, wait_s: float = 2.0, size: int = QUESTION_BYTES, told: int | None = 2) -> float:
        """Let a board say something to everybody; return the share of the honest living that has it."""
        data = self.rng.randbytes(size)
        self.sender_of[data], self.told_of[data] = board.instance, told
        board.say(data, told)
        self.run(wait_s)
        honest = [each for each in self.living() if not each.swallows]
        return sum(data in each.heard for each in honest) / len(honest)

    def parts(self) -> list[int]:
        """Return the sizes of the parts in which the living hang together by what stands, the largest first."""
        left = {board.instance for board in self.living()}
        sizes = []
        while left:
            stack, size = [left.pop()], 1
            while stack:
                for instance in self.by_instance[stack.pop()].standing.standing:
                    if instance in left:
                        left.discard(instance)
                        stack.append(instance)
                        size += 1
            sizes.append(size)
        return sorted(sizes, reverse=True)

    def rest_bytes_per_minute(self, minutes: int = 5) -> float:
        """Let some minutes pass in which nobody has anything to say; return what a board sent and got in each."""
        before = self.stats["bytes"]
        self.run(60.0 * minutes)
        return 2 * (self.stats["bytes"] - before) / minutes / len(self.living())
