"""Any bytes, any order of sequence numbers, any weather: and two nodes that must decide alike."""

from __future__ import annotations

import contextlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from kit.control import World

from conflux.control.envelope import HOP_LIMIT_MAX, Envelope, Inner, Kind, Reach
from conflux.control.event import Message
from conflux.control.lan.frame import BODY_BYTES_MAX, FrameReader, FrameType, encode_frame
from conflux.control.lan.handshake import Greeting, Hello, Peer, Welcome
from conflux.control.lan.meeting import FullHello, FullWelcome, HelloAgain, WelcomeAgain
from conflux.control.lan.neighbours import Neighbour, Neighbours
from conflux.control.replay import WINDOW_SIZE, ReplayWindow, Verdict
from conflux.control.who import Presence, Question, Who
from conflux.errors import RemoteProtocolError
from conflux.ids import BootId, NodeId
from conflux.sim.flights import Weather

NODES = st.binary(min_size=16, max_size=16).map(NodeId)
BOOTS = st.binary(min_size=8, max_size=8).map(BootId)
ENVELOPES = st.builds(
    Envelope,
    to=st.none() | NODES,
    id=st.binary(min_size=16, max_size=16),
    hop_limit=st.integers(0, HOP_LIMIT_MAX),
    key_id=st.none() | st.binary(min_size=8, max_size=8),
    payload=st.binary(min_size=1, max_size=300),
    reach=st.sampled_from(Reach),
) | st.builds(
    Envelope,
    to=st.none(),
    id=st.just(bytes(16)),
    hop_limit=st.just(0),
    key_id=st.none(),
    payload=st.just(b"question"),
    bucket=st.integers(0, 4095),
)
INNERS = st.builds(
    Inner,
    src=NODES,
    boot=BOOTS,
    seq=st.integers(0, 2**64 - 1),
    kind=st.integers(0, 255),
    re=st.integers(0, 2**64 - 1),
    body=st.binary(max_size=300),
    signature=st.binary(min_size=64, max_size=64),
)


@given(record=ENVELOPES | INNERS)
def test_records_survive_the_wire(record: Envelope | Inner) -> None:
    assert type(record).decode_untrusted(record.encode()) == record


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_record_or_a_protocol_error(data: bytes) -> None:
    meeting = (FullHello, FullWelcome, HelloAgain, WelcomeAgain)
    for record in (Envelope, Inner, Who, Question, Presence, Greeting, Hello, Welcome, *meeting):
        with contextlib.suppress(RemoteProtocolError):
            assert record.decode_untrusted(data).encode() == data


@given(seqs=st.lists(st.integers(0, 3 * WINDOW_SIZE), max_size=60))
def test_window_agrees_with_a_set_of_all_numbers_seen(seqs: list[int]) -> None:
    window, seen = ReplayWindow(), set[int]()
    for seq in seqs:
        top = max(seen, default=-1)
        expected = Verdict.TOO_OLD if seq <= top - WINDOW_SIZE else Verdict.REPEATED if seq in seen else Verdict.FRESH
        assert window.check(seq) is expected
        window.accept(seq)
        seen.add(seq)


@given(
    frames=st.lists(st.tuples(st.sampled_from(FrameType), st.binary(max_size=200)), max_size=8),
    cuts=st.lists(st.integers(1, 50), min_size=1, max_size=20),
)
def test_frames_survive_any_cutting_of_the_stream(frames: list[tuple[FrameType, bytes]], cuts: list[int]) -> None:
    stream = b"".join(encode_frame(kind, body) for kind, body in frames)
    reader, found, position, step = FrameReader(), [], 0, 0
    while position < len(stream):
        size = cuts[step % len(cuts)]
        reader.feed(stream[position : position + size])
        found += iter(reader.take_untrusted, None)
        position, step = position + size, step + 1
    assert found == frames


@given(chunks=st.lists(st.binary(max_size=100), max_size=30))
def test_any_stream_is_frames_or_a_protocol_error_and_never_piles_up(chunks: list[bytes]) -> None:
    reader = FrameReader()
    try:
        for chunk in chunks:
            reader.feed(chunk)
            for _, body in iter(reader.take_untrusted, None):
                assert len(body) <= BODY_BYTES_MAX
            assert len(reader._buffer) <= BODY_BYTES_MAX + 100
    except RemoteProtocolError:
        pass


def peer(node: bytes, boot: bytes, session: bytes) -> Peer:
    return Peer(NodeId(node * 16), "x", BootId(boot * 8), b"instance", 2**40, session * 32, NodeId(b"issuer.........!"))


@given(data=st.data())
def test_both_sides_keep_the_same_of_any_connections_made_at_once(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 5))
    dialled_by_a = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    sessions = data.draw(st.lists(st.integers(0, 255), min_size=count, max_size=count, unique=True))
    kept = []
    for me, other in ((b"a", b"b"), (b"b", b"a")):
        neighbours: Neighbours[int] = Neighbours(NodeId(me * 16))
        for index in data.draw(st.permutations(range(count))):
            dialled = dialled_by_a[index] == (me == b"a")
            at = data.draw(st.floats(100, 104))
            neighbours.admit(Neighbour(peer(other, b"1", bytes((sessions[index],))), index, dialled, at))
        (left,) = neighbours.all()
        kept.append(left.connection)
    assert kept[0] == kept[1]


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=200), seed=st.integers(0, 1000), flips=st.integers(1, 4))
def test_any_envelope_is_taken_or_counted_and_the_plane_goes_on(data: bytes, seed: int, flips: int) -> None:
    rng = random.Random(seed)
    world = World("alice", "bob", seed=seed)
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"x", now=world.now)
    world.run(0.1)
    genuine = bytearray(rng.choice(world["alice"].sent).encode())
    for _ in range(flips):
        genuine[rng.randrange(len(genuine))] ^= 1 << rng.randrange(8)
    for envelope in (data, bytes(genuine)):
        with contextlib.suppress(RemoteProtocolError):
            world.inject(world["bob"], Envelope.decode_untrusted(envelope), via=world["alice"].node)
    world["alice"].plane.request(world["bob"].node, Kind.OPEN, b"y", now=world.now)
    world.run(0.5)
    assert [message.body for message in world["bob"].messages()] == [b"x", b"y"]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    loss=st.floats(0, 0.5),
    repeat=st.floats(0, 0.5),
    delay_s=st.floats(0, 0.3),
    restart_at=st.none() | st.floats(0, 3),
)
def test_requests_act_at_most_once_and_always_end(
    seed: int, loss: float, repeat: float, delay_s: float, restart_at: float | None
) -> None:
    world = World("alice", "bob", seed=seed, weather=Weather(0.0, delay_s, control_loss=loss, control_repeat=repeat))
    tokens = [
        world["alice"].plane.request(world["bob"].node, Kind.OPEN, bytes([index]), now=world.now) for index in range(3)
    ]
    acted: list[tuple[bytes, bytes]] = []
    bob = world["bob"]
    for step in range(140):
        if restart_at is not None and step == int(restart_at * 10):
            bob = world.start("bob", boot=2)
        world.run(0.1)
        while bob.seen:
            event = bob.seen.pop(0)
            if isinstance(event, Message):
                acted.append((bytes(bob.plane.boot), event.body))
                bob.plane.reply(event, Kind.ACCEPT, event.body, now=world.now)
    ended = [message.re for message in world["alice"].messages()]
    ended += [failure.token for failure in world["alice"].failures()]
    assert sorted(ended) == sorted(tokens)
    assert len(acted) == len(set(acted))
