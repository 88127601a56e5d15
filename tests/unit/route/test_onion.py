"""The onion: every hop reads its own slot and no other, and refuses an onion that was changed."""

from __future__ import annotations

import random

import pytest
from kit.builders import make_realm

from conflux.crypto import kdf
from conflux.crypto.seal import SealKey
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import NodeId, StreamId
from conflux.realm.card import hop_key_id_of
from conflux.route import onion
from conflux.route.onion import HopKey, peel_untrusted, wrap

REALM = make_realm("onions").anchor.realm_id
STREAM = StreamId(b"stream of 16 b..")
KEYS = [SealKey.generate() for _ in range(4)]
HOPS = [HopKey(NodeId(bytes([65 + i]) * 16), hop_key_id_of(key.public), key.public) for i, key in enumerate(KEYS)]


def unsealer(key: SealKey):
    def unseal(key_id: bytes, sealed: bytes, info: bytes) -> bytes:
        if key_id != hop_key_id_of(key.public):
            raise RemoteProtocolError("stale-key")
        return key.unseal(sealed, info)

    return unseal


def build(count: int, seed: int = 1) -> tuple[bytes, tuple[bytes, ...]]:
    return wrap(HOPS[:count], STREAM, lifetime_s=60, realm=REALM, entropy=random.Random(seed).randbytes)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_hop_finds_the_next_and_the_last_the_stream(count):
    data, keys = build(count)
    for number in range(count):
        assert len(data) == onion.ONION_BYTES, "a hop cannot tell its position by the size"
        peeled = peel_untrusted(data, unsealer(KEYS[number]), realm=REALM)
        assert peeled.route_key == keys[number]
        assert peeled.lifetime_s == 60
        if number < count - 1:
            assert (peeled.next, peeled.stream) == (HOPS[number + 1].node, None)
        else:
            assert (peeled.next, peeled.stream) == (None, STREAM)
        data = peeled.rest


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_hop_cannot_open_another_hops_slot(count):
    data, _ = build(count)
    for key in KEYS[1:]:
        with pytest.raises(RemoteProtocolError, match="stale-key"):
            peel_untrusted(data, unsealer(key), realm=REALM)


@pytest.mark.parametrize("position", [0, 7, 8, 500, onion.SLOT_BYTES, 2 * onion.SLOT_BYTES + 9, onion.ONION_BYTES - 1])
def test_one_changed_bit_is_refused_by_the_first_hop(position):
    data = bytearray(build(3)[0])
    data[position] ^= 1
    with pytest.raises(RemoteProtocolError):
        peel_untrusted(bytes(data), unsealer(KEYS[0]), realm=REALM)


def test_the_next_hop_refuses_an_onion_that_a_relay_changed():
    data, _ = build(3)
    rest = bytearray(peel_untrusted(data, unsealer(KEYS[0]), realm=REALM).rest)
    for position in (onion.SLOT_BYTES + 1, onion.ONION_BYTES - 1):
        changed = bytearray(rest)
        changed[position] ^= 1
        with pytest.raises(RemoteProtocolError, match="auth"):
            peel_untrusted(bytes(changed), unsealer(KEYS[1]), realm=REALM)


def test_no_slot_is_seen_twice_along_a_route():
    data, _ = build(4)
    seen = set()
    for key in KEYS:
        slots = {data[i : i + onion.SLOT_BYTES] for i in range(0, len(data), onion.SLOT_BYTES)}
        assert not slots & seen, "two relays could recognise each other's route"
        seen |= slots
        data = peel_untrusted(data, unsealer(key), realm=REALM).rest


def test_the_onion_shows_neither_stream_nor_nodes():
    data, _ = build(4)
    assert STREAM not in data
    assert all(hop.node not in data for hop in HOPS)


def test_two_onions_of_one_route_have_nothing_in_common():
    assert build(3, seed=1)[0][8:] != build(3, seed=2)[0][8:]
    assert build(3, seed=1)[1] != build(3, seed=2)[1]


def test_another_realms_onion_does_not_open():
    with pytest.raises(RemoteProtocolError, match="auth"):
        peel_untrusted(build(1)[0], unsealer(KEYS[0]), realm=make_realm("others").anchor.realm_id)


@pytest.mark.parametrize("size", [0, 1, onion.SLOT_BYTES + 1, onion.ONION_BYTES - 1, onion.ONION_BYTES + 1])
def test_another_size_is_refused(size):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        peel_untrusted((build(2)[0] + b"x")[:size], unsealer(KEYS[0]), realm=REALM)


@pytest.mark.parametrize("count", [0, 5])
def test_a_route_of_no_hops_or_too_many_is_a_local_error(count):
    with pytest.raises(LocalProtocolError):
        wrap((HOPS * 2)[:count], STREAM, lifetime_s=60, realm=REALM, entropy=random.Random(1).randbytes)


def test_a_route_lives_for_a_day_at_most():
    def peeled(lifetime_s: int) -> onion.Peeled:
        entropy = random.Random(1).randbytes
        data, _ = wrap(HOPS[:1], STREAM, lifetime_s=lifetime_s, realm=REALM, entropy=entropy)
        return peel_untrusted(data, unsealer(KEYS[0]), realm=REALM)

    assert peeled(onion.LIFETIME_S_MAX).lifetime_s == onion.LIFETIME_S_MAX
    with pytest.raises(RemoteProtocolError, match="lifetime"):
        peeled(onion.LIFETIME_S_MAX + 1)


def one_slot(seed: int = 1) -> bytes:
    hop = HOPS[0]._replace(one_slot=True)
    return wrap([hop], STREAM, lifetime_s=60, realm=REALM, entropy=random.Random(seed).randbytes)[0]


def test_a_route_of_one_hop_has_one_slot_if_the_hop_takes_it():
    data = one_slot()
    assert len(data) == onion.SLOT_BYTES
    peeled = peel_untrusted(data, unsealer(KEYS[0]), realm=REALM)
    assert (peeled.next, peeled.stream, peeled.rest) == (None, STREAM, b"")


def test_a_route_of_several_hops_has_four_slots_whatever_the_hops_take():
    hops = [hop._replace(one_slot=True) for hop in HOPS[:2]]
    data, _ = wrap(hops, STREAM, lifetime_s=60, realm=REALM, entropy=random.Random(1).randbytes)
    assert len(data) == onion.ONION_BYTES
    assert len(peel_untrusted(data, unsealer(KEYS[0]), realm=REALM).rest) == onion.ONION_BYTES


def test_slots_cut_off_behind_a_hops_own_are_refused():
    for count in (1, 2, 4):
        with pytest.raises(RemoteProtocolError, match="auth"):
            peel_untrusted(build(count)[0][: onion.SLOT_BYTES], unsealer(KEYS[0]), realm=REALM)
        with pytest.raises(RemoteProtocolError, match="malformed"):
            peel_untrusted(build(count)[0][: 2 * onion.SLOT_BYTES], unsealer(KEYS[0]), realm=REALM)


def test_one_slot_that_passes_on_is_malformed():
    plain = bytes([0]) + bytes(16) + (60).to_bytes(4) + bytes(32) + kdf.sha256(b"")
    with pytest.raises(RemoteProtocolError, match="malformed"):
        peel_untrusted(one_slot(), lambda *_: plain, realm=REALM)


def clear(hop_count: int = 1) -> tuple[bytes, tuple[bytes, ...]]:
    hops = [hop._replace(one_slot=True, clear=True) for hop in HOPS[:hop_count]]
    return wrap(hops, STREAM, lifetime_s=60, realm=REALM, entropy=random.Random(1).randbytes)


def never(*_: bytes) -> bytes:
    raise AssertionError("nothing is sealed")


def test_a_route_of_one_hop_has_a_slot_that_is_not_sealed_if_the_hop_takes_it():
    data, (key,) = clear()
    assert len(data) == onion.CLEAR_BYTES
    assert peel_untrusted(data, never, realm=REALM) == onion.Peeled(None, STREAM, 60, key, b"")


@pytest.mark.parametrize("hop_count", [2, 3, 4])
def test_no_slot_of_a_relayed_route_is_clear_whatever_the_hops_take(hop_count):
    data, _ = clear(hop_count)
    assert len(data) == onion.ONION_BYTES
    assert bytes(STREAM) not in data


def test_a_clear_slot_that_passes_on_or_lives_too_long_is_malformed():
    data, _ = clear()
    for bad in (
        b"\0" + data[1:],
        b"\2" + data[1:],
        data[:17] + (onion.LIFETIME_S_MAX + 1).to_bytes(4) + data[21:],
        data[:-1],
        data + b"\0",
    ):
        with pytest.raises(RemoteProtocolError, match="malformed"):
            peel_untrusted(bad, never, realm=REALM)
