from __future__ import annotations

import ssl

import pytest

from conflux.control.nats.config import SAID_CHARS_MAX
from conflux.control.nats.end import ConnectError, End, connect_error, end_of, quoted


@pytest.mark.parametrize(
    ("said", "end"),
    [
        ("Authorization Violation", End.NOT_ADMITTED),
        ("User Authentication Expired", End.EXPIRED),
        ("User Authentication Revoked", End.REVOKED),
        ("maximum payload violation", End.LIMIT),
        ("maximum connections exceeded", End.FULL),
        ("Slow Consumer", End.SLOW),
        ('Permissions Violation for Publish to "cx.p.main.U"', None),
        ("x" * 10000, None),
        ("", None),
    ],
)
def test_what_a_server_says_before_it_closes_is_sorted(said, end):
    assert end_of(said) is end


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (ConnectError(End.OPEN), End.OPEN),
        (TimeoutError(), End.SILENT),
        (ConnectionRefusedError(111, "Connection refused"), End.UNREACHABLE),
        (ConnectionResetError(), End.LOST),
        (ssl.SSLError(1, "wrong"), End.TLS),
        (OSError(113, "No route to host"), End.UNREACHABLE),
        (ValueError("any text of a server"), End.MALFORMED),
        (Exception("nats: 'Authorization Violation'"), End.NOT_ADMITTED),
    ],
)
def test_exceptions_of_others_become_one_of_ours(error, end):
    found = connect_error(error)
    assert found.end is end
    assert "any text" not in str(found)


def test_only_a_refusal_needs_another_credential():
    assert {end for end in End if end.is_refusal} == {End.NOT_ADMITTED, End.EXPIRED, End.REVOKED}


def test_quotation_is_short_and_acts_on_no_terminal():
    assert quoted("a\x1b[2Jb\n") == "a?[2Jb?"
    assert len(quoted("x" * 10000)) == SAID_CHARS_MAX
