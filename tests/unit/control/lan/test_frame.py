"""Frames in the TLS stream."""

from __future__ import annotations

import pytest

from conflux.control.lan.frame import BODY_BYTES_MAX, FrameReader, FrameType, encode_frame
from conflux.errors import LocalProtocolError, RemoteProtocolError


def test_frame_is_length_type_and_body() -> None:
    assert encode_frame(FrameType.ENVELOPE, b"xyz").hex(" ") == "00 03 10 78 79 7a"
    assert encode_frame(FrameType.PING).hex(" ") == "00 00 11"


def test_largest_frame_passes_and_a_larger_one_is_refused_from_its_header() -> None:
    reader = FrameReader()
    reader.feed(encode_frame(FrameType.ENVELOPE, bytes(BODY_BYTES_MAX)))
    assert reader.take_untrusted() == (FrameType.ENVELOPE, bytes(BODY_BYTES_MAX))
    reader.feed((BODY_BYTES_MAX + 1).to_bytes(2, "big") + b"\x10")
    with pytest.raises(RemoteProtocolError, match="oversized"):
        reader.take_untrusted()
    with pytest.raises(LocalProtocolError):
        encode_frame(FrameType.ENVELOPE, bytes(BODY_BYTES_MAX + 1))


def test_unknown_frame_type_is_refused() -> None:
    reader = FrameReader()
    reader.feed(b"\x00\x01\x63x")
    with pytest.raises(RemoteProtocolError, match="malformed"):
        reader.head_untrusted()


def test_frames_come_one_at_a_time_and_a_head_before_its_body() -> None:
    reader = FrameReader()
    reader.feed(encode_frame(FrameType.PING) + encode_frame(FrameType.ENVELOPE, b"xyz")[:-1])
    assert reader.take_untrusted() == (FrameType.PING, b"")
    assert reader.head_untrusted() == (FrameType.ENVELOPE, 3, False)
    assert reader.take_untrusted() is None
    reader.feed(b"z")
    assert reader.take_untrusted() == (FrameType.ENVELOPE, b"xyz")
    assert reader.head_untrusted() is None
