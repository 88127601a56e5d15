"""A neighbour that no announcement shows is a LAN of its own, once there was time for one."""

from __future__ import annotations

from conflux.control.lan.islands import FLOOD_S, ISLAND_S, SEEN_COUNT_MAX, Islands

ONE, OTHER = b"1" * 8, b"2" * 8
NOW = 1000.0


def test_a_neighbour_without_an_announcement_is_a_lan_of_its_own_after_a_while() -> None:
    islands = Islands(listens=True)
    assert islands.lan("eth0", "loft", ONE, ISLAND_S - 0.1, NOW) == "eth0"
    alone = islands.lan("eth0", "loft", ONE, ISLAND_S, NOW)
    assert alone not in ("eth0", islands.lan("eth0", "cellar", OTHER, ISLAND_S, NOW))
    assert islands.saw(ONE)
    assert not islands.saw(ONE)
    assert islands.lan("eth0", "loft", ONE, ISLAND_S, NOW) == "eth0"


def test_a_neighbour_whose_lan_is_unknown_stays_unknown() -> None:
    assert Islands(listens=True).lan(None, "loft", ONE, 99.0, NOW) is None


def test_who_does_not_listen_takes_nobody_for_alone() -> None:
    assert Islands(listens=False).lan("eth0", "loft", ONE, 99.0, NOW) == "eth0"


def test_what_was_seen_is_bounded() -> None:
    islands = Islands(listens=True)
    for number in range(SEEN_COUNT_MAX + 1):
        assert islands.saw(number.to_bytes(8))
    assert islands.saw((0).to_bytes(8)), "the oldest is forgotten"


def test_announcements_without_end_do_not_make_a_neighbour_one_that_multicast_does_not_show() -> None:
    islands = Islands(listens=True)
    islands.saw(ONE)
    assert islands.lan("eth0", "loft", ONE, 0.1, NOW) == "eth0"
    for number in range(SEEN_COUNT_MAX + 1):
        islands.saw(number.to_bytes(8))
    assert islands.lan("eth0", "loft", ONE, 99.0, NOW) == "eth0"


def test_nobody_is_taken_for_an_island_while_announcements_go_unread_and_who_was_one_stays_one() -> None:
    islands = Islands(listens=True)
    alone = islands.lan("eth0", "loft", ONE, 99.0, NOW)
    assert alone != "eth0"
    assert not islands.look_again(NOW)
    islands.flooded(NOW)
    assert islands.lan("eth0", "loft", ONE, 99.0, NOW) == alone
    assert islands.lan("eth0", "cellar", OTHER, 99.0, NOW) == "eth0"
    assert [islands.look_again(NOW), islands.look_again(NOW)] == [True, False], "one look for all"
    assert islands.lan("eth0", "cellar", OTHER, 99.0, NOW + FLOOD_S - 0.1) == "eth0"
    assert not islands.look_again(NOW + FLOOD_S - 0.1), "one is due"
    assert islands.lan("eth0", "cellar", OTHER, 99.0, NOW + FLOOD_S) != "eth0"
