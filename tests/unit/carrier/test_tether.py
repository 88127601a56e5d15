"""The names of a tether's channels on the wire."""

from __future__ import annotations

import pytest

from conflux.carrier.interface import TETHER_CHANNEL_COUNT_MAX
from conflux.carrier.tether import Place, channel_protocol, parse_protocol_untrusted
from conflux.ids import TetherId

TETHER = TetherId(bytes.fromhex("0123456789abcdef"))


@pytest.mark.parametrize("count", [1, TETHER_CHANNEL_COUNT_MAX])
def test_every_channel_is_named_by_its_place(count: int) -> None:
    for index in range(count):
        assert parse_protocol_untrusted(channel_protocol(TETHER, index, count)) == Place(TETHER, index, count)


def test_place_in_a_tether_with_a_channel_too_many_is_refused() -> None:
    assert parse_protocol_untrusted(channel_protocol(TETHER, 0, TETHER_CHANNEL_COUNT_MAX + 1)) is None


@pytest.mark.parametrize(
    "protocol", ["", "x", "0123456789abcdef/0/0", "0123456789abcdef/1/1", "0123456789abcdef/0/1\n"]
)
def test_protocol_fields_that_name_no_channel_are_refused(protocol: str) -> None:
    assert parse_protocol_untrusted(protocol) is None
