from __future__ import annotations

import pytest

from conflux.control.drop import Drop
from conflux.control.nats.config import (
    HEADER_BYTES_MAX,
    INFO_BYTES_MAX,
    LINE_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    SKIPPED_BYTES_MAX,
)
from conflux.control.nats.protocol import Error, Info, Message, Ok, Ping, Pong, Said, ServerStream, Skipped
from conflux.errors import RemoteProtocolError

NOBODY = b"HMSG cx.u.x.y.nr 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"


def read(*pieces: bytes) -> list[Said]:
    stream = ServerStream()
    return [said for piece in pieces for said in stream.feed_untrusted(piece)]


SAYINGS = {
    b"PING\r\n": Ping(),
    b"PONG\r\n": Pong(),
    b"+OK\r\n": Ok(),
    b'INFO {"a":1} \r\n': Info(b'{"a":1}'),
    b"-ERR 'Stale Connection'\r\n": Error("Stale Connection"),
    b"-ERR\r\n": Error(""),
    b"-ERR \xff\r\n": Error("�"),
    b"MSG a.b 1 3\r\nxyz\r\n": Message("a.b", b"xyz"),
    b"MSG a.b 1 reply.to 3\r\nxyz\r\n": Message("a.b", b"xyz"),
    b"MSG a 9 0\r\n\r\n": Message("a", b""),
    b"MSG a 9 4\r\n\r\n\r\n\r\n": Message("a", b"\r\n\r\n"),
    NOBODY: Message("cx.u.x.y.nr", b"", 503),
    b"HMSG a 1 r 12 14\r\nNATS/1.0\r\n\r\nxy\r\n": Message("a", b"xy"),
    b"HMSG a 1 0 2\r\nxy\r\n": Message("a", b"xy"),
    b"HMSG a 1 28 28\r\nNATS/1.0 503 No Responders\r\n\r\n"[:-2] + b"\r\n": Message("a", b"", 503),
}


@pytest.mark.parametrize("data", SAYINGS)
def test_what_a_server_says_is_read_whole_in_single_bytes_and_twice(data):
    assert read(data) == [SAYINGS[data]]
    assert read(*(bytes([byte]) for byte in data)) == [SAYINGS[data]]
    assert read(data + data) == 2 * [SAYINGS[data]]
    assert read(data[:-1]) == []


def test_everything_in_a_row_is_read_in_order():
    assert read(b"".join(SAYINGS)) == list(SAYINGS.values())


def test_status_in_the_payload_is_none():
    assert read(b"MSG a 1 16\r\nNATS/1.0 503\r\n\r\n\r\n") == [Message("a", b"NATS/1.0 503\r\n\r\n")]


@pytest.mark.parametrize(
    "data",
    [
        b"HELLO\r\n",
        b"\r\n",
        b"MSG a 1\r\n",
        b"MSG a b c 1 3\r\n",
        b"MSG a 1 -3\r\n",
        b"MSG a x 3\r\n",
        b"MSG a 1 123456789\r\n",
        b"MSG a 1 %d\r\n" % (SKIPPED_BYTES_MAX + 1),
        b"MSG \xc3\xa4 1 3\r\n",
        b"MSG a\x00b 1 3\r\n",
        b"HMSG a 1 3\r\n",
        b"HMSG a 1 5 3\r\n",
        b"MSG a 1 3\r\nxyzz\r",
        b"MSG a 1 3\r\nxyz\n\n",
        b"x" * (LINE_BYTES_MAX + 1),
        b"PING" + b" " * LINE_BYTES_MAX + b"\r\n",
        b"INFO " + b"x" * INFO_BYTES_MAX,
        b"INFO " + b"x" * INFO_BYTES_MAX + b"\r\n",
    ],
)
def test_what_breaks_the_protocol_is_refused(data):
    with pytest.raises(RemoteProtocolError) as caught:
        read(data)
    assert caught.value.reason == Drop.MALFORMED


def test_line_without_end_is_not_kept():
    stream = ServerStream()
    list(stream.feed_untrusted(bytes(LINE_BYTES_MAX)))
    with pytest.raises(RemoteProtocolError):
        list(stream.feed_untrusted(b"ab"))


@pytest.mark.parametrize(
    ("line", "byte_count"),
    [
        (b"MSG a 1 %d\r\n" % (MESSAGE_BYTES_MAX + 1), MESSAGE_BYTES_MAX + 1),
        (b"HMSG a 1 %d %d\r\n" % (HEADER_BYTES_MAX + 1, HEADER_BYTES_MAX + 1), HEADER_BYTES_MAX + 1),
        (b"MSG a 1 %d\r\n" % SKIPPED_BYTES_MAX, SKIPPED_BYTES_MAX),
    ],
)
def test_message_too_long_for_an_envelope_is_skipped_and_not_kept(line, byte_count):
    stream = ServerStream()
    assert list(stream.feed_untrusted(line)) == []
    piece, said = bytes(min(byte_count, 1 << 20)), []
    for begin in range(0, byte_count, len(piece)):
        said += stream.feed_untrusted(piece[: byte_count - begin])
        assert len(stream._buffer) == 0
    said += stream.feed_untrusted(b"\r\nPING\r\n")
    assert said == [Skipped(byte_count), Ping()]


def test_largest_message_is_read():
    payload = bytes(MESSAGE_BYTES_MAX)
    assert read(b"MSG a 1 %d\r\n%s\r\n" % (len(payload), payload)) == [Message("a", payload)]


def test_rest_of_an_iterator_left_early_comes_with_the_next_bytes():
    stream = ServerStream()
    assert next(stream.feed_untrusted(b"PING\r\nPONG\r\n")) == Ping()
    assert list(stream.feed_untrusted(b"+OK\r\n")) == [Pong(), Ok()]
