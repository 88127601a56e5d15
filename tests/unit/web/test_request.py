"""What the page's server takes as a request, and which Host it takes for its own."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from conflux.web.request import FIELD_COUNT_MAX, HEAD_BYTES_MAX, Refused, Request, parse_untrusted, require_ours

NAMES = {"localhost", "attic", "attic.local"}
ADDRESSES = {ip_address("127.0.0.1"), ip_address("192.168.1.7"), ip_address("fd29::1")}


def head(line: str = "GET / HTTP/1.1", *fields: str) -> bytes:
    return "\r\n".join((line, *(fields or ("Host: attic",)))).encode()


def refusal(data: bytes) -> int:
    with pytest.raises(Refused) as caught:
        parse_untrusted(data)
    assert caught.value.text
    return caught.value.status


@pytest.mark.parametrize(
    ("data", "request_"),
    [
        (head(), Request("/", "attic", True)),
        (head("HEAD /metrics HTTP/1.0"), Request("/metrics", "attic", False)),
        (
            head("GET /state.json?x=1&y=/.. HTTP/1.1", "Host: ATTIC.local.:7480"),
            Request("/state.json", "attic.local", True),
        ),
        (head("GET / HTTP/1.1", "host:[fd29::1]:7480", "Content-Length: 0"), Request("/", "fd29::1", True)),
        (head("GET / HTTP/1.1", "Accept:", "Host: 127.0.0.1", "Cookie: a=b"), Request("/", "127.0.0.1", True)),
    ],
)
def test_a_request_is_its_path_its_host_and_whether_a_body_is_wanted(data, request_):
    assert parse_untrusted(data) == request_


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),  # TLS
        (b"GET / HTTP/1.1\nHost: attic", 400),
        (b"GET / HTTP/1.1\r\nHost: attic\nX: y", 400),
        (head("GET / HTTP/2"), 400),
        (head("GET  / HTTP/1.1"), 400),
        (head("GET http://attic/ HTTP/1.1"), 400),
        (head("GET /\x00 HTTP/1.1"), 400),
        (head("GET /\xe9 HTTP/1.1"), 400),
        (head("get / HTTP/1.1"), 400),
        (head("POST / HTTP/1.1"), 405),
        (head("OPTIONS / HTTP/1.1"), 405),
        (head("CONNECT / HTTP/1.1"), 405),
        (head("GET / HTTP/1.1", "Accept: x"), 400),  # no Host
        (head("GET / HTTP/1.0", "Accept: x"), 400),  # nor in HTTP/1.0
        (head("GET / HTTP/1.1", "Host: attic", "Host: attic"), 400),
        (head("GET / HTTP/1.1", "Host:"), 400),
        (head("GET / HTTP/1.1", "Host: attic:port"), 400),
        (head("GET / HTTP/1.1", "Host: attic/evil"), 400),
        (head("GET / HTTP/1.1", "Host: user@attic"), 400),
        (head("GET / HTTP/1.1", "Host : attic"), 400),
        (head("GET / HTTP/1.1", "Host: attic", " folded"), 400),
        (head("GET / HTTP/1.1", "Host: attic", "Content-Length: 5"), 400),
        (head("GET / HTTP/1.1", "Host: attic", "Transfer-Encoding: chunked"), 400),
        (head("GET / HTTP/1.1", "Host: attic", *["X: y"] * FIELD_COUNT_MAX), 431),
        (head("GET /" + "a" * HEAD_BYTES_MAX + " HTTP/1.1"), 431),
    ],
)
def test_what_is_no_plain_request_is_refused(data, status):
    assert refusal(data) == status


def test_no_text_of_a_request_stands_in_the_answer():
    with pytest.raises(Refused) as caught:
        parse_untrusted(head("GET /<script> HTTP/9"))
    assert "script" not in caught.value.text


@pytest.mark.parametrize(
    "host", ["localhost", "attic", "attic.local", "127.0.0.1", "192.168.1.7", "fd29::1", "fd29:0::1"]
)
def test_a_host_of_this_board_is_ours(host):
    require_ours(host, NAMES, ADDRESSES)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "attic.evil.example", "127.0.0.1.evil.example", "192.168.1.8", "0x7f000001", "127.1", "::1", ""],
)
def test_a_foreign_host_is_refused_as_dns_rebinding_has_one(host):
    with pytest.raises(Refused) as caught:
        require_ours(host, NAMES, ADDRESSES)
    assert caught.value.status == 421
