"""Of which kind a link's bytes are."""

from __future__ import annotations

import pytest

from conflux.carrier.ice.datagrams import DatagramTraffic
from conflux.carrier.native.share import MESSAGE_HEADER_BYTES, RELAYED_HEADER_BYTES, EngineShare
from conflux.carrier.wire import Moved
from conflux.usage.tally import UDP6_HEADER_BYTES, UDP_HEADER_BYTES, Both, Kind

V4, V6 = ("192.0.2.1", 5000), ("2001:db8::1", 5000)


@pytest.mark.parametrize(
    ("first", "kind"),
    [(0, Kind.KEEP_ALIVE), (1, Kind.KEEP_ALIVE), (20, Kind.SET_UP), (22, Kind.SET_UP), (23, Kind.DATA)],
)
def test_a_datagram_is_sorted_by_its_first_byte_once_the_link_is_open(first: int, kind: Kind) -> None:
    traffic = DatagramTraffic()
    assert traffic.kind_of(bytes((first,))) is Kind.SET_UP
    traffic.is_open = True
    assert traffic.kind_of(bytes((first,))) is kind
    assert traffic.kind_of(b"") is Kind.SET_UP


@pytest.mark.parametrize(
    ("address", "header"), [(V4, UDP_HEADER_BYTES), (V6, UDP6_HEADER_BYTES), (None, RELAYED_HEADER_BYTES)]
)
def test_headers_are_added_by_the_family_of_the_address(address: tuple[str, int] | None, header: int) -> None:
    traffic = DatagramTraffic()
    traffic.is_open = True
    EngineShare(traffic, address).count(Moved(1000, 2, 500, 3, 100, 1))
    assert traffic.take() == {
        Kind.DATA: Both(1000 + 2 * header, 400 + 2 * header),
        Kind.KEEP_ALIVE: Both(0, 100 + header),
        Kind.SET_UP: Both(0, 0),
    }


def test_all_is_set_up_until_the_link_is_open_and_nothing_is_counted_twice() -> None:
    traffic = DatagramTraffic()
    share = EngineShare(traffic, V4)
    share.count(Moved(1000, 1, 100, 1, 100, 1))
    traffic.is_open = True
    share.count(Moved(1000, 1, 100, 1, 100, 1))
    assert traffic.take()[Kind.SET_UP] == Both(1000 + UDP_HEADER_BYTES, 100 + UDP_HEADER_BYTES)
    assert sum(both.total for both in traffic.take().values()) == 0


def test_a_datagram_that_was_given_back_to_the_socket_is_counted_once() -> None:
    traffic = DatagramTraffic()
    share = EngineShare(traffic, V4)
    traffic.returned_bytes = 500 + UDP_HEADER_BYTES
    share.count(Moved(0, 0, 200, 1, 0, 0))  # another one came first
    assert traffic.take()[Kind.SET_UP].received == 0
    share.count(Moved(0, 0, 700, 2, 0, 0))
    assert traffic.take()[Kind.SET_UP].received == 200 + UDP_HEADER_BYTES
    assert traffic.returned_bytes == 0


def test_messages_from_before_the_link_was_open_make_no_later_data_set_up() -> None:
    traffic = DatagramTraffic()
    share = EngineShare(traffic, V4)
    share.message(sent=500, received=500)
    share.count(Moved(600, 1, 600, 1, 0, 0))
    traffic.is_open = True
    traffic.take()
    share.count(Moved(1600, 2, 1600, 2, 0, 0))
    assert traffic.take()[Kind.DATA] == Both(1000 + UDP_HEADER_BYTES, 1000 + UDP_HEADER_BYTES)


def test_messages_about_a_route_are_set_up_and_no_more_than_passed() -> None:
    traffic = DatagramTraffic()
    traffic.is_open = True
    share = EngineShare(traffic, V4)
    share.message(sent=500)
    share.message(received=100)
    share.count(Moved(300, 1, 1000, 1, 0, 0))
    first = traffic.take()
    assert first[Kind.SET_UP] == Both(300 + UDP_HEADER_BYTES, 100 + MESSAGE_HEADER_BYTES)
    assert first[Kind.DATA] == Both(0, 1000 + UDP_HEADER_BYTES - 100 - MESSAGE_HEADER_BYTES)
    share.count(Moved(1300, 2, 1000, 1, 0, 0))  # the rest of the message goes with the next datagram
    left = 500 + MESSAGE_HEADER_BYTES - 300 - UDP_HEADER_BYTES
    assert traffic.take()[Kind.SET_UP] == Both(left, 0)
