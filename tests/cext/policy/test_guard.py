"""cext/policy/guard.c and conflux/policy/guard.py: what passes, claim by claim and one against the other.

Here is a board "here" with the member "there", each with an IPv4 and an IPv6 address.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.driven import Driven, build
from kit.policies import NODES, NOWS, POLICIES
from kit.policy import NOW, policy, rule
from kit.policy_packets import PACKETS, extension, ipv4, ipv6

from conflux.policy.guard import Guard, PolicyTables, Verdict
from conflux.policy.rules import Node, Policy
from conflux.policy.sides import Member, Sides

HERE, THERE, THIRD = (
    tuple(ip_address(text.format(number)) for text in ("fd99::{}", "100.90.0.{}")) for number in (1, 2, 3)
)
ME = Member(Node("here"), HERE)
PEERS = (Member(Node("there", frozenset(("t0",))), THERE), Member(Node("third"), THIRD))
TCP, UDP, ICMP, ICMPV6, GRE = 6, 17, 1, 58, 47
FIN, SYN, RST, ACK = 1, 2, 4, 16
PASS, REFUSED, UNFIT, PIECE = Verdict
SECOND_NS = 10**9

DENY = 'default = "deny"\n'
IN_22 = DENY + rule("there", "here", "tcp/22 icmp/echo")
OUT_22 = DENY + rule("here", "there", "tcp/22 udp/53 icmp/echo")


class Judging(Protocol):
    """A guard, with a clock in seconds."""

    def load(self, tables: PolicyTables) -> None: ...

    def ask(self, packet: bytes, *, came: bool, now: float) -> Verdict: ...


class Compiled:
    """The guard in C."""

    def __init__(self, driver: Driven) -> None:
        self._driver = driver
        assert driver.ask("n 1024 7") == "1"

    def load(self, tables: PolicyTables) -> None:
        incoming, outgoing = tables.incoming.encode().hex(), tables.outgoing.encode().hex()
        assert self._driver.ask(f"t {incoming} {outgoing}") == "1"

    def ask(self, packet: bytes, *, came: bool, now: float) -> Verdict:
        return Verdict(int(self._driver.ask(f"{'i' if came else 'o'} {packet.hex()} {round(now * SECOND_NS)}")))


class Readable:
    """The guard in Python."""

    def __init__(self) -> None:
        self._guard = Guard()

    def load(self, tables: PolicyTables) -> None:
        self._guard.load(tables)

    def ask(self, packet: bytes, *, came: bool, now: float) -> Verdict:
        return self._guard.incoming(packet, now) if came else self._guard.outgoing(packet, now)


class Board:
    """A board under a policy, and what passes there.  is_ipv6: which of its addresses the packets have."""

    def __init__(self, guard: Judging, is_ipv6: bool) -> None:
        self.guard = guard
        self.is_ipv6 = is_ipv6
        self.now = 100.0

    def hold(self, text: str, peers: tuple[Member, ...] = PEERS) -> None:
        self.guard.load(Sides(policy(text), ME, at_unix=NOW).tables(peers))

    def _packed(self, payload: bytes, protocol: int, source, target, bits: int = 0) -> bytes:
        ends = tuple(each[0 if self.is_ipv6 else 1].packed for each in (source, target))
        if not self.is_ipv6:
            return ipv4(payload, protocol, bits=bits, ends=ends)
        if bits:
            more, offset = bits >> 13 & 1, bits & 0x1FFF
            payload, protocol = extension(44, protocol, bits=offset << 3 | more) + payload, 44
        return ipv6(payload, protocol, ends=ends)

    def packet(
        self, protocol: int, ports: tuple[int, int], *, source=THERE, target=HERE, flags: int = ACK, bits: int = 0
    ) -> bytes:
        head = b"".join(port.to_bytes(2) for port in ports)
        payload = head + bytes(9) + bytes((flags,)) + bytes(6) if protocol == TCP else head + bytes(4)
        return self._packed(payload, protocol, source, target, bits)

    def echo(self, *, request: bool, source=THERE, target=HERE, number: int = 5) -> bytes:
        kinds = (129, 128) if self.is_ipv6 else (0, 8)
        payload = bytes((kinds[request], 0, 0, 0)) + number.to_bytes(2) + bytes(2)
        return self._packed(payload, ICMPV6 if self.is_ipv6 else ICMP, source, target)

    def error(self, quoted: bytes, *, source=THERE, target=HERE, cut: int = 1000) -> bytes:
        payload = bytes((1 if self.is_ipv6 else 3, 3, 0, 0, 0, 0, 0, 0)) + quoted[:cut]
        return self._packed(payload, ICMPV6 if self.is_ipv6 else ICMP, source, target)

    def came(self, packet: bytes) -> Verdict:
        return self.guard.ask(packet, came=True, now=self.now)

    def sent(self, packet: bytes) -> Verdict:
        return self.guard.ask(packet, came=False, now=self.now)

    def tcp_in(self, ports: tuple[int, int] = (50000, 22), **given) -> Verdict:
        return self.came(self.packet(TCP, ports, **given))

    def tcp_out(self, ports: tuple[int, int] = (50000, 22), *, target=THERE, **given) -> Verdict:
        return self.sent(self.packet(TCP, ports, source=HERE, target=target, **given))


@pytest.fixture(scope="module")
def driver() -> Iterator[Driven]:
    sources = ("guard", "policy", "flow", "replies")
    with Driven(build("policy/guard_driver.c", *(f"policy/{name}.c" for name in sources))) as driven:
        yield driven


@pytest.fixture(params=[(kind, is_ipv6) for kind in ("c", "python") for is_ipv6 in (False, True)], ids=str)
def board(request, driver: Driven) -> Board:
    kind, is_ipv6 = request.param
    return Board(Compiled(driver) if kind == "c" else Readable(), is_ipv6)


# ── rules ──


def test_what_a_rule_lets_in_passes_and_nothing_else(board):
    board.hold(IN_22)
    assert board.tcp_in() is PASS
    assert board.came(board.echo(request=True)) is PASS
    assert board.tcp_in((50000, 23)) is REFUSED
    assert board.came(board.packet(UDP, (50000, 22))) is REFUSED
    assert board.came(board.packet(GRE, (0, 0))) is REFUSED
    assert board.tcp_in(source=THIRD) is REFUSED


def test_answers_to_what_a_rule_lets_in_go_out_and_nothing_else_does(board):
    board.hold(IN_22)
    assert board.tcp_out((22, 50000)) is PASS
    assert board.sent(board.echo(request=False, source=HERE, target=THERE)) is PASS
    assert board.tcp_out((23, 50000)) is REFUSED
    assert board.tcp_out((22, 50000), target=THIRD) is REFUSED
    assert board.sent(board.echo(request=True, source=HERE, target=THERE)) is REFUSED


def test_answer_that_goes_out_opens_nothing(board):
    board.hold(IN_22)
    board.tcp_out((22, 50000))
    board.hold(DENY)
    assert board.tcp_in() is REFUSED
    assert board.tcp_out((22, 50000)) is REFUSED
    assert board.tcp_in() is REFUSED


def test_flow_that_began_here_is_answered_by_its_far_end_alone(board):
    board.hold(OUT_22)
    assert board.tcp_in((22, 50000)) is REFUSED
    assert board.tcp_out() is PASS
    assert board.tcp_in((22, 50000)) is PASS
    assert board.tcp_in((22, 50001)) is REFUSED
    assert board.tcp_in((23, 50000)) is REFUSED
    assert board.tcp_in((22, 50000), source=THIRD) is REFUSED
    assert board.sent(board.echo(request=True, source=HERE, target=THERE)) is PASS
    assert board.came(board.echo(request=False)) is PASS
    assert board.came(board.echo(request=False, number=6)) is REFUSED


def test_node_that_is_not_in_the_tables_may_do_nothing(board):
    board.hold("", peers=())
    assert board.tcp_in() is REFUSED
    board.hold("")
    assert board.tcp_in() is PASS


def test_address_that_two_members_claim_may_do_nothing(board):
    board.hold("", peers=(PEERS[0], PEERS[1]._replace(addresses=THERE)))
    assert board.tcp_in() is REFUSED
    assert board.tcp_out() is REFUSED


def test_datagram_is_answered_for_a_while(board):
    board.hold(OUT_22)
    board.sent(board.packet(UDP, (40000, 53), source=HERE, target=THERE))
    board.now += 29
    assert board.came(board.packet(UDP, (53, 40000))) is PASS
    board.now += 179
    assert board.came(board.packet(UDP, (53, 40000))) is PASS
    board.now += 181
    assert board.came(board.packet(UDP, (53, 40000))) is REFUSED


# ── another policy ──


def test_flow_that_is_no_longer_allowed_is_cut_at_once(board):
    board.hold(OUT_22)
    board.tcp_out()
    board.tcp_in((22, 50000))
    board.hold(DENY)
    assert board.tcp_in((22, 50000)) is REFUSED
    assert board.tcp_out() is REFUSED
    board.hold(OUT_22)
    assert board.tcp_in((22, 50000)) is REFUSED  # it begins anew
    assert board.tcp_out() is PASS


def test_flow_that_is_still_allowed_goes_on_though_its_far_end_speaks_first(board):
    board.hold(OUT_22)
    board.tcp_out()
    board.hold(OUT_22)
    assert board.tcp_in((22, 50000)) is PASS


# ── errors ──


def test_error_about_a_flow_of_ours_passes_from_its_far_end_alone(board):
    board.hold(OUT_22)
    sent = board.packet(TCP, (50000, 22), source=HERE, target=THERE)
    assert board.came(board.error(sent)) is REFUSED
    board.sent(sent)
    assert board.came(board.error(sent)) is PASS
    assert board.came(board.error(sent, source=THIRD)) is REFUSED
    assert board.came(board.error(board.packet(TCP, (50001, 22), source=HERE, target=THERE))) is REFUSED


def test_error_about_an_answer_that_a_rule_lets_begin_passes(board):
    board.hold(IN_22)
    assert board.came(board.error(board.packet(TCP, (22, 50000), source=HERE, target=THERE))) is PASS
    assert board.came(board.error(board.packet(TCP, (23, 50000), source=HERE, target=THERE))) is REFUSED


def test_error_that_quotes_too_little_or_a_later_piece_is_refused(board):
    board.hold(OUT_22)
    sent = board.packet(TCP, (50000, 22), source=HERE, target=THERE)
    board.sent(sent)
    head = 40 if board.is_ipv6 else 20
    for cut in (0, 1, head - 1, head, head + 7):
        assert board.came(board.error(sent, cut=cut)) is REFUSED
    assert board.came(board.error(sent, cut=head + 8)) is PASS
    if not board.is_ipv6:
        later = board.packet(TCP, (50000, 22), source=HERE, target=THERE, bits=5)
        assert board.came(board.error(later)) is REFUSED


def test_errors_of_our_own_go_out(board):
    board.hold(DENY)
    assert board.sent(board.error(bytes(48), source=HERE, target=THERE)) is PASS


# ── pieces ──

MORE = 1 << 13


def test_later_piece_has_the_verdict_of_the_first(board):
    board.hold(DENY + rule("there", "here", "udp/53"))
    later = board.packet(UDP, (0, 0), bits=100)
    assert board.came(later) is PIECE
    assert board.came(board.packet(UDP, (4000, 54), bits=MORE)) is REFUSED
    assert board.came(later) is PIECE
    assert board.came(board.packet(UDP, (4000, 53), bits=MORE)) is PASS
    assert board.came(later) is PASS
    assert board.came(board.packet(TCP, (0, 0), bits=100)) is PIECE
    assert board.came(board.packet(UDP, (0, 0), source=THIRD, bits=100)) is PIECE
    board.now += 31
    assert board.came(later) is PIECE


def test_first_piece_that_comes_again_and_is_refused_ends_the_datagram(board):
    board.hold(DENY + rule("there", "here", "udp/53"))
    board.came(board.packet(UDP, (4000, 53), bits=MORE))
    board.came(board.packet(UDP, (4000, 54), bits=MORE))
    assert board.came(board.packet(UDP, (0, 0), bits=100)) is PIECE


def test_pieces_under_way_are_cut_with_their_flow(board):
    board.hold(DENY + rule("there", "here", "udp/53"))
    board.came(board.packet(UDP, (4000, 53), bits=MORE))
    board.hold(DENY)
    assert board.came(board.packet(UDP, (0, 0), bits=100)) is PIECE


def test_what_hosts_read_in_different_ways_is_unfit_and_goes_out(board):
    board.hold("")
    short = board.packet(UDP, (0, 0))[:-5]
    assert board.came(short) is UNFIT
    assert board.sent(short) is PASS


# ── one against the other ──


def test_tables_that_are_none_change_nothing(driver):
    guard = Board(Compiled(driver), is_ipv6=False)
    guard.hold(IN_22)
    tables = Sides(policy(""), ME, at_unix=NOW).tables(PEERS)
    good = tables.incoming.encode().hex()
    for other in ("00", good[:-2], "00" + good[2:]):
        assert driver.ask(f"t {good} {other}") == "0"
        assert driver.ask(f"t {other} {good}") == "0"
    assert guard.tcp_in() is PASS
    assert guard.tcp_in((50000, 23)) is REFUSED


def test_room_for_flows_is_a_power_of_two(driver):
    assert driver.ask("n 1000 7") == "0"


ACTS = st.tuples(
    st.sampled_from(("in", "out", "wait")),
    st.sampled_from((TCP, UDP, ICMP, GRE)),
    st.sampled_from((20, 22, 30, 50000)),
    st.sampled_from((20, 22, 30, 50000)),
    st.sampled_from((0, SYN, ACK, FIN | ACK, RST)),
    st.sampled_from((THERE, THIRD)),
    st.sampled_from((0, MORE, 100)),
)


@settings(max_examples=150, deadline=None)
@given(POLICIES, POLICIES, st.lists(NODES, min_size=2, max_size=2), st.lists(ACTS, max_size=30), st.sampled_from(NOWS))
def test_the_compiled_guard_says_of_any_packets_what_the_readable_one_says(driver, first, second, nodes, acts, at):
    both = [Board(guard, is_ipv6=False) for guard in (Compiled(driver), Readable())]
    peers = tuple(Member(node, each) for node, each in zip(nodes, (THERE, THIRD), strict=True))

    def hold(rules: Policy) -> None:
        for board in both:
            board.guard.load(Sides(rules, ME, at_unix=at).tables(peers))

    hold(first)
    for step, (what, protocol, source, target, flags, peer, bits) in enumerate(acts):
        if step == 15:
            hold(second)
        if what == "wait":
            for board in both:
                board.now += source
            continue
        ends = (peer, HERE) if what == "in" else (HERE, peer)
        found = []
        for board in both:
            if protocol == ICMP:
                packet = board.echo(request=source > target, source=ends[0], target=ends[1])
            else:
                packet = board.packet(
                    protocol, (source, target), source=ends[0], target=ends[1], flags=flags, bits=bits
                )
            found.append(board.came(packet) if what == "in" else board.sent(packet))
        assert found[0] is found[1]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(PACKETS.filter(len), st.booleans()), min_size=1, max_size=5))
def test_no_packet_does_harm_and_both_say_the_same(driver, packets):
    both = [Board(guard, is_ipv6=False) for guard in (Compiled(driver), Readable())]
    for board in both:
        board.hold(IN_22)
    for packet, came in packets:
        assert len({board.came(packet) if came else board.sent(packet) for board in both}) == 1
