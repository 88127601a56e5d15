"""cext/rate/rate.c by single packets: what each changes in its model of the path."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_bool, c_char, c_uint32, c_uint64

import pytest
from kit.compile import UNDEFINED, build
from kit.sctp import MS, SECOND, fields
from kit.tree import CEXT

PACKET_BYTES = 1400


class Mark(ctypes.Structure):
    _fields_ = [
        *fields(c_uint64, "sent_at first_sent_at delivered_at delivered_bytes inflight_bytes"),
        ("app_limited", c_bool),
    ]


class Ack(ctypes.Structure):
    _fields_ = [
        *fields(c_uint64, "now acked_bytes lost_bytes inflight_bytes rtt_ns"),
        ("newest", POINTER(Mark)),
    ]


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    made = ctypes.CDLL(str(build(CEXT / "rate/rate.c", shared=True, options=UNDEFINED)))
    made.rate_init.argtypes = [ctypes.c_void_p, c_uint32, c_uint64, c_uint64]
    made.rate_sent.argtypes = [ctypes.c_void_p, POINTER(Mark), c_uint32, c_uint64, c_uint64]
    made.rate_app_limited.argtypes = [ctypes.c_void_p, c_uint64]
    made.rate_ack.argtypes = [ctypes.c_void_p, POINTER(Ack)]
    made.rate_bandwidth_bytes_s.argtypes = [ctypes.c_void_p]
    made.rate_bandwidth_bytes_s.restype = c_uint64
    return made


class Sender:
    """Sends packets whose round trips the test decides."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._rate = (c_char * 4096)()  # more than struct rate
        self.now = SECOND
        library.rate_init(self._rate, PACKET_BYTES, 1, self.now)

    @property
    def mbit(self) -> float:
        bytes_s: int = self._library.rate_bandwidth_bytes_s(self._rate)
        return bytes_s * 8 / 1e6

    def bulk(self, packets: int, rtt: int) -> None:
        """Send so many packets at once; all are acknowledged a round trip later."""
        marks = [Mark() for _ in range(packets)]
        for number, mark in enumerate(marks):
            self._library.rate_sent(self._rate, byref(mark), PACKET_BYTES, number * PACKET_BYTES, self.now)
        self.now += rtt
        self._acknowledge(marks[-1], packets, rtt)

    def lone(self, rtt: int) -> None:
        """Send one packet, from an application that has no more."""
        mark = Mark()
        self._library.rate_sent(self._rate, byref(mark), PACKET_BYTES, 0, self.now)
        self._library.rate_app_limited(self._rate, PACKET_BYTES)
        self.now += rtt
        self._acknowledge(mark, 1, rtt)

    def rest(self) -> None:
        """Let two seconds pass without data."""
        self._library.rate_app_limited(self._rate, 0)
        self.now += 2 * SECOND

    def _acknowledge(self, newest: Mark, packets: int, rtt: int) -> None:
        ack = Ack(now=self.now, acked_bytes=packets * PACKET_BYTES, rtt_ns=rtt, newest=ctypes.pointer(newest))
        self._library.rate_ack(self._rate, byref(ack))


@pytest.fixture
def sender(library: ctypes.CDLL) -> Sender:
    """A sender that knows a path of a millisecond, and was idle for two seconds."""
    made = Sender(library)
    for _ in range(500):
        made.bulk(100, MS)
    made.rest()
    assert made.mbit > 500
    return made


def test_one_late_packet_after_a_rest_is_not_another_path(sender: Sender) -> None:
    known = sender.mbit
    sender.lone(20 * MS)
    sender.lone(MS)
    assert sender.mbit == known
    sender.rest()
    sender.lone(20 * MS)
    assert sender.mbit == known


def test_two_late_packets_in_a_row_are_another_path(sender: Sender) -> None:
    sender.lone(20 * MS)
    sender.lone(20 * MS)
    assert sender.mbit < 20


def test_a_late_packet_and_the_bulk_behind_it_are_another_path(sender: Sender) -> None:
    sender.lone(20 * MS)
    sender.bulk(100, 20 * MS)
    assert sender.mbit < 100
