"""cext/rate/rate.c with random events, by seed, and undefined behaviour trapped: its answers stay in bounds."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_bool, c_uint32, c_uint64
from random import Random

import pytest
from kit.compile import UNDEFINED, build
from kit.tree import CEXT

STATE_BYTES = 4096  # more than struct rate
PACKET_BYTES = 1200


class Mark(Structure):
    _fields_ = [
        ("sent_at", c_uint64),
        ("first_sent_at", c_uint64),
        ("delivered_at", c_uint64),
        ("delivered_bytes", c_uint64),
        ("inflight_bytes", c_uint64),
        ("app_limited", c_bool),
    ]


class Ack(Structure):
    _fields_ = [
        ("now", c_uint64),
        ("acked_bytes", c_uint64),
        ("lost_bytes", c_uint64),
        ("inflight_bytes", c_uint64),
        ("rtt_ns", c_uint64),
        ("newest", POINTER(Mark)),
    ]


@pytest.fixture(scope="module")
def rate() -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(build(CEXT / "rate/rate.c", shared=True, options=UNDEFINED)))
    loaded.rate_init.argtypes = (ctypes.c_void_p, c_uint32, c_uint64, c_uint64)
    loaded.rate_sent.argtypes = (ctypes.c_void_p, POINTER(Mark), c_uint32, c_uint64, c_uint64)
    loaded.rate_app_limited.argtypes = (ctypes.c_void_p, c_uint64)
    loaded.rate_ack.argtypes = (ctypes.c_void_p, POINTER(Ack))
    loaded.rate_timeout.argtypes = (ctypes.c_void_p, c_uint64)
    for name in ("rate_pacing_bytes_s", "rate_window_bytes", "rate_burst_bytes"):
        getattr(loaded, name).argtypes = (ctypes.c_void_p,)
        getattr(loaded, name).restype = c_uint64
    return loaded


@pytest.mark.parametrize("seed", range(8))
def test_any_course_of_events_leaves_a_pace_and_a_window(rate: ctypes.CDLL, seed: int) -> None:
    random = Random(seed)
    state = ctypes.create_string_buffer(STATE_BYTES)
    now = random.choice((0, 1, 10**18))
    rate.rate_init(state, PACKET_BYTES, seed, now)
    flying: list[Mark] = []
    for _ in range(4000):
        now += int(10 ** random.uniform(0, random.choice((5, 8, 11))))
        inflight = PACKET_BYTES * len(flying)
        match random.randrange(8):
            case 0 | 1 | 2 | 3:
                for _ in range(random.randrange(1, 20)):
                    flying.append(Mark())
                    rate.rate_sent(state, byref(flying[-1]), PACKET_BYTES, PACKET_BYTES * (len(flying) - 1), now)
            case 4 | 5 | 6 if flying:
                count = random.randrange(len(flying) + 1)
                lost = random.choice((0, 0, random.randrange(count + 1)))
                gone, flying = flying[:count], flying[count:]
                newest = gone[-1] if count > lost else None
                ack = Ack(now=now, acked_bytes=PACKET_BYTES * (count - lost), lost_bytes=PACKET_BYTES * lost)
                ack.inflight_bytes = PACKET_BYTES * len(flying)
                if newest is not None:
                    ack.newest = ctypes.pointer(newest)
                    ack.rtt_ns = random.choice((0, 1, now - newest.sent_at))
                rate.rate_ack(state, byref(ack))
            case 7 if random.random() < 0.1:
                flying.clear()
                rate.rate_timeout(state, now)
            case _:
                rate.rate_app_limited(state, inflight)
        pacing, burst = rate.rate_pacing_bytes_s(state), rate.rate_burst_bytes(state)
        assert PACKET_BYTES <= pacing < 1 << 40
        assert 2 * PACKET_BYTES <= burst <= 65536
        assert burst <= max(2 * PACKET_BYTES, pacing / 1000)
        assert 4 * PACKET_BYTES <= rate.rate_window_bytes(state) < 1 << 50
