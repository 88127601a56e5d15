"""cext/policy/replies.c: answers pass, and for as long as they may; against a model, and claim by claim."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from ipaddress import ip_address
from typing import NamedTuple

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from kit.driven import Driven, build
from kit.policy_packets import extension, ipv4, ipv6

SECOND_NS = 10**9
FIN, SYN, RST, ACK = 1, 2, 4, 16
TCP, UDP, ICMP, ICMPV6, GRE = 6, 17, 1, 58, 47
OURS, THEIRS = ("10.0.0.1", "fd00::1"), ("10.0.0.2", "fd00::2")


class Found(IntEnum):
    NONE = 0
    HELD = 1
    STALE = 2


class Packet(NamedTuple):
    """A packet of ours to another board (is_in False), or one from there.  ports: ours, theirs; ICMP: identifier, -."""

    protocol: int
    ports: tuple[int, int] = (1000, 22)
    flags: int = ACK
    is_in: bool = False
    is_ipv6: bool = False

    def packed(self) -> bytes:
        ours, theirs = self.ports[::-1] if self.is_in else self.ports
        ports = ours.to_bytes(2) + theirs.to_bytes(2)
        if self.protocol == TCP:
            payload = ports + bytes(9) + bytes((self.flags,)) + bytes(6)
        elif self.protocol in (ICMP, ICMPV6):
            kinds = (8, 0) if self.protocol == ICMP else (128, 129)
            payload = bytes((kinds[self.is_in], 0, 0, 0)) + self.ports[0].to_bytes(2) + bytes(2)
        else:
            payload = ports + bytes(4)
        ends = (THEIRS, OURS) if self.is_in else (OURS, THEIRS)
        packed = tuple(ip_address(each[self.is_ipv6]).packed for each in ends)
        return (ipv6 if self.is_ipv6 else ipv4)(payload, self.protocol, ends=packed)

    def answered(self, **changed: int) -> Packet:
        return self._replace(is_in=not self.is_in)._replace(**changed)


class Table:
    """The table in C, and a clock in seconds."""

    def __init__(self, driver: Driven, room: int = 8) -> None:
        self._driver = driver
        self.now_ns = SECOND_NS
        assert driver.ask(f"n {room} 7") == "1"

    def _ask(self, command: str, packet: Packet | bytes, policy: int, peer: int, is_in: bool | None) -> str:
        way = packet.is_in if isinstance(packet, Packet) else bool(is_in)
        data = packet.packed() if isinstance(packet, Packet) else packet
        return self._driver.ask(f"{command} {peer} {data.hex()} {int(way)} {policy} {self.now_ns}")

    def look(self, packet: Packet | bytes, policy: int = 1, peer: int = 1, is_in: bool | None = None) -> Found:
        return Found(int(self._ask("l", packet, policy, peer, is_in)))

    def begin(self, packet: Packet | bytes, policy: int = 1, peer: int = 1, is_in: bool | None = None) -> None:
        self._ask("b", packet, policy, peer, is_in)

    def end(self, packet: Packet, peer: int = 1) -> None:
        self._ask("e", packet, 0, peer, None)

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)

    @property
    def counts(self) -> tuple[int, int]:
        alive, displaced = self._driver.ask(f"c {self.now_ns}").split()
        return int(alive), int(displaced)


@pytest.fixture(scope="module")
def driver() -> Iterator[Driven]:
    with Driven(build("policy/replies_driver.c", "policy/replies.c", "policy/flow.c")) as driven:
        yield driven


@pytest.fixture
def table(driver: Driven) -> Table:
    return Table(driver)


@pytest.mark.parametrize("room", [0, 1, 7, 12, 2**23])
def test_a_room_that_is_no_power_of_two_or_too_large_is_refused(driver, room):
    assert driver.ask(f"n {room} 7") == "0"


PACKETS = [Packet(protocol, is_ipv6=six) for protocol in (TCP, UDP, GRE, 132) for six in (False, True)]
PACKETS += [Packet(ICMP), Packet(ICMPV6, is_ipv6=True)]


@pytest.mark.parametrize("packet", [each for each in PACKETS if each.protocol != 132])
def test_the_answer_to_what_was_begun_here_passes_and_nothing_else(table, packet):
    assert table.look(packet.answered()) is Found.NONE
    assert table.look(packet) is Found.NONE
    table.begin(packet)
    assert table.look(packet.answered()) is Found.HELD
    assert table.look(packet) is Found.HELD
    assert table.look(packet.answered(), peer=2) is Found.NONE
    if packet.protocol != GRE:
        assert table.look(packet.answered(ports=(packet.ports[0] + 1, packet.ports[1]))) is Found.NONE
    if packet.protocol in (TCP, UDP):
        assert table.look(packet.answered(ports=(packet.ports[0], packet.ports[1] + 1))) is Found.NONE
        assert table.look(packet.answered(protocol=TCP + UDP - packet.protocol)) is Found.NONE


def test_a_request_of_theirs_is_no_answer_to_an_echo_of_ours(table):
    table.begin(Packet(ICMP))
    request = ipv4(b"\x08\0\0\0\x03\xe8\0\0", ICMP, ends=tuple(ip_address(each[0]).packed for each in (THEIRS, OURS)))
    assert table.look(request, is_in=True) is Found.NONE
    answer = ipv4(b"\0\0\0\0\x03\xe8\0\0", ICMP, ends=tuple(ip_address(each[0]).packed for each in (OURS, THEIRS)))
    table.begin(answer, is_in=False)
    assert table.counts == (1, 0)


@pytest.mark.parametrize("kind", [3, 11, 13])
def test_other_messages_of_icmp_are_no_flow(table, kind):
    packet = ipv4(bytes((kind,)) + bytes(7), ICMP)
    table.begin(packet, is_in=False)
    assert table.look(packet, is_in=False) is Found.NONE
    assert table.counts == (0, 0)


def test_a_later_piece_is_no_flow(table):
    for piece in (ipv4(bytes(8), UDP, bits=1), ipv6(extension(44, UDP, bits=8) + bytes(8), 44)):
        table.begin(piece, is_in=False)
        assert table.look(piece, is_in=False) is Found.NONE
    assert table.counts == (0, 0)


@pytest.mark.parametrize(
    ("packets", "seconds"),
    [
        ([Packet(UDP)], 30),
        ([Packet(UDP), Packet(UDP, is_in=True)], 180),
        ([Packet(GRE)], 30),
        ([Packet(ICMP), Packet(ICMP, is_in=True)], 30),
        ([Packet(TCP, flags=SYN)], 300),
        ([Packet(TCP, flags=SYN), Packet(TCP, flags=SYN | ACK, is_in=True)], 7200),
        ([Packet(TCP), Packet(TCP, is_in=True), Packet(TCP, flags=FIN | ACK)], 120),
        ([Packet(TCP), Packet(TCP, is_in=True), Packet(TCP, flags=RST, is_in=True)], 120),
        ([Packet(TCP), Packet(TCP, flags=FIN, is_in=True), Packet(TCP, flags=SYN)], 300),
    ],
)
def test_an_entry_lives_for_as_long_as_what_was_seen_of_it_says(table, packets, seconds):
    table.begin(packets[0])
    for packet in packets[1:]:
        table.wait(1)
        assert table.look(packet) is Found.HELD
    answer = packets[0].answered(flags=ACK)
    table.wait(seconds - 1e-9)
    assert table.counts == (1, 0)
    table.wait(1e-9)
    assert table.counts == (0, 0)
    assert table.look(answer) is Found.NONE


def test_a_packet_of_either_side_keeps_an_entry_alive(table):
    table.begin(Packet(UDP))
    assert table.look(Packet(UDP, is_in=True)) is Found.HELD
    for is_in in (False, True, False):
        table.wait(179)
        assert table.look(Packet(UDP, is_in=is_in)) is Found.HELD


def test_under_another_policy_an_entry_is_judged_again(table):
    """netbird#5685, ziti#4330: what a withdrawn rule had allowed went on."""
    packet = Packet(TCP)
    table.begin(packet, policy=1)
    assert table.look(packet.answered(), policy=2) is Found.STALE
    assert table.look(packet, policy=2) is Found.STALE
    table.begin(packet.answered(), policy=2)
    assert table.look(packet, policy=2) is Found.HELD
    table.end(packet.answered())
    assert table.look(packet, policy=2) is Found.NONE
    assert table.counts == (0, 0)


def test_to_judge_an_entry_again_forgets_nothing_that_was_seen_of_it(table):
    table.begin(Packet(UDP))
    assert table.look(Packet(UDP, is_in=True)) is Found.HELD
    table.begin(Packet(UDP), policy=2)
    table.wait(179)
    assert table.look(Packet(UDP, is_in=True), policy=2) is Found.HELD


def test_a_flood_of_flows_takes_no_memory_and_the_silent_ones_give_way(driver):
    """nebula#290: 13 million entries."""
    table = Table(driver, room=1024)
    for port in range(1, 5001):
        table.wait(1e-3)
        table.begin(Packet(UDP, ports=(port, 53)))
    alive, displaced = table.counts
    assert alive <= 1024
    assert alive + displaced == 5000
    assert table.look(Packet(UDP, ports=(5000, 53), is_in=True)) is Found.HELD
    assert table.look(Packet(UDP, ports=(1, 53), is_in=True)) is Found.NONE


def test_a_table_that_is_half_full_displaces_nothing(driver):
    table = Table(driver, room=1024)
    for port in range(1, 641):
        table.begin(Packet(UDP, ports=(port, 53)))
    assert table.counts == (640, 0)


# ── the model ────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Entry:
    def __init__(self) -> None:
        self.policy, self.seen, self.last_ns = 0, set[str](), 0

    def note(self, packet: Packet, now_ns: int) -> None:
        flags = packet.flags if packet.protocol == TCP else 0
        if not packet.is_in and flags & (SYN | ACK) == SYN:
            self.seen.clear()
        self.seen.add("in" if packet.is_in else "out")
        if flags & (FIN | RST):
            self.seen.add("closing")
        self.last_ns = now_ns

    def ends_ns(self, protocol: int) -> int:
        answered = {"in", "out"} <= self.seen
        if protocol == TCP:
            seconds = 120 if "closing" in self.seen else 7200 if answered else 300
        else:
            seconds = 30 if protocol in (ICMP, ICMPV6) or not answered else 180
        return self.last_ns + seconds * SECOND_NS


class Model:
    """What one set of eight does."""

    def __init__(self) -> None:
        self.entries: dict[tuple, _Entry] = {}

    def _find(self, packet: Packet, peer: int, now_ns: int) -> _Entry | None:
        entry = self.entries.get(_key(packet, peer))
        return entry if entry is not None and now_ns < entry.ends_ns(packet.protocol) else None

    def look(self, packet: Packet, policy: int, peer: int, now_ns: int) -> Found:
        entry = self._find(packet, peer, now_ns)
        if entry is None:
            return Found.NONE
        if entry.policy != policy:
            return Found.STALE
        entry.note(packet, now_ns)
        return Found.HELD

    def begin(self, packet: Packet, policy: int, peer: int, now_ns: int) -> None:
        entry = self._find(packet, peer, now_ns)
        if entry is None:
            self.entries = {key: each for key, each in self.entries.items() if now_ns < each.ends_ns(key[1])}
            if len(self.entries) == 8:
                del self.entries[min(self.entries, key=lambda key: self.entries[key].last_ns)]
            entry = self.entries[_key(packet, peer)] = _Entry()
        entry.policy = policy
        entry.note(packet, now_ns)


def _key(packet: Packet, peer: int) -> tuple:
    ports = packet.ports if packet.protocol in (TCP, UDP) else packet.ports[:1] if packet.protocol != GRE else ()
    return peer, packet.protocol, packet.is_ipv6, ports


FLOWS = st.builds(
    Packet,
    st.sampled_from((TCP, UDP, GRE, ICMP)),
    st.tuples(st.integers(1, 3), st.integers(1, 2)),
    st.sampled_from((SYN, ACK, SYN | ACK, FIN | ACK, RST)),
    st.booleans(),
    st.booleans(),
).map(lambda packet: packet._replace(protocol=ICMPV6) if packet.is_ipv6 and packet.protocol == ICMP else packet)
STEPS = st.tuples(
    st.sampled_from(("look", "look", "begin", "begin", "end")),
    FLOWS,
    st.integers(1, 2),
    st.integers(1, 2),
    st.sampled_from((1, SECOND_NS, 29 * SECOND_NS, 31 * SECOND_NS, 150 * SECOND_NS, 301 * SECOND_NS)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_a_set_of_eight_does_what_its_model_does(driver, steps):
    table, model = Table(driver), Model()
    for what, packet, policy, peer, waited_ns in steps:
        table.now_ns += waited_ns
        if what == "look":
            found = table.look(packet, policy, peer)
            event(found.name)
            assert found == model.look(packet, policy, peer, table.now_ns)
        elif what == "begin":
            table.begin(packet, policy, peer)
            model.begin(packet, policy, peer, table.now_ns)
        else:
            table.end(packet, peer)
            model.entries.pop(_key(packet, peer), None)
        alive = [key for key, each in model.entries.items() if table.now_ns < each.ends_ns(key[1])]
        assert table.counts[0] == len(alive)
