"""Any sequence of inputs leaves the link machine in a legal state; two machines over a bad network always agree."""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from conflux.carrier.interface import (
    CandidatesFound,
    Closed,
    Connect,
    ControlArrived,
    Describe,
    Described,
    Description,
    Disconnect,
    Opened,
    TetherUp,
)
from conflux.control.envelope import Kind
from conflux.errors import RemoteProtocolError
from conflux.ids import LinkId, NodeId, TetherId
from conflux.link import LinkConfig, LinkDown, Links, Signal
from conflux.link.peer import State
from conflux.link.records import Answer, Candidates, Offer, Refusal

NODES = [NodeId(bytes([number]) * 16) for number in (1, 2, 3, 4)]
ME = NODES[1]
CONFIG = LinkConfig(dial_count_max=2, answer_count_max=2)


def description(name: str) -> Description:
    return Description(name, "p" * 22, bytes(32), 5000, 65536, ())


def assert_legal(machine: Links, now: float) -> None:
    """Check what must hold between any two inputs."""
    dialing = 0
    for node, entry in machine._peers.items():
        has_link = entry.state in (State.DIALING, State.OPEN, State.DRAINING)
        assert has_link == (entry.attempt is not None)
        assert (entry.state is State.WAITING) == (node in machine._waiting)
        if entry.attempt is not None:
            assert machine._by_link[entry.attempt.link] is entry
            assert (entry.attempt.opened_at is not None) == entry.is_up
        match entry.state:
            case State.IDLE:
                assert not entry.users
                assert entry.failure_count, "an idle peer without failures is forgotten"
                assert entry.wake_at is not None
            case State.WAITING | State.OPEN:
                assert entry.users
            case State.DIALING | State.DRAINING:
                assert entry.wake_at is not None
        if entry.state is State.DRAINING:
            assert not entry.users
        dialing += entry.is_dialing
    assert dialing <= machine.config.dial_count_max
    assert sum(entry.is_answering for entry in machine._peers.values()) <= machine.config.answer_count_max
    assert len(machine._by_link) == sum(entry.attempt is not None for entry in machine._peers.values())
    startable = [node for node in machine._waiting if machine._peers[node].hold_until <= now]
    assert not startable or dialing == machine.config.dial_count_max


peers = st.sampled_from([node for node in NODES if node != ME])
users = st.sampled_from(["a", "b"])
attempts = st.integers(0, 5)
links = st.integers(1, 12)
inputs = st.one_of(
    st.tuples(st.just("acquire"), peers, users),
    st.tuples(st.just("release"), peers, users),
    st.tuples(st.just("lost"), peers),
    st.tuples(st.just("returned"), peers),
    st.tuples(st.just("offer"), peers, attempts, st.integers(0, 4)),
    st.tuples(st.just("answer"), peers, attempts),
    st.tuples(st.just("candidates"), peers, attempts),
    st.tuples(st.just("refusal"), peers, attempts, st.sampled_from(["glare", "stale", "busy", "withdrawn", "failed"])),
    st.tuples(st.just("garbage"), peers, st.binary(max_size=40)),
    st.tuples(st.just("signal_failed"), peers, attempts),
    st.tuples(st.just("described"), links),
    st.tuples(st.just("found"), links),
    st.tuples(st.just("opened"), links),
    st.tuples(st.just("closed"), links, st.sampled_from(["asked", "peer", "failed"])),
    st.tuples(st.just("message"), links),
    st.tuples(st.just("tether"), links),
    st.tuples(st.just("wait"), st.floats(0, 20)),
)


@given(st.lists(inputs, max_size=60), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_any_sequence_of_inputs_ends_in_a_legal_state(sequence: list[tuple[Any, ...]], seed: int) -> None:
    rng = Random(seed)
    machine = Links(ME, rng=rng, entropy=rng.randbytes, config=CONFIG)
    known = [b"unknown!"]  # attempt ids a peer may name: those sent to it, the newest first, and one that never was
    described: set[LinkId] = set()
    disconnected: set[LinkId] = set()
    now = 0.0

    def attempt(index: int) -> bytes:
        return known[index % len(known)]

    for name, *arguments in sequence:
        match name, *arguments:
            case "acquire", peer, user:
                machine.acquire(peer, user, now=now)
            case "release", peer, user:
                machine.release(peer, user, now=now)
            case "lost", peer:
                machine.peer_lost(peer, now=now)
            case "returned", peer:
                machine.peer_returned(peer, now=now)
            case "offer", peer, index, number:
                body = Offer(bytes([index]) * 8, number, description("them")).encode()
                machine.receive_signal(peer, Kind.OFFER, body, 1, now=now)
            case "answer", peer, index:
                body = Answer(attempt(index), description("them")).encode()
                machine.receive_signal(peer, Kind.ANSWER, body, 1, now=now)
            case "candidates", peer, index:
                machine.receive_signal(peer, Kind.CANDIDATES, Candidates(attempt(index), ("x",)).encode(), 1, now=now)
            case "refusal", peer, index, reason:
                body = Refusal(attempt(index), 3, reason).encode()
                machine.receive_signal(peer, Kind.LINK_REFUSED, body, 1, now=now)
            case "garbage", peer, data:
                with contextlib.suppress(RemoteProtocolError):
                    machine.receive_signal(peer, Kind.OFFER, data, 1, now=now)
            case "signal_failed", peer, index:
                machine.signal_failed(peer, attempt(index), "timeout", now=now)
            case "described", link:
                machine.carrier_event(Described(link, description("us")), now=now)
            case "found", link:
                machine.carrier_event(CandidatesFound(link, ("x",)), now=now)
            case "opened", link:
                machine.carrier_event(Opened(link), now=now)
            case "closed", link, reason:
                machine.carrier_event(Closed(link, reason), now=now)
            case "message", link:
                machine.carrier_event(ControlArrived(link, b"x"), now=now)
            case "tether", link:
                machine.carrier_event(TetherUp(link, TetherId(b"12345678")), now=now)
            case "wait", span:
                now += span
                machine.handle_timeout(now=now)
                due = machine.next_timeout()
                assert due is None or due > now, "a timeout that was handled is not due again"
        while (signal := machine.next_signal()) is not None:
            known.insert(0, signal.attempt)
        while (command := machine.next_command()) is not None:
            if isinstance(command, Describe):
                assert command.link not in described
                described.add(command.link)
            else:
                assert command.link in described, "a command names a link that was described"
                assert command.link not in disconnected, "no command names a link after its Disconnect"
            if isinstance(command, Disconnect):
                disconnected.add(command.link)
        while machine.next_event() is not None:
            pass
        machine.status()
        assert_legal(machine, now)


class Side:
    """One node: its machine, the links of its carrier, and the users that want the other node."""

    def __init__(self, node: NodeId, rng: Random) -> None:
        self.node = node
        self.machine = Links(node, rng=rng, entropy=rng.randbytes)
        self.wanted: set[str] = set()
        self.remote_of: dict[
            LinkId, str
        ] = {}  # live links of the carrier: the far name that each is connected to, or ""


class World:
    """Two nodes, a lossy channel for signals and a carrier that sometimes fails; by seed, in simulated time."""

    def __init__(self, seed: int, loss: float) -> None:
        self.rng = Random(seed)
        self.loss = loss
        self.now = 0.0
        self.sides = [Side(node, self.rng) for node in NODES[:2]]
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._sequence = itertools.count(1)
        self._unanswered: dict[int, tuple[int, bytes]] = {}  # sequence number of a request → its node and attempt
        self._opening: set[frozenset[str]] = set()

    def after(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay, next(self._order), action))

    def run_until(self, end: float) -> None:
        while True:
            for index in (0, 1):
                self._drain(index)
            timeouts = [due for side in self.sides if (due := side.machine.next_timeout()) is not None]
            queued = self._queue[0][0] if self._queue else float("inf")
            at = min([queued, *timeouts])
            if at > end:
                self.now = end
                return
            self.now = max(self.now, at)
            if queued <= at:
                heapq.heappop(self._queue)[2]()
            for side in self.sides:
                side.machine.handle_timeout(now=self.now)

    def _drain(self, index: int) -> None:
        side = self.sides[index]
        while True:
            if (signal := side.machine.next_signal()) is not None:
                self._signal(index, signal)
            elif (command := side.machine.next_command()) is not None:
                self._command(index, command)
            elif (event := side.machine.next_event()) is not None:
                if isinstance(event, LinkDown):
                    for user in side.wanted:
                        side.machine.acquire(self.sides[1 - index].node, user, now=self.now)
            else:
                return

    # ── the control channel: it loses, doubles and reorders; requests are repeated as the plane does ──

    def _signal(self, index: int, signal: Signal) -> None:
        sequence = next(self._sequence)
        sends = [0.0]
        if signal.answered:
            self._unanswered[sequence] = (index, signal.attempt)
            sends = [0.0, 0.25, 1.0, 4.0]
            self.after(10, lambda: self._give_up(sequence))
        for delay in sends:
            for _ in range(1 + (self.rng.random() < self.loss / 2)):
                if self.rng.random() >= self.loss:
                    self.after(
                        delay + 0.005 + self.rng.random() * 0.2, lambda: self._deliver(1 - index, signal, sequence)
                    )

    def _deliver(self, index: int, signal: Signal, sequence: int) -> None:
        if signal.re is not None:
            self._unanswered.pop(signal.re, None)
        side = self.sides[index]
        side.machine.receive_signal(self.sides[1 - index].node, signal.kind, signal.body, sequence, now=self.now)

    def _give_up(self, sequence: int) -> None:
        if sequence in self._unanswered:
            index, attempt = self._unanswered.pop(sequence)
            far = self.sides[1 - index].node
            self.sides[index].machine.signal_failed(far, attempt, "timeout", now=self.now)

    # ── the carrier ──

    def _command(self, index: int, command: Any) -> None:
        side = self.sides[index]
        link = command.link
        name = f"{index}/{link}"
        match command:
            case Describe():
                side.remote_of[link] = ""
                self.after(0.002, lambda: self._event(index, Described(link, description(name))))
            case Connect(remote=remote):
                side.remote_of[link] = remote.ice_ufrag
                self._maybe_open(name, remote.ice_ufrag)
            case Disconnect():
                self._close(name, "asked")

    def _maybe_open(self, name: str, far_name: str) -> None:
        if self._remote(far_name) != name or self._remote(name) != far_name:
            return
        if self.rng.random() < self.loss:
            self.after(0.5, lambda: self._close(name, "failed"))
            return
        for one, other in ((name, far_name), (far_name, name)):
            self.after(0.01 + self.rng.random() * 0.2, lambda one=one, other=other: self._open(one, other))

    def _open(self, name: str, far_name: str) -> None:
        if self._remote(name) == far_name:
            index, link = self._parse(name)
            self._event(index, Opened(link))

    def _close(self, name: str, reason: str) -> None:
        far_name = self._remote(name)
        if far_name is None:
            return
        index, link = self._parse(name)
        del self.sides[index].remote_of[link]
        self.after(0.001, lambda: self._event(index, Closed(link, reason)))
        if far_name and self._remote(far_name) == name:
            delay = 30.0 if self.rng.random() < self.loss else 0.01  # by lost consent, if the goodbye is lost
            self.after(delay, lambda: self._close(far_name, "peer"))

    def _event(self, index: int, event: Any) -> None:
        if isinstance(event, Closed) or event.link in self.sides[index].remote_of:
            self.sides[index].machine.carrier_event(event, now=self.now)

    def _parse(self, name: str) -> tuple[int, LinkId]:
        index, _, link = name.partition("/")
        return int(index), LinkId(int(link))

    def _remote(self, name: str) -> str | None:
        index, link = self._parse(name)
        return self.sides[index].remote_of.get(link)

    # ── what the two nodes hold ──

    def links_open(self) -> list[LinkId | None]:
        left, right = self.sides
        return [left.machine.link(right.node), right.machine.link(left.node)]

    def act(self, index: int, name: str, user: str) -> None:
        side, far = self.sides[index], self.sides[1 - index].node
        match name:
            case "acquire":
                side.wanted.add(user)
                side.machine.acquire(far, user, now=self.now)
            case "release":
                side.wanted.discard(user)
                side.machine.release(far, user, now=self.now)
            case "lost":
                side.machine.peer_lost(far, now=self.now)
                for wish in side.wanted:
                    side.machine.acquire(far, wish, now=self.now)
            case "returned":
                side.machine.peer_returned(far, now=self.now)


actions = st.tuples(
    st.floats(0, 8), st.integers(0, 1), st.sampled_from(["acquire", "acquire", "release", "lost", "returned"]), users
)


@given(st.lists(actions, min_size=1, max_size=12), st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.4]))
@settings(max_examples=200, deadline=None)
def test_two_nodes_end_with_one_open_link_or_none(
    sequence: list[tuple[float, int, str, str]], seed: int, loss: float
) -> None:
    world = World(seed, loss)
    for span, index, name, user in sequence:
        world.run_until(world.now + span)
        world.act(index, name, user)
    world.run_until(world.now + 20)
    world.loss = 0.0
    world.run_until(world.now + 100)
    settled = world.links_open()
    world.run_until(world.now + 100)

    left, right = world.sides
    links_open = world.links_open()
    assert links_open == settled, "a link that is wanted stays"
    if left.wanted or right.wanted:
        assert None not in links_open
        assert left.remote_of == {links_open[0]: f"1/{links_open[1]}"}
        assert right.remote_of == {links_open[1]: f"0/{links_open[0]}"}
    else:
        assert links_open == [None, None]
        assert (left.remote_of, right.remote_of) == ({}, {})
        assert (left.machine.status(), right.machine.status()) == ((), ())
