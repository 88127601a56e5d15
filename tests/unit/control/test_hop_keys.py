"""Hop keys: replaced every hour, valid for a quarter of an hour more, and then erased."""

from __future__ import annotations

from kit.control import World

from conflux.control.hop_keys import LIFETIME_S, OVERLAP_S, HopKeys
from conflux.crypto.seal import SealKey


class Keys(HopKeys):
    """Hop keys that start at time 0, and every key that was ever made."""

    def __init__(self) -> None:
        self.made: list[SealKey] = []
        super().__init__(self.make, now=0.0)

    def make(self) -> SealKey:
        self.made.append(SealKey.generate())
        return self.made[-1]

    def erased(self) -> list[bool]:
        return [repr(key) == "SealKey(erased)" for key in self.made]


def test_replaced_key_is_valid_through_the_overlap_and_then_erased() -> None:
    keys = Keys()
    first = keys.key_id
    assert keys.handle_timeout(now=LIFETIME_S)
    assert keys.find(first) is keys.made[0]
    assert not keys.handle_timeout(now=LIFETIME_S + OVERLAP_S - 0.001)
    assert keys.erased() == [False, False]
    assert not keys.handle_timeout(now=LIFETIME_S + OVERLAP_S)
    assert keys.erased() == [True, False]
    assert keys.find(first) is None


def test_key_that_outlived_its_overlap_asleep_is_erased_when_the_next_is_made() -> None:
    keys = Keys()
    keys.handle_timeout(now=LIFETIME_S)
    assert keys.handle_timeout(now=10 * LIFETIME_S)
    assert keys.erased() == [True, False, False]


def test_both_keys_are_erased_at_the_end() -> None:
    keys = Keys()
    keys.handle_timeout(now=LIFETIME_S)
    keys.erase()
    assert keys.erased() == [True, True]


def test_timeouts_are_the_replacement_and_the_erasure_whichever_comes_first() -> None:
    keys = Keys()
    assert keys.next_timeout() == LIFETIME_S
    keys.handle_timeout(now=LIFETIME_S)
    assert keys.next_timeout() == LIFETIME_S + OVERLAP_S
    keys.handle_timeout(now=LIFETIME_S + OVERLAP_S)
    assert keys.next_timeout() == 2 * LIFETIME_S


def test_plane_erases_its_hop_keys() -> None:
    world = World("alice")
    plane = world["alice"].plane
    key = plane.hop_key(plane.own_card.hop_key_id)
    plane.erase()
    assert repr(key) == "SealKey(erased)"
