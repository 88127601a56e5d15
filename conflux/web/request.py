"""What a reader sends, taken apart: one GET or HEAD without a body, and the Host that it thinks it talks to.

The Host is checked because of DNS rebinding.  A page of an attacker, loaded under the attacker's name, may have that
name point at this board afterwards; the browser then lets it read what the board answers.  What it cannot change is the
name in the Host header.  An address there is safe: who is reached by address is who was meant.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum
from ipaddress import ip_address
from typing import Final, NamedTuple

from conflux.errors import RemoteProtocolError
from conflux.ids import IPAddress

HEAD_BYTES_MAX: Final = 8192  # chosen: browsers send less than 1000, and some proxies add cookies of theirs
FIELD_COUNT_MAX: Final = 64
HEAD_END: Final = b"\r\n\r\n"

_LINE: Final = re.compile(r"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.([01])")
_FIELD: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~]*)")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,255})(?::[0-9]{1,5})?")

PHRASES: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class Turned(StrEnum):
    """Why a reader was turned away."""

    CROWD = "crowd"  # it, or all, had too many connections
    SLOW = "slow"  # it took too long to ask, or to take the answer
    STRANGER = "stranger"  # it has a public address
    REQUEST = "request"  # a foreign Host, a method that changes something, no HTTP


class Refused(RemoteProtocolError):
    """A request that gets an error.  status: that of HTTP.  text: one sentence for a person."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"http-{status}", text)
        self.status = status
        self.text = text


class Request(NamedTuple):
    """A request for one path.  with_body: GET; else HEAD.  host: of the Host header, lower case, without the port."""

    path: str
    host: str
    with_body: bool


def parse_untrusted(head: bytes) -> Request:
    """Return the request that head is: all up to the empty line, without that.  Raises Refused."""
    if len(head) > HEAD_BYTES_MAX:
        raise Refused(431, f"the request is larger than {HEAD_BYTES_MAX} bytes")
    try:
        first, *lines = head.decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        raise Refused(400, "the request is not ASCII") from None
    asked = _LINE.fullmatch(first)
    if asked is None:
        raise Refused(400, "the request does not begin with a line of HTTP/1.1")
    if len(lines) > FIELD_COUNT_MAX:
        raise Refused(431, f"the request has more than {FIELD_COUNT_MAX} header fields")
    method, target, _ = asked.groups()
    if method not in ("GET", "HEAD"):
        raise Refused(405, "this page is for reading: GET and HEAD alone")
    return Request(target.partition("?")[0], _host(_fields(lines)), method == "GET")


def _fields(lines: list[str]) -> list[tuple[str, str]]:
    fields = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise Refused(400, "a header field is malformed")
        name, value = field[1].lower(), field[2].strip(" \t")
        if name == "transfer-encoding" or (name == "content-length" and value != "0"):
            raise Refused(400, "a request to this page has no body")
        fields.append((name, value))
    return fields


def _host(fields: list[tuple[str, str]]) -> str:
    hosts = [value for name, value in fields if name == "host"]
    host = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if host is None:
        raise Refused(400, "the request needs one Host header with a name or an address")
    return host[1].lower().strip("[]").rstrip(".")


def require_ours(host: str, names: Collection[str], addresses: Collection[IPAddress]) -> None:
    """Raise Refused unless host is one of this board's names or addresses.  names: in lower case."""
    try:
        is_ours = ip_address(host) in addresses
    except ValueError:
        is_ours = host in names
    if not is_ours:
        raise Refused(421, "this board has no such name: open the page by its address, or add the name to page.names")
