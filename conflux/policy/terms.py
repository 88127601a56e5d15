"""The words of a rule file: who is meant by "tag:guest" or "10.20.1.0/24", and which flows by "tcp/8000-8100".

Two notes of one flow would let a rule be written that a reader takes for another one.  So each thing has one note: TCP
is "tcp" and never "ip/6", a prefix has no host bits, and a number has no zeros before it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from conflux.errors import ConfigError
from conflux.ids import NAME, NAME_CHARS_MAX, IPAddress

IPNetwork = IPv4Network | IPv6Network

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS = 0, 43, 44, 51, 60
EXTENSIONS = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS})  # stand before a protocol, are none
PORT_MAX = 65535
PROTOCOL_MAX = 255

_WITH_PORTS = {"tcp": TCP, "udp": UDP, "sctp": SCTP}
_ECHO = ((ICMP, 8), (ICMPV6, 128))  # the types of an echo request
_NAMED = {TCP: "tcp", UDP: "udp", SCTP: "sctp", ICMP: "icmp", ICMPV6: "icmp"}
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")
_FLOW_HINT = (
    'use "tcp/22", "tcp/8000-8100", "udp", "sctp", "icmp", "icmp/echo", "any", or "ip/47" for a protocol by its number'
)
_TERM_HINT = 'use "tag:NAME", the name of a node, "group:NAME", "members", "*", "exit" or a prefix as "10.20.1.0/24"'

# What no gateway has behind it.
_NEVER_BEHIND = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/3",
            "::/96",
            "::ffff:0:0/96",
            "fe80::/10",
            "ff00::/8",
        ),
    )
)
# An exit leads to what is in GLOBAL and not in NOT_GLOBAL: RFC 6890, and what the IANA registered since.
GLOBAL = (IPv4Network("0.0.0.0/0"), IPv6Network("2000::/3"))  # other IPv6 is of a site, of a link, or nowhere
NOT_GLOBAL = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
            *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
        ),
    )
)


class Kind(StrEnum):
    """What a term means."""

    TAG = "tag"
    NODE = "node"
    GROUP = "group"
    SUBNET = "subnet"
    MEMBERS = "members"  # those that the default covers
    EVERY = "*"  # every node
    EXIT = "exit"  # the internet, by a board that offers it


class Term(NamedTuple):
    """One side of a rule, or a part of it.  name: of a tag, node or group.  network: of a subnet."""

    kind: Kind
    name: str = ""
    network: IPNetwork | None = None

    def __str__(self) -> str:
        """Return the term as a rule file has it."""
        match self.kind:
            case Kind.TAG | Kind.GROUP:
                return f"{self.kind}:{self.name}"
            case Kind.NODE:
                return f"node:{self.name}" if self.name in _WORDS else self.name
            case Kind.SUBNET:
                return str(self.network)
            case _:
                return str(self.kind)


_WORDS = {str(kind): Term(kind) for kind in (Kind.MEMBERS, Kind.EVERY, Kind.EXIT)}


class Span(NamedTuple):
    """Flows from first to last, each as protocol << 16 | port; of ICMP the type stands for the port, else it is 0."""

    first: int
    last: int


ANY = Span(0, PROTOCOL_MAX << 16 | PORT_MAX)


def key_of(protocol: int, port: int) -> int:
    """Return a flow as spans have it.  port: of the destination, or the type of ICMP; 0 where there is neither."""
    return protocol << 16 | port


def parse_term(text: str) -> Term:
    """Return who is meant.  Raises ConfigError."""
    if text in _WORDS:
        return _WORDS[text]
    kind, colon, name = text.partition(":")
    if colon and kind in (Kind.TAG, Kind.NODE, Kind.GROUP):
        if NAME.fullmatch(name) is None:
            raise ConfigError(
                f"{_quoted(text)}: {_quoted(name)} is no name: a-z, 0-9 and '-', at most {NAME_CHARS_MAX}"
            )
        return Term(Kind(kind), name)
    if "/" in text:
        return Term(Kind.SUBNET, network=parse_subnet(text))
    if NAME.fullmatch(text) is None:
        raise ConfigError(f"{_quoted(text)} names nothing: {_address_hint(text) or _TERM_HINT}")
    return Term(Kind.NODE, text)


def parse_subnet(text: str) -> IPNetwork:
    """Return a subnet that a gateway may have behind it.  Raises ConfigError."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(f'{_quoted(text)} is no prefix: write "10.20.1.0/24" or "fd12:3456::/64"') from None
    if network.prefixlen == 0:
        raise ConfigError(f'{_quoted(text)} is everything: for the internet write "exit"')
    for other in _NEVER_BEHIND:
        if network.version == other.version and network.overlaps(other):
            raise ConfigError(f"{_quoted(text)} overlaps {other}, which is behind no gateway")
    if str(network) != text:
        raise ConfigError(f"{_quoted(text)} has bits after its length, or is written in another way: write {network}")
    return network


def parse_address(text: str) -> IPAddress:
    """Return the address of a host behind a gateway.  Raises ConfigError."""
    try:
        address = ip_address(text)
    except ValueError:
        raise ConfigError(f"{_quoted(text)} is no address") from None
    if str(address) != text:
        raise ConfigError(f"{_quoted(text)}: write {address}")
    parse_subnet(f"{address}/{address.max_prefixlen}")
    return address


def parse_flow(text: str) -> tuple[Span, ...]:
    """Return the flows that a text means, in order.  Raises ConfigError."""
    word, slash, rest = text.partition("/")
    if word in _WITH_PORTS:
        first, last = _ports(text, rest) if slash else (0, PORT_MAX)
        return (Span(key_of(_WITH_PORTS[word], first), key_of(_WITH_PORTS[word], last)),)
    if text == "any":
        return (ANY,)
    if text == "icmp":
        return tuple(Span(key_of(each, 0), key_of(each, PORT_MAX)) for each in (ICMP, ICMPV6))
    if text == "icmp/echo":
        return tuple(Span(key_of(*each), key_of(*each)) for each in _ECHO)
    if slash and word == "ip" and _NUMBER.fullmatch(rest):
        return (_protocol(text, int(rest)),)
    if _NUMBER.fullmatch(text):
        raise ConfigError(f'"{text}": for a port write "tcp/{text}" or "udp/{text}", for a protocol "ip/{text}"')
    if slash and word == "any":
        raise ConfigError(f'{_quoted(text)}: "any" has no ports')
    raise ConfigError(f"{_quoted(text)} is no flow: {_FLOW_HINT}")


def _ports(text: str, rest: str) -> tuple[int, int]:
    first, dash, last = rest.partition("-")
    numbers = [int(each) if _NUMBER.fullmatch(each) else -1 for each in ((first, last) if dash else (first,))]
    if not all(1 <= each <= PORT_MAX for each in numbers):
        raise ConfigError(f"{_quoted(text)}: a port is a whole number from 1 to {PORT_MAX}, two with '-' are a range")
    if numbers[0] > numbers[-1] or (dash and numbers[0] == numbers[1]):
        raise ConfigError(f"{_quoted(text)}: a range goes from the lower port to a higher one")
    return numbers[0], numbers[-1]


def _protocol(text: str, number: int) -> Span:
    if number in _NAMED:
        raise ConfigError(f'"{text}": write "{_NAMED[number]}"')
    if number > PROTOCOL_MAX:
        raise ConfigError(f'"{text}": a protocol is a whole number up to {PROTOCOL_MAX}')
    if number in EXTENSIONS:
        raise ConfigError(f'"{text}" is a header of IPv6 that stands before a protocol')
    return Span(key_of(number, 0), key_of(number, PORT_MAX))


def merged(spans: list[Span]) -> list[Span]:
    """Return the same flows in as few spans as can be, in order."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.first <= found[-1].last + 1:
            found[-1] = Span(found[-1].first, max(found[-1].last, span.last))
        else:
            found.append(span)
    return found


def covered(span: Span, by: list[Span]) -> bool:
    """Say whether every flow of span is in others.  by: as merged() returns them."""
    return any(other.first <= span.first and span.last <= other.last for other in by)


def _address_hint(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return ""
    return f"for one host behind a gateway write {address}/{address.max_prefixlen}"


def _quoted(text: str) -> str:
    return f'"{text if len(text) <= NAME_CHARS_MAX else text[:NAME_CHARS_MAX] + "..."}"'
