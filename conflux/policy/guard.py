"""Judges each packet of a board; the twin of cext/policy/guard.c and replies.c, rule for rule, whose comments say why.

It remembers every flow by itself where the compiled one has sets of eight, so the two differ once a table is full.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from conflux.policy.flow import IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, MAPPED, Flow, Piece, Unfit, read_flow_untrusted
from conflux.policy.table import Table
from conflux.policy.terms import ICMP, ICMPV6, SCTP, TCP, UDP, key_of

FLOW_COUNT = 16384
PIECE_COUNT = 1024
PIECE_S = 30.0

TCP_OPEN_S, TCP_OPENING_S, TCP_CLOSING_S = 7200.0, 300.0, 120.0
ANSWERED_S, UNANSWERED_S, ECHO_S = 180.0, 30.0, 30.0

_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_ECHO_OF = {ICMP: (8, 0), ICMPV6: (128, 129)}
_QUOTED_BYTES = 8


class Verdict(IntEnum):
    """What becomes of a packet; the numbers are those of enum guard_verdict."""

    PASS = 0
    REFUSED = 1  # no rule allows it
    UNFIT = 2  # it cannot be judged
    PIECE = 3  # a later piece of a datagram whose first piece did not pass, or did not come yet


class PolicyTables(NamedTuple):
    """What a board holds to.  incoming: members' addresses to its own; outgoing: the other way round."""

    incoming: Table
    outgoing: Table


class _Tuple(NamedTuple):
    local: bytes
    remote: bytes
    protocol: int
    local_port: int
    remote_port: int


class _Entry:
    """A flow that began here."""

    __slots__ = ("closing", "number", "seen_at", "seen_in", "seen_out")

    def __init__(self) -> None:
        self.seen_in = self.seen_out = self.closing = False
        self.number, self.seen_at = 0, 0.0


class Guard:
    """One board's rules and its flows."""

    def __init__(self) -> None:
        self._tables: PolicyTables | None = None
        self._number = 0
        self._flows: dict[_Tuple, _Entry] = {}
        self._pieces: dict[tuple[bytes, bytes, int, int], float] = {}

    def load(self, tables: PolicyTables) -> None:
        """Hold to these tables from now on; flows that began are judged again."""
        self._tables = tables
        self._number += 1
        self._pieces.clear()

    def incoming(self, packet: bytes, now: float) -> Verdict:
        """Judge a packet that came from the node that its source address is of."""
        flow = read_flow_untrusted(packet)
        if isinstance(flow, Unfit):
            return Verdict.UNFIT
        piece = (flow.source, flow.destination, flow.key >> 16, flow.fragment)
        if flow.piece is Piece.LATER:
            return Verdict.PASS if now < self._pieces.get(piece, 0.0) else Verdict.PIECE
        passes = self._may_come(flow, packet, now)
        if flow.piece is Piece.FIRST:
            self._pieces.pop(piece, None)
            if passes:
                self._pieces[piece] = now + PIECE_S
                if len(self._pieces) > PIECE_COUNT:
                    del self._pieces[next(iter(self._pieces))]
        return Verdict.PASS if passes else Verdict.REFUSED

    def outgoing(self, packet: bytes, now: float) -> Verdict:
        """Judge a packet of this board, as a courtesy: in doubt it passes."""
        flow = read_flow_untrusted(packet)
        if isinstance(flow, Unfit) or flow.piece is Piece.LATER or flow.error_at:
            return Verdict.PASS
        assert self._tables is not None
        ends = _tuple(flow, is_in=False)
        entry = self._find(ends, now)
        if ends is not None and entry is not None and entry.number == self._number:
            self._note(entry, ends, flow, now, is_in=False)
            return Verdict.PASS
        if _allows(self._tables.outgoing, flow):
            self._begin(ends, flow, now, is_in=False)
            return Verdict.PASS
        if ends is not None and entry is not None:
            del self._flows[ends]
        answered = _answered_by(flow)
        allowed = answered is not None and _allows(self._tables.incoming, answered)
        return Verdict.PASS if allowed else Verdict.REFUSED

    def _may_come(self, flow: Flow, packet: bytes, now: float) -> bool:
        assert self._tables is not None
        if _allows(self._tables.incoming, flow):
            return True
        ends = _tuple(flow, is_in=True)
        entry = self._find(ends, now)
        if ends is None or entry is None:
            return self._is_related(flow, packet, now)
        if entry.number != self._number:
            answered = _answered_by(flow)
            if answered is None or not _allows(self._tables.outgoing, answered):
                del self._flows[ends]
                return False
            entry.number = self._number
        self._note(entry, ends, flow, now, is_in=True)
        return True

    def _is_related(self, flow: Flow, packet: bytes, now: float) -> bool:
        """Say whether an error is about what this board sent to its sender, and may send."""
        assert self._tables is not None
        quoted = _quoted_untrusted(packet[flow.error_at :], packet[0] >> 4) if flow.error_at else None
        if quoted is None or (quoted.destination, quoted.source) != (flow.source, flow.destination):
            return False
        ends = _tuple(quoted, is_in=False)
        entry = self._find(ends, now)
        if ends is not None and entry is not None and entry.number == self._number:
            self._note(entry, ends, quoted, now, is_in=False)
            return True
        answered = _answered_by(quoted)
        return answered is not None and _allows(self._tables.incoming, answered)

    # ── flows ──

    def _find(self, ends: _Tuple | None, now: float) -> _Entry | None:
        entry = None if ends is None else self._flows.get(ends)
        if ends is None or entry is None or now >= entry.seen_at + _life_s(ends.protocol, entry):
            return None
        return entry

    def _begin(self, ends: _Tuple | None, flow: Flow, now: float, *, is_in: bool) -> None:
        if ends is None:
            return
        entry = self._find(ends, now)
        if entry is None:
            self._flows.pop(ends, None)
            if len(self._flows) >= FLOW_COUNT:
                del self._flows[next(iter(self._flows))]
            entry = self._flows[ends] = _Entry()
        entry.number = self._number
        self._note(entry, ends, flow, now, is_in=is_in)

    def _note(self, entry: _Entry, ends: _Tuple, flow: Flow, now: float, *, is_in: bool) -> None:
        if not is_in and flow.tcp_flags & (_SYN | _ACK) == _SYN:
            entry.seen_in = entry.seen_out = entry.closing = False  # another connection with the same ports
        entry.seen_in |= is_in
        entry.seen_out |= not is_in
        entry.closing |= bool(flow.tcp_flags & (_FIN | _RST))
        entry.seen_at = now


def _life_s(protocol: int, entry: _Entry) -> float:
    answered = entry.seen_in and entry.seen_out
    if protocol == TCP:
        return TCP_CLOSING_S if entry.closing else TCP_OPEN_S if answered else TCP_OPENING_S
    if protocol in _ECHO_OF:
        return ECHO_S
    return ANSWERED_S if answered else UNANSWERED_S


def _tuple(flow: Flow, *, is_in: bool) -> _Tuple | None:
    """Return the ends of a packet's flow; None: it has no answer."""
    protocol, port = flow.key >> 16, flow.key & 0xFFFF
    local, remote = (flow.destination, flow.source) if is_in else (flow.source, flow.destination)
    if protocol in _ECHO_OF:
        if port != _ECHO_OF[protocol][is_in]:
            return None
        return _Tuple(local, remote, protocol, flow.source_port, 0)
    ports = (port, flow.source_port) if is_in else (flow.source_port, port)
    return _Tuple(local, remote, protocol, *ports)


def _answered_by(flow: Flow) -> Flow | None:
    """Return the flow that a packet would answer: the same ends the other way round; None: it answers none."""
    protocol, port = flow.key >> 16, flow.key & 0xFFFF
    turned = flow._replace(source=flow.destination, destination=flow.source)
    if protocol in _ECHO_OF:
        request, answer = _ECHO_OF[protocol]
        return turned._replace(key=key_of(protocol, request)) if port == answer else None
    return turned._replace(key=key_of(protocol, flow.source_port), source_port=port)


def _allows(table: Table, flow: Flow) -> bool:
    return table.allows_packed(flow.source, flow.destination, flow.key)


def _quoted_untrusted(packet: bytes, version: int) -> Flow | None:
    """Return the flow of the packet that an ICMP error quotes, as far as it is quoted; None: it has none."""
    if version == 4:
        at = (packet[0] & 15) * 4 if len(packet) >= IPV4_HEADER_BYTES else 0
        if at < IPV4_HEADER_BYTES or packet[0] >> 4 != 4 or int.from_bytes(packet[6:8]) & 0x1FFF:
            return None
        protocol, ends = packet[9], (MAPPED + packet[12:16], MAPPED + packet[16:20])
    else:
        at = IPV6_HEADER_BYTES
        if len(packet) < at or packet[0] >> 4 != 6:
            return None
        protocol, ends = packet[6], (packet[8:24], packet[24:40])
    header = packet[at : at + _QUOTED_BYTES]
    if len(header) < _QUOTED_BYTES:
        return None
    if protocol in (TCP, UDP, SCTP):
        key, port = key_of(protocol, int.from_bytes(header[2:4])), int.from_bytes(header[:2])
    elif protocol in _ECHO_OF:
        key, port = key_of(protocol, header[0]), int.from_bytes(header[4:6])
    else:
        return None
    return Flow(*ends, key, port, Piece.WHOLE, 0, 0, 0)
