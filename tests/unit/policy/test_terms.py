"""Words of a rule file: each thing has one note, and what is none is refused with what may stand there."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from conflux.errors import ConfigError
from conflux.policy.terms import (
    ANY,
    Kind,
    Span,
    Term,
    covered,
    key_of,
    merged,
    parse_address,
    parse_flow,
    parse_subnet,
    parse_term,
)


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("tcp/22", [(6, 22, 22)]),
        ("tcp/8000-8100", [(6, 8000, 8100)]),
        ("udp/1-65535", [(17, 1, 65535)]),
        ("sctp", [(132, 0, 65535)]),
        ("icmp", [(1, 0, 65535), (58, 0, 65535)]),
        ("icmp/echo", [(1, 8, 8), (58, 128, 128)]),
        ("ip/47", [(47, 0, 65535)]),
        ("ip/255", [(255, 0, 65535)]),
    ],
)
def test_a_flow_is_a_protocol_with_or_without_ports(text, spans):
    assert parse_flow(text) == tuple(Span(key_of(each, first), key_of(each, last)) for each, first, last in spans)


def test_any_is_every_protocol():
    assert parse_flow("any") == (ANY,)
    assert Span(0, key_of(255, 65535)) == ANY


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tcp/0", "from 1 to 65535"),
        ("tcp/65536", "from 1 to 65535"),
        ("tcp/022", "from 1 to 65535"),
        ("tcp/\u0662\u0662", "from 1 to 65535"),
        ("tcp/", "from 1 to 65535"),
        ("tcp/1-2-3", "from 1 to 65535"),
        ("tcp/9-8", "from the lower port"),
        ("tcp/8-8", "from the lower port"),
        ("tpc/22", 'use "tcp/22"'),
        ("TCP/22", 'use "tcp/22"'),
        ("ip/6", 'write "tcp"'),
        ("ip/58", 'write "icmp"'),
        ("ip/256", "up to 255"),
        ("ip/44", "header of IPv6"),
        ("ip/047", 'use "tcp/22"'),
        ("ip", 'use "tcp/22"'),
        ("22", 'for a port write "tcp/22" or "udp/22", for a protocol "ip/22"'),
        ("any/9", '"any" has no ports'),
        ("icmp/9", 'use "tcp/22"'),
        ("", 'use "tcp/22"'),
    ],
)
def test_what_is_no_flow_is_refused_with_what_may_stand_there(text, words):
    with pytest.raises(ConfigError, match=r'"') as caught:
        parse_flow(text)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["tag:guest", "printer", "group:press", "members", "*", "exit", "10.20.1.0/24"])
def test_a_term_is_written_as_it_is_read(text):
    assert str(parse_term(text)) == text


def test_a_node_may_have_the_name_of_a_word():
    assert parse_term("node:exit") == Term(Kind.NODE, "exit")
    assert str(Term(Kind.NODE, "exit")) == "node:exit"
    assert parse_term("exit").kind is Kind.EXIT
    assert parse_term("node:printer") == parse_term("printer")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tag:", "is no name"),
        ("tag:Guest", "is no name"),
        ("tags:guest", 'use "tag:NAME"'),
        ("Printer", 'use "tag:NAME"'),
        ("", 'use "tag:NAME"'),
        ("10.0.0.1", "write 10.0.0.1/32"),
        ("fd00::1", "write fd00::1/128"),
        ("10.0.0.1/24", "write 10.0.0.0/24"),
        ("10.0.0.0/255.255.255.0", "write 10.0.0.0/24"),
        ("fd00:0::/64", "write fd00::/64"),
        ("10.0.0.0/33", "is no prefix"),
        ("0.0.0.0/0", 'write "exit"'),
        ("::/0", 'write "exit"'),
        ("0.0.0.0/1", "overlaps 0.0.0.0/8"),
        ("127.0.0.1/32", "overlaps 127.0.0.0/8"),
        ("169.254.0.0/16", "overlaps 169.254.0.0/16"),
        ("239.0.0.0/8", "overlaps 224.0.0.0/3"),
        ("fe80::/64", "overlaps fe80::/10"),
        ("ff02::/16", "overlaps ff00::/8"),
        ("::ffff:10.0.0.0/104", "overlaps ::ffff:0:0/96"),
    ],
)
def test_what_is_no_term_is_refused_with_what_may_stand_there(text, words):
    with pytest.raises(ConfigError, match=r'"') as caught:
        parse_term(text)
    assert words in str(caught.value).replace("::ffff:0.0.0.0/96", "::ffff:0:0/96")


def test_an_address_of_a_check_has_one_note():
    assert parse_address("10.20.1.17") == ip_address("10.20.1.17")
    for text in ("010.20.1.17", "fd00:0::1", "::ffff:10.0.0.1", "127.0.0.1", "fe80::1%eth0", "x"):
        with pytest.raises(ConfigError, match=r'"'):
            parse_address(text)


def test_prefixes_that_nothing_is_behind_are_refused_whole():
    assert str(parse_subnet("128.0.0.0/9")) == "128.0.0.0/9"
    with pytest.raises(ConfigError, match=r"overlaps 169\.254"):
        parse_subnet("128.0.0.0/2")


def test_spans_are_merged_where_they_meet():
    assert merged([Span(5, 9), Span(1, 3), Span(4, 4), Span(20, 30), Span(22, 25)]) == [Span(1, 9), Span(20, 30)]
    assert covered(Span(2, 9), [Span(1, 9)])
    assert not covered(Span(9, 10), [Span(1, 9), Span(11, 12)])
