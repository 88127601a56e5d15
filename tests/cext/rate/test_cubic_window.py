"""cext/rate/cubic.h against the formulas of RFC 9438."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_uint64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.compile import UNDEFINED, build
from kit.sctp import MS, fields

C = 0.4  # packets/s^3, section 5
KEPT = 0.8

windows = st.integers(0, 2**26)
times_ms = st.integers(0, 10**7)


class Cubic(ctypes.Structure):
    _fields_ = fields(c_uint64, "peak from_ since k_ms")


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    source = Path(__file__).with_name("cubic_driver.c")
    library = ctypes.CDLL(str(build(source, shared=True, options=UNDEFINED)))
    library.start.argtypes = library.lost.argtypes = library.window.argtypes = [POINTER(Cubic), c_uint64, c_uint64]
    library.window.restype = c_uint64
    return library


@given(window=st.integers(5, 2**26), ms=st.integers(0, 100_000))
def test_after_a_loss_it_follows_the_curve(library, window, ms):
    cubic = Cubic()
    library.start(byref(cubic), window, 7)
    library.lost(byref(cubic), window, 7)
    k_s = (window * (1 - KEPT) / C) ** (1 / 3)  # figure 2
    curve = C * (ms / 1000 - k_s) ** 3 + window  # figure 1
    slope = 3 * C * (ms / 1000 - k_s) ** 2  # k is whole milliseconds here
    got = library.window(byref(cubic), 10**15, 7 + ms * MS)  # with so long a round trip Reno's window does not grow
    assert got == pytest.approx(max(curve, window * KEPT, 4), abs=2 + slope / 1000)


def test_it_is_back_at_the_peak_when_k_is_over(library):
    cubic = Cubic()
    library.start(byref(cubic), 1000, 0)
    library.lost(byref(cubic), 1000, 0)
    assert cubic.k_ms == int((1000 * 0.2 / 0.4) ** (1 / 3) * 1000)
    assert library.window(byref(cubic), 10**15, cubic.k_ms * MS) == 1000


def test_on_a_short_path_it_is_no_slower_than_reno(library):
    cubic = Cubic()
    library.start(byref(cubic), 100, 0)
    library.lost(byref(cubic), 100, 0)
    assert library.window(byref(cubic), 10 * MS, 1000 * MS) == 80 + 53  # 100 round trips


def test_a_loss_below_the_last_peak_makes_room_for_a_new_flow(library):
    cubic = Cubic()
    library.start(byref(cubic), 1000, 0)
    library.lost(byref(cubic), 900, 0)
    assert (cubic.peak, cubic.from_) == (900 * 90 // 100, 720)


@given(steps=st.lists(st.tuples(st.sampled_from(["start", "lost"]), windows, times_ms), max_size=8), rtt=windows)
def test_no_course_of_losses_leaves_less_than_four_packets(library, steps, rtt):
    cubic = Cubic()
    library.start(byref(cubic), 0, 0)
    now = 0
    for step, window, ms in steps:
        now += ms * MS
        getattr(library, step)(byref(cubic), window, now)
        assert library.window(byref(cubic), rtt, now + ms * MS) >= 4
