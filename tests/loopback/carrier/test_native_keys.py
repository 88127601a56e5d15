"""Links whose ends have keys already: no DTLS handshake, and the same records under those keys."""

from __future__ import annotations

import asyncio

import pytest
from kit.carrier import LEFT, RIGHT, describe, open_tether, sides

from conflux.anchor import frame
from conflux.carrier.interface import Connect, ControlArrived, LinkKeys, Opened, SendControl
from conflux.carrier.native import dtls_keys
from conflux.errors import LocalProtocolError


def given(aead: int) -> tuple[LinkKeys, LinkKeys]:
    """Return the keys of a link for both of its ends."""
    out, in_, iv_out, iv_in = (bytes([number]) * size for number, size in ((1, 32), (2, 32), (3, 12), (4, 12)))
    return LinkKeys(aead, out, in_, iv_out, iv_in), LinkKeys(aead, in_, out, iv_in, iv_out)


@pytest.mark.parametrize("aead", [frame.AES_256_GCM, frame.CHACHA20_POLY1305])
async def test_ends_that_have_a_links_keys_open_it_without_a_handshake(
    aead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("there was a handshake")

    monkeypatch.setattr(dtls_keys, "take_keys", refuse)
    async with sides("native", "native") as (left, right):
        ours, theirs = await describe(left, right)
        of_left, of_right = given(aead)
        right.carrier.perform(Connect(RIGHT, ours, of_right))
        left.carrier.perform(Connect(LEFT, theirs, of_left))
        await left.event(Opened)
        await right.event(Opened)
        left.carrier.perform(SendControl(LEFT, b"from left"))
        right.carrier.perform(SendControl(RIGHT, b"from right"))
        assert (await left.event(ControlArrived)).data == b"from right"
        assert (await right.event(ControlArrived)).data == b"from left"
        await open_tether(left, right)


async def test_ends_with_other_keys_of_a_link_hear_nothing_of_each_other() -> None:
    async with sides("native", "native") as (left, right):
        ours, theirs = await describe(left, right)
        of_left, of_right = given(frame.CHACHA20_POLY1305)
        right.carrier.perform(Connect(RIGHT, ours, of_right._replace(key_in=bytes(32))))
        left.carrier.perform(Connect(LEFT, theirs, of_left))
        await left.event(Opened)
        while not right.drops("dtls-auth"):  # noqa: ASYNC110  # the engine counts and reports nothing
            await asyncio.sleep(0.01)
        assert not [event for event in right.events if isinstance(event, Opened)]


async def test_a_carrier_that_takes_no_keys_refuses_them() -> None:
    async with sides("rtc", "rtc") as (left, right):
        _, theirs = await describe(left, right)
        with pytest.raises(LocalProtocolError):
            left.carrier.perform(Connect(LEFT, theirs, given(frame.AES_256_GCM)[0]))
