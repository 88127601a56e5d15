"""The native datapath and the reference, given the same tables and packets, deliver and drop the same.

Two threads and a socket add no chance: each step waits until everything it sent was delivered or dropped.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from kit.native import A4, B4, C4, CHANNEL_COUNT, REALM, SOURCES, STREAM, TETHER, A, B, World, keys, udp, world

from conflux.anchor import frame as f
from conflux.anchor.codec import Sender, relabel
from conflux.anchor.key import EpochKey
from conflux.carrier.interface import Hop, OutFrame
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import Entry, Miss, ReceiverVerified, Tables
from conflux.datapath.reference.datapath import ReferenceDatapath
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import LinkId, StreamId

CONFIG = DatapathConfig(queue_packets_max=12, queue_bytes_max=6000, bundle_bytes_max=60_000)
OTHER = StreamId(b"o" * 16)
ROUTES = 2


def hop(route: int, link: LinkId) -> tuple[Hop, Hop]:
    """The two ends of a route; both use the same id for the link."""
    out, back = 100 + route, 200 + route
    return Hop(link, TETHER, CHANNEL_COUNT, out, back), Hop(link, TETHER, CHANNEL_COUNT, back, out)


@dataclass
class Outcome:
    """The outcome of a sequence of steps."""

    delivered: list[bytes] = field(default_factory=list)
    drops_near: Counter[str] = field(default_factory=Counter)
    drops_far: Counter[str] = field(default_factory=Counter)
    upcalls_near: Counter[object] = field(default_factory=Counter)
    upcalls_far: Counter[object] = field(default_factory=Counter)
    refusals: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """One thing that is done to both datapaths."""

    what: str
    number: int = 0
    size: int = 0


def apply(near: Tables, far: Tables, step: Step, links: tuple[tuple[LinkId, LinkId], ...], epoch: list[int]) -> None:
    """Change the tables as one step says."""
    now = time.monotonic()
    route = step.number % ROUTES
    near_hop, far_hop = hop(route, links[route][0])[0], hop(route, links[route][1])[1]
    match step.what:
        case "egress":
            near.add_egress(B, (B4,), now=now)
        case "no egress":
            near.remove_egress(B, "removed")
        case "refuse":
            near.refuse((B4, C4)[route], "refused")
        case "sender":
            near.add_sender(B, STREAM, *keys(epoch[0]), now=now)
        case "no sender":
            near.remove_sender(STREAM)
        case "route":
            near.set_route(STREAM, near_hop, now=now)
        case "no route":
            near.set_route(STREAM, None, now=now)
        case "receiver":
            far.add_receiver(STREAM, A, SOURCES, *keys(epoch[0]), now=now)
        case "no receiver":
            far.remove_receiver(STREAM)
        case "receiver route":
            far.add_receiver_route(STREAM, far_hop, now=now)
        case "no receiver route":
            far.remove_receiver_route(far_hop.link, far_hop.label_in)
        case "rekey":
            epoch[0] += 1
            far.rekey_receiver(STREAM, *keys(epoch[0] % 256), now=now)
            near.rekey_sender(STREAM, *keys(epoch[0] % 256), now=now)
        case "entry":
            near.queue_entry(STREAM, f.REKEY, step.number.to_bytes(2, "big"))
        case "end":
            if not far.verify_last(STREAM, near.last_frame(STREAM)):
                raise RemoteProtocolError("not-ended")
        case "confirm":
            near.unseal_confirmation(STREAM, far.seal_feedback(STREAM, b"body"))
        case "relay":
            far.add_relay(far_hop, Hop(LinkId(900), TETHER, 1, 1, 900 + route), now=now)
        case "no relay":
            far.remove_relay(far_hop.link, far_hop.label_in)


def packet_of(step: Step) -> bytes:
    """Return the packet that a step sends: most should arrive."""
    size = step.size % 900
    match step.what:
        case "packet":
            return udp(step.number, port=5000 + step.number % 5, size=size)
        case "stray":
            return udp(step.number, destination=C4, size=size)
        case "bad source":
            return udp(step.number, source=C4)
        case "multicast":
            return udp(step.number, destination="224.0.0.5")
        case _:
            return udp(step.number)[: step.size % 40]


def forged(step: Step) -> bytes:
    """Return a frame that no sender sealed, or that is sealed under an epoch that never comes."""
    key: EpochKey = keys(99)[0]
    frame = Sender(key.aead, bytes(32) if step.size % 2 else key.key, key.nonce_prefix, step.number % 3).seal(
        100 + step.number % (ROUTES + 1), 0, [(f.PACKET, udp(step.number))]
    )
    return (
        frame[: 1 + step.size % 60] if step.size % 5 == 0 else relabel(frame, 100 + step.number % 3, step.size % 3 == 0)
    )


PACKETS = ("packet", "stray", "bad source", "multicast", "cut")
TABLES = (
    *("egress", "sender", "route", "receiver", "receiver route"),
    *("no egress", "no sender", "no route", "no receiver", "no receiver route"),
    *("refuse", "rekey", "entry", "end", "confirm", "relay", "no relay"),
)
START = [Step(what) for what in ("egress", "sender", "receiver", "receiver route", "route")]
STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(("packet",) * 12 + PACKETS + ("forge",) * 2 + TABLES),
        st.integers(0, 9),
        st.integers(0, 999),
    ),
    min_size=5,
    max_size=40,
)


def upcalls(datapath: Tables) -> Counter[object]:
    """Return the upcalls that must be the same: all but reports, whose time is left to chance."""
    upcalls = iter(datapath.next_upcall, None)
    return Counter(upcall for upcall in upcalls if isinstance(upcall, (Miss, Entry, ReceiverVerified)))


def by_reference(steps: list[Step]) -> Outcome:
    """Return what reference datapaths make of the steps."""
    near, far = ReferenceDatapath(CONFIG), ReferenceDatapath(CONFIG)
    near.configure((A4,), REALM)
    far.configure((B4,), REALM)
    outcome, epoch = Outcome(), [0]
    links = tuple((LinkId(route + 1), LinkId(route + 1)) for route in range(ROUTES))

    def carry(out: OutFrame) -> None:
        far.frame_untrusted(out.link, out.data, now=time.monotonic(), channel=out.channel)

    for step in steps:
        if step.what in PACKETS:
            near.packet(packet_of(step), now=time.monotonic())
        elif step.what == "forge":
            far.frame_untrusted(LinkId(1), forged(step), now=time.monotonic())
        else:
            try:
                apply(near, far, step, links, epoch)
            except (LocalProtocolError, RemoteProtocolError) as error:
                outcome.refusals.append(type(error).__name__)
        while near.sendable():
            out = near.next_frame(B, now=time.monotonic())
            assert out is not None
            carry(out)
        outcome.delivered += iter(far.next_delivery, None)
        outcome.upcalls_near += upcalls(near)
        outcome.upcalls_far += upcalls(far)
    outcome.drops_near.update(near.drop_counts())
    outcome.drops_far.update(far.drop_counts())
    return outcome


def by_engine(made: World, steps: list[Step]) -> Outcome:
    """Return what native datapaths make of the steps."""
    near, far = made.node(A4, config=CONFIG), made.node(B4, config=CONFIG)
    far.is_silent = True
    links = tuple(made.join(near, far) for _ in range(ROUTES))
    outcome, epoch = Outcome(), [0]

    def quiet() -> bool:
        """Say whether the engines took everything that was sent, and nothing is under way.

        Asked in the order in which a packet moves on: what leaves a place meanwhile is seen in the next one.
        """
        if near.datapath.device_counts()[0] < packet_count or not sealed():
            return False
        for mine, theirs in links:
            here, there = near.engine.link(mine), far.engine.link(theirs)
            assert here is not None
            assert there is not None
            if here["unsent_bytes"] or here["inflight_bytes"] or here["messages_sent"] > there["messages_received"]:
                return False
        return True

    def sealed() -> bool:
        """Say whether everything is in a frame that can be."""
        sender = near.datapath._senders.get(STREAM)
        if sender is None or sender.hop is None:
            return True
        if entry_waits and near.engine.sender(sender.handle).frames == frame_count:
            return False
        return not any(near.engine.egress(each.handle).packets for each in near.datapath._egresses.values())

    def frames() -> int:
        """Return how many frames the stream sealed, ever."""
        sender = near.datapath._senders.get(STREAM)
        return 0 if sender is None else near.engine.sender(sender.handle).frames

    packet_count = frame_count = 0
    entry_waits = False
    for step in steps:
        entry_waits = STREAM in near.datapath._senders and (step.what == "entry" or entry_waits)
        frame_count = frames()
        if step.what in PACKETS:
            near.send(packet_of(step))
            packet_count += 1
        elif step.what == "forge":
            assert near.wire.send(links[0][0], 0, 53, forged(step))
        else:
            try:
                apply(near.datapath, far.datapath, step, links, epoch)
            except (LocalProtocolError, RemoteProtocolError) as error:
                outcome.refusals.append(type(error).__name__)
        made.until(quiet)
        entry_waits = entry_waits and frames() == frame_count
        made.step(0)
        made.step(0)
    made.step(0)
    outcome.delivered = far.packets
    for node, upcalls_, drops in (
        (near, outcome.upcalls_near, outcome.drops_near),
        (far, outcome.upcalls_far, outcome.drops_far),
    ):
        upcalls_.update(upcall for upcall in node.upcalls if isinstance(upcall, (Miss, Entry, ReceiverVerified)))
        drops.update(node.drops)
    return outcome


@settings(max_examples=60)
@given(STEPS, st.booleans())
def test_both_deliver_report_refuse_and_drop_the_same(steps: list[Step], begun: bool) -> None:
    steps = START + steps if begun else steps
    with world() as made:
        native = by_engine(made, steps)
    reference = by_reference(steps)
    assert native.refusals == reference.refusals
    assert native.delivered == reference.delivered
    assert native.drops_near == reference.drops_near
    assert native.drops_far == reference.drops_far
    assert native.upcalls_near == reference.upcalls_near
    assert native.upcalls_far == reference.upcalls_far


def test_the_sequences_cover_what_they_are_for() -> None:
    steps = [*START, *(Step("packet", number) for number in range(10)), Step("rekey"), Step("packet", 1), Step("end")]
    outcome = by_reference(steps)
    assert len(outcome.delivered) == 11
    assert outcome.refusals == []
    assert ip_address(outcome.delivered[0][16:20]) in ip_network("100.64.0.0/16")
