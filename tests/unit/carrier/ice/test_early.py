"""Where a flight of DTLS goes while ICE still looks for a pair."""

from __future__ import annotations

from conflux.carrier.ice.early import UNPROVEN_BYTES_MAX, UNPROVEN_COUNT_MAX, Early

HELLO = b"h" * UNPROVEN_BYTES_MAX
LARGE = b"s" * (UNPROVEN_BYTES_MAX + 1)


def test_small_flight_goes_behind_the_first_checks_whichever_comes_first() -> None:
    early: Early[str] = Early()
    assert early.checked("one") is None
    assert early.made(HELLO) == ("one",)
    assert early.checked("two") == HELLO
    for number in range(UNPROVEN_COUNT_MAX):
        sent = early.checked(f"further {number}")
        assert sent == (HELLO if number + 2 < UNPROVEN_COUNT_MAX else None)


def test_large_flight_goes_nowhere_unasked() -> None:
    early: Early[str] = Early()
    assert early.checked("one") is None
    assert early.made(LARGE) == ()
    assert early.checked("two") is None
    assert early.proven("two", is_answered=False) == LARGE


def test_flight_that_a_filter_may_have_dropped_goes_again_when_the_peers_check_comes() -> None:
    early: Early[str] = Early()
    early.checked("one")
    early.made(HELLO)
    assert early.proven("one", is_answered=False) == HELLO
    assert early.proven("one", is_answered=False) is None, "once"


def test_flight_whose_check_was_answered_arrived_too() -> None:
    early: Early[str] = Early()
    early.checked("one")
    early.made(HELLO)
    assert early.proven("one", is_answered=True) is None


def test_nominated_pair_gets_the_flight_unless_it_has_it() -> None:
    early: Early[str] = Early()
    assert early.nominated("one") is None
    early.made(LARGE)
    assert early.nominated("one") == LARGE
    assert early.nominated("one") is None


def test_next_flight_goes_where_the_peer_is_known_to_be() -> None:
    early: Early[str] = Early()
    early.checked("one")
    early.made(HELLO)
    early.proven("two", is_answered=False)
    assert early.made(LARGE) == ("two",)
