"""What an error says about a peer's bytes is fit for one line of a log."""

from __future__ import annotations

import pytest

from conflux import record
from conflux.control.lan.handshake import Greeting
from conflux.errors import DETAIL_CHARS_MAX, AuthError, RemoteProtocolError
from conflux.route.message import decode_message_untrusted


def test_detail_of_a_peers_error_is_cut_to_a_line() -> None:
    for error in (RemoteProtocolError("version", "x" * 100_000), AuthError("x" * 100_000)):
        assert len(str(error)) < DETAIL_CHARS_MAX + 30
    assert str(RemoteProtocolError("version", "x" * DETAIL_CHARS_MAX)).endswith("xx")


def test_detail_of_a_peers_error_moves_no_cursor_and_begins_no_line() -> None:
    assert str(RemoteProtocolError("malformed", "a\n<3>b\x1b[2J")) == "malformed: a\\n<3>b\\x1b[2J"


@pytest.mark.parametrize("item", [b"\xff" * 50, "x" * 50, [[]] * 40])
def test_a_version_that_is_no_number_is_not_shown(item: object) -> None:
    with pytest.raises(RemoteProtocolError) as raised:
        Greeting.decode_untrusted(record.encode([item]))
    assert str(raised.value) == "version: greeting of no version, this is 1"
    with pytest.raises(RemoteProtocolError) as raised:
        decode_message_untrusted(record.encode([item, b""]))
    assert str(raised.value) == "malformed: not a link message"
