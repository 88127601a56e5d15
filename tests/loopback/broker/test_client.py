"""The client that asks a broker: whatever a server sends, it raises what its callers expect, and keeps its bounds."""

from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conflux.broker.client import LINE_BYTES_MAX, PAYLOAD_BYTES_MAX, Client, Message, ServerError
from conflux.errors import RemoteProtocolError


def hear(data: bytes) -> list[Message]:
    """Return what a client makes of what a server sends before it closes."""
    mine, theirs = socket.socketpair()
    with mine, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        return Client(mine).flush(1.0)


def test_messages_with_and_without_reply_and_headers_are_read():
    sent = (
        b"MSG a 1 5\r\nhello\r\nMSG a 1 b 0\r\n\r\nHMSG c 1 28 28\r\nNATS/1.0 503 No Responders\r\n\r\n"[:-2]
        + b"\r\n"
        + b"HMSG d 2 e 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"
        b"PING\r\n+OK\r\nINFO {}\r\nPONG\r\n"
    )
    found = hear(sent)
    assert found[0] == ("a", "", None, b"hello")
    assert found[1] == ("a", "b", None, b"")
    assert (found[2].subject, found[2].status) == ("c", 503)
    assert found[3] == ("d", "e", None, b"hi")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"-ERR 'Authorization Violation'\r\n", "the server says: Authorization Violation"),
        (b"HELLO\r\n", "the server sent 'HELLO'"),
        (b"MSG\r\n", "without its sizes"),
        (b"MSG a 1 -5\r\n", "without its sizes"),
        (b"MSG a 1 5 6 7\r\n", "without its sizes"),
        ("MSG a 1 \u0665\r\n".encode(), "without its sizes"),
        (b"MSG a 1 %d\r\n" % (PAYLOAD_BYTES_MAX + 1), "a message of"),
        (b"HMSG a 1 9 5\r\n", "9 of headers"),
        (b"INFO []\r\n", "INFO without an object"),
        (b"INFO " + b"[" * 60000 + b"\r\n", "INFO without an object"),
        (b"MSG a 1 5\r\nhel", "closed the connection"),
        (b"", "closed the connection"),
    ],
)
def test_what_is_no_answer_is_told_apart(data, told):
    with pytest.raises((RemoteProtocolError, ServerError, ConnectionError), match=told):
        hear(data)


def test_what_a_server_says_does_nothing_to_a_terminal():
    with pytest.raises(ServerError) as caught:
        hear(b"-ERR '\x1b]0;x\x07\x9b2J" + b"x" * 4000 + b"'\r\n")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 120


def test_a_line_without_an_end_is_not_read_for_ever():
    mine, theirs = socket.socketpair()
    with mine, theirs:
        theirs.setblocking(False)
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 3 * LINE_BYTES_MAX:
                sent += theirs.send(b"x" * LINE_BYTES_MAX)
        with pytest.raises(RemoteProtocolError, match="a line without an end"):
            Client(mine).flush(2.0)


def test_a_server_that_is_silent_is_not_waited_for():
    mine, theirs = socket.socketpair()
    with mine, theirs, pytest.raises(TimeoutError):
        Client(mine).flush(0.05)


PIECES = st.sampled_from(
    [b"MSG ", b"HMSG ", b"PING", b"PONG", b"+OK", b"-ERR 'x'", b"INFO {}", b"a", b" 1 ", b"5", b" ", b"\r\n", b"hello"]
)


@given(st.binary(max_size=200) | st.lists(PIECES, max_size=20).map(b"".join))
@settings(max_examples=200)
def test_any_bytes_are_messages_or_one_of_three_errors(data):
    try:
        found = hear(data)
    except (RemoteProtocolError, ServerError, OSError):
        return
    assert all(isinstance(message, Message) for message in found)
