"""Messages under an id that two nodes share: carried as envelopes are, and nothing of them is believed."""

from __future__ import annotations

import pytest
from kit.builders import make_member, make_realm
from kit.control import World

from conflux.control.channel import Arrival
from conflux.control.drop import Drop
from conflux.control.envelope import PAIRED_BYTES_MAX, Envelope, Paired, Pairing
from conflux.control.pairs import MESSAGE_COUNT_MAX
from conflux.errors import LocalProtocolError, RemoteProtocolError

ID = b"pairs id"
STRANGER = make_member(make_realm("pairs"), "stranger").node_id


def met() -> World:
    world = World("alpha", "bravo")
    world.run(3.0)
    return world


def arrival(world: World, envelope: Envelope) -> Arrival:
    return Arrival(envelope, world["alpha"].node, "lan")


def carried(world: World, payload: bytes, key_id: bytes | None = ID) -> Envelope:
    alpha, bravo = world["alpha"], world["bravo"]
    return alpha.plane._author.envelope(bravo.node, key_id, payload)


def test_a_message_arrives_with_its_id_and_names_nobody() -> None:
    world = met()
    alpha, bravo = world["alpha"], world["bravo"]
    alpha.plane.pairs.send(bravo.node, ID, Pairing.RESUME, b"body")
    transmit = alpha.plane.next_transmit()
    assert transmit is not None
    assert alpha.node not in transmit.envelope.encode()
    bravo.plane.receive_untrusted(arrival(world, transmit.envelope), now=world.now)
    message = bravo.plane.pairs.next_message()
    assert message is not None
    assert (message.id, message.what, message.body, message.source) == (ID, Pairing.RESUME, b"body", alpha.node)
    assert bravo.plane.pairs.next_message() is None


def test_an_envelope_sealed_to_an_unknown_key_is_no_message_of_a_pair() -> None:
    world = met()
    bravo = world["bravo"]
    bravo.plane.receive_untrusted(arrival(world, carried(world, bytes(range(256)) * 5)), now=world.now)
    assert bravo.plane.pairs.next_message() is None
    assert bravo.plane.drops[Drop.UNKNOWN_KEY] == 1


def test_a_message_for_a_pair_that_is_for_all_or_for_another_is_dropped() -> None:
    world = met()
    alpha, bravo = world["alpha"], world["bravo"]
    payload = Paired(Pairing.RESUME, b"").encode()
    for to, word in ((None, Drop.MALFORMED), (STRANGER, Drop.NOT_FOR_US)):
        envelope = alpha.plane._author.envelope(to, ID, payload)
        bravo.plane.receive_untrusted(arrival(world, envelope), now=world.now)
        assert bravo.plane.drops[word] == 1
    assert bravo.plane.pairs.next_message() is None


def test_what_a_hop_key_opens_is_read_as_sealed_whatever_it_looks_like() -> None:
    world = met()
    bravo = world["bravo"]
    key_id = bravo.plane.own_card.hop_key_id
    payload = Paired(Pairing.RESUME, b"").encode()
    bravo.plane.receive_untrusted(arrival(world, carried(world, payload, key_id)), now=world.now)
    assert bravo.plane.pairs.next_message() is None
    assert bravo.plane.drops[Drop.BAD_SEAL] == 1


def test_messages_that_are_not_looked_at_are_bounded() -> None:
    world = met()
    bravo = world["bravo"]
    for number in range(MESSAGE_COUNT_MAX + 9):
        envelope = carried(world, Paired(Pairing.RESUME, number.to_bytes(2)).encode())
        bravo.plane.pairs.take(Paired.decode_untrusted(envelope.payload), arrival(world, envelope))
    messages = list(iter(bravo.plane.pairs.next_message, None))
    assert len(messages) == MESSAGE_COUNT_MAX
    assert messages[0].body == (9).to_bytes(2)


@pytest.mark.parametrize(
    "payload", [b"", b"\x83\x01\x00\x40", b"\x83\x01\x04\x40", b"\x83\x02\x01\x40", b"\x82\x01\x01"]
)
def test_what_is_no_message_of_a_pair_is_none(payload: bytes) -> None:
    assert Paired.find_untrusted(payload) is None
    with pytest.raises(RemoteProtocolError):
        Paired.decode_untrusted(payload)


def test_a_message_above_the_bound_is_not_made_nor_taken() -> None:
    large = Paired(Pairing.RESUME, bytes(PAIRED_BYTES_MAX))
    assert Paired.find_untrusted(large.encode()) == large
    assert Paired.find_untrusted(Paired(Pairing.RESUME, bytes(PAIRED_BYTES_MAX + 1)).encode()) is None
    with pytest.raises(LocalProtocolError):
        Paired(Pairing.RESUME, bytes(PAIRED_BYTES_MAX * 4)).encode()
