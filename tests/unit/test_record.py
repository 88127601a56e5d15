"""Canonical CBOR: decode_untrusted() reads what encode() writes, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from conflux import record
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.record import Record, flag, nested, octets, optional, sequence, sint, text, uint


@dataclass(frozen=True, slots=True)
class Inner(Record):
    SHAPES = (uint(255),)

    number: int


@dataclass(frozen=True, slots=True)
class Outer(Record):
    VERSION = 3
    BYTES_MAX = 200
    SHAPES = (octets(2), text(8), optional(flag()), sequence(nested(Inner), 3), sint(1000))

    key: bytes
    name: str
    maybe: bool | None
    inners: tuple[Inner, ...]
    change: int


OUTER = Outer(b"ab", "board", None, (Inner(1), Inner(200)), -500)
OUTER_HEX = "86 03 426162 65626f617264 f6 82 820101 820118c8 3901f3"


def test_record_encodes_to_exactly_these_bytes():
    assert OUTER.encode() == bytes.fromhex(OUTER_HEX)


def test_record_decodes_to_the_same_record():
    assert Outer.decode_untrusted(bytes.fromhex(OUTER_HEX)) == OUTER


@pytest.mark.parametrize("size", range(len(bytes.fromhex(OUTER_HEX))))
def test_record_cut_short_is_refused(size):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        Outer.decode_untrusted(bytes.fromhex(OUTER_HEX)[:size])


def test_record_with_a_tail_is_refused():
    with pytest.raises(RemoteProtocolError, match="left over"):
        Outer.decode_untrusted(OUTER.encode() + b"\0")


def test_another_version_is_refused_by_name():
    with pytest.raises(RemoteProtocolError, match=r"version: outer of version 4, this is 3"):
        Outer.decode_untrusted(b"\x86\x04" + OUTER.encode()[2:])


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("long form of 1", "18 01"),
        ("long form of 255", "19 00ff"),
        ("long form of 65535", "1a 0000ffff"),
        ("long length of a string", "58 01 61"),
        ("indefinite string", "5f 41 61 ff"),
        ("indefinite array", "9f 01 ff"),
        ("map", "a1 01 02"),
        ("tag", "c0 60"),
        ("bignum", "c2 41 01"),
        ("regular expression", "d8 23 61 61"),
        ("shared reference", "d8 1c 80"),
        ("half float", "f9 3c00"),
        ("double", "fb 3ff0000000000000"),
        ("undefined", "f7"),
        ("simple value", "f8 20"),
        ("reserved head", "1c"),
        ("break alone", "ff"),
        ("text that is not UTF-8", "61 ff"),
        ("surrogate", "63 eda080"),
        ("nothing", ""),
        ("two values", "01 01"),
        ("array that promises too much", "9a 7fffffff"),
        ("string that promises too much", "5b 7fffffffffffffff 61"),
        ("nested too deeply", "81" * 50 + "01"),
    ],
)
def test_what_encode_never_writes_is_refused(what, data):
    with pytest.raises(RemoteProtocolError, match="malformed"):
        record.decode_untrusted(bytes.fromhex(data), bytes_max=1000)


def nested_lists(depth: int) -> bytes:
    return b"\x81" * depth + b"\x01"


def test_lists_nest_as_deep_as_the_bound_and_no_deeper():
    value = record.decode_untrusted(nested_lists(record.DEPTH_MAX), bytes_max=1000)
    for _ in range(record.DEPTH_MAX):
        (value,) = value
    assert value == 1
    with pytest.raises(RemoteProtocolError, match="nested too deeply"):
        record.decode_untrusted(nested_lists(record.DEPTH_MAX + 1), bytes_max=1000)


def test_oversized_input_is_refused_before_it_is_read():
    with pytest.raises(RemoteProtocolError, match="oversized"):
        record.decode_untrusted(b"\x5a\x00\x10\x00\x00" + bytes(2**20), bytes_max=1000)


def test_a_message_has_as_many_bytes_as_the_bound_and_no_more():
    data = record.encode([b"x" * 100])
    assert record.decode_untrusted(data, bytes_max=len(data)) == [b"x" * 100]
    with pytest.raises(RemoteProtocolError, match="oversized"):
        record.decode_untrusted(data, bytes_max=len(data) - 1)


def test_a_list_that_claims_more_items_than_the_bound_is_refused_by_its_head():
    head = b"\x99" + (record.ITEM_COUNT_MAX + 1).to_bytes(2)
    with pytest.raises(RemoteProtocolError, match="too many items"):
        record.decode_untrusted(head, bytes_max=1000)


def test_a_message_has_as_many_items_as_the_bound_and_no_more():
    count = record.ITEM_COUNT_MAX - 1  # the list itself is one
    assert len(record.decode_untrusted(record.encode([1] * count), bytes_max=10000)) == count
    with pytest.raises(RemoteProtocolError, match="too many items"):
        record.decode_untrusted(record.encode([1] * (count + 1)), bytes_max=10000)


@pytest.mark.parametrize(
    ("shape", "item"),
    [
        (octets(2), b"abc"),
        (octets(2), "ab"),
        (octets(1, 3), b""),
        (uint(5), 6),
        (uint(5), -1),
        (uint(5), True),
        (sint(5), -6),
        (text(3), "four"),
        (text(9), "line\nfeed"),
        (text(9), b"bytes"),
        (flag(), 1),
        (sequence(flag(), 1), [True, True]),
        (sequence(flag(), 1), "x"),
        (nested(Inner), [1]),
        (nested(Inner), []),
        (nested(Inner), 7),
    ],
)
def test_shape_refuses_what_is_not_of_it(shape, item):
    with pytest.raises(RemoteProtocolError):
        shape.load(item)


def test_our_own_oversized_record_is_our_bug():
    with pytest.raises(LocalProtocolError, match="at most 200"):
        Outer(b"ab", "x" * 300, None, (), 0).encode()
