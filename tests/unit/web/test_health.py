"""What the page takes for findings of the doctor."""

from __future__ import annotations

import pytest

from conflux.api.server import encode
from conflux.cli.doctor import Examined
from conflux.doctor.finding import Check, bad, good
from conflux.web.health import Finding, parse


def test_what_the_doctor_prints_is_read():
    printed = encode(Examined(False, (good(Check.TUN, "it is there"), bad(Check.CLOCK, "it is wrong", "set it"))))
    assert parse(printed) == (
        Finding("tun", "good", "it is there", ""),
        Finding("clock", "bad", "it is wrong", "set it"),
    )


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"[]",
        b"{}",
        b'{"findings": 1}',
        b'{"findings": [{}]}',
        b'{"findings": [{"check": "tun"}]}',
        b"\xff",
        b"[" * 10**5,
    ],
)
def test_anything_else_is_no_findings(output):
    with pytest.raises(ValueError, match="no findings"):
        parse(output)
