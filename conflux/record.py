"""Strict canonical CBOR (RFC 8949, section 4.2.1): the one encoding of every message and record that is not a frame.

A record is a frozen dataclass with a shape for each field; encoded it is the array [version, field, field, ...].
Bytes that encode() would not have written are refused, so a signature over the bytes is a signature over the meaning.
Tags, floats, indefinite lengths and long forms never reach the CBOR library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import cbor2

from conflux.errors import LocalProtocolError, RemoteProtocolError

DEPTH_MAX = 8  # chosen; the deepest record of ours nests 4
ITEM_COUNT_MAX = 4096  # per message; bounds the objects that one message makes us allocate

R = TypeVar("R", bound="Record")


def encode(value: object) -> bytes:
    """Return the canonical encoding of ints, bytes, text, lists, tuples, bools and None."""
    return cbor2.dumps(value, canonical=True)


def decode_untrusted(data: bytes, *, bytes_max: int) -> Any:
    """Return the value that data encodes.

    Raises RemoteProtocolError("oversized") above bytes_max and ("malformed") for anything but canonical CBOR of the
    types encode() takes.
    """
    if len(data) > bytes_max:
        raise RemoteProtocolError("oversized", f"{len(data)} bytes, at most {bytes_max}")
    _check_canonical(data)
    try:
        return cbor2.loads(data)
    except (cbor2.CBORDecodeError, UnicodeDecodeError, ValueError) as error:
        raise RemoteProtocolError("malformed", str(error)) from None


def _check_canonical(data: bytes) -> None:
    """Refuse what encode() never writes.  Only heads are read: types, shortest lengths, depth, item count, the end."""
    end = len(data)
    position = 0
    count = 0
    open_items = [1]  # items still owed at each depth
    while open_items:
        if open_items[-1] == 0:
            open_items.pop()
            continue
        open_items[-1] -= 1
        count += 1
        if count > ITEM_COUNT_MAX:
            raise RemoteProtocolError("malformed", "too many items")
        if position >= end:
            raise RemoteProtocolError("malformed", "truncated")
        major, info = data[position] >> 5, data[position] & 31
        position += 1
        if major == 7:
            if info not in (20, 21, 22):  # false, true, null
                raise RemoteProtocolError("malformed", "float or simple value")
            continue
        argument, position = _argument(data, position, info)
        match major:
            case 0 | 1:
                pass
            case 2 | 3:
                position += argument
                if position > end:
                    raise RemoteProtocolError("malformed", "truncated")
            case 4:
                if len(open_items) > DEPTH_MAX:
                    raise RemoteProtocolError("malformed", "nested too deeply")
                if argument > ITEM_COUNT_MAX:
                    raise RemoteProtocolError("malformed", "too many items")
                open_items.append(argument)
            case _:
                raise RemoteProtocolError("malformed", "map or tag")
    if position != end:
        raise RemoteProtocolError("malformed", "bytes left over")


def _argument(data: bytes, position: int, info: int) -> tuple[int, int]:
    """Return the argument of a head and the position after it; refuse any but the shortest form."""
    if info < 24:
        return info, position
    if info > 27:
        raise RemoteProtocolError("malformed", "indefinite length")
    size = 1 << (info - 24)
    if position + size > len(data):
        raise RemoteProtocolError("malformed", "truncated")
    argument = int.from_bytes(data[position : position + size], "big")
    least = 24 if size == 1 else 1 << (4 * size)
    if argument < least:
        raise RemoteProtocolError("malformed", "not the shortest form")
    return argument, position + size


class Shape(NamedTuple):
    """How one field is encoded.  load: from a decoded item, or RemoteProtocolError; dump: back to an item."""

    load: Callable[[Any], Any]
    dump: Callable[[Any], Any] = lambda value: value


def _refuse(what: str) -> RemoteProtocolError:
    return RemoteProtocolError("malformed", f"expected {what}")


def octets(size_min: int, size_max: int | None = None) -> Shape:
    """Bytes: exactly size_min, or from size_min to size_max."""
    top = size_min if size_max is None else size_max

    def load(item: Any) -> bytes:
        if type(item) is not bytes or not size_min <= len(item) <= top:
            raise _refuse(f"{size_min} to {top} bytes")
        return item

    return Shape(load)


def uint(top: int = 2**64 - 1) -> Shape:
    """An integer from 0 to top."""

    def load(item: Any) -> int:
        if type(item) is not int or not 0 <= item <= top:
            raise _refuse(f"an integer of at most {top}")
        return item

    return Shape(load)


def sint(bound: int) -> Shape:
    """An integer from -bound to bound."""

    def load(item: Any) -> int:
        if type(item) is not int or not -bound <= item <= bound:
            raise _refuse(f"an integer within {bound}")
        return item

    return Shape(load)


def text(size_max: int) -> Shape:
    """Text of at most size_max characters, all printable."""

    def load(item: Any) -> str:
        if type(item) is not str or len(item) > size_max or not item.isprintable():
            raise _refuse(f"printable text of at most {size_max} characters")
        return item

    return Shape(load)


def flag() -> Shape:
    """A boolean."""

    def load(item: Any) -> bool:
        if type(item) is not bool:
            raise _refuse("a boolean")
        return item

    return Shape(load)


def optional(shape: Shape) -> Shape:
    """The shape, or None."""
    return Shape(
        lambda item: None if item is None else shape.load(item),
        lambda value: None if value is None else shape.dump(value),
    )


def sequence(shape: Shape, count_max: int) -> Shape:
    """A tuple of at most count_max items of one shape."""

    def load(item: Any) -> tuple[Any, ...]:
        if type(item) is not list or len(item) > count_max:
            raise _refuse(f"a list of at most {count_max}")
        return tuple(shape.load(entry) for entry in item)

    return Shape(load, lambda value: [shape.dump(entry) for entry in value])


def nested(record: type[Record]) -> Shape:
    """Another record."""
    return Shape(record._from_item, lambda value: value._to_item())


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """Base of every record.

    A subclass is a frozen, slotted dataclass with SHAPES in the order of its fields, and a VERSION.  A record whose
    meaning changes gets a new VERSION.  EARLIER is for records in files of our own: how many of today's fields an
    earlier version had; the others get their defaults.
    """

    VERSION: ClassVar[int] = 1
    EARLIER: ClassVar[Mapping[int, int]] = MappingProxyType({})
    BYTES_MAX: ClassVar[int] = 16384
    SHAPES: ClassVar[tuple[Shape, ...]] = ()

    def encode(self) -> bytes:
        """Return the canonical bytes.  Raises LocalProtocolError for a value that no peer would accept."""
        data = encode(self._to_item())
        if len(data) > self.BYTES_MAX:
            raise LocalProtocolError(f"{type(self).__name__} of {len(data)} bytes, at most {self.BYTES_MAX}")
        return data

    @classmethod
    def decode_untrusted(cls, data: bytes) -> Self:
        """Return the record that data encodes, or raise RemoteProtocolError."""
        return cls._from_item(decode_untrusted(data, bytes_max=cls.BYTES_MAX))

    @classmethod
    def _called(cls) -> str:
        """Return what a person reads for this kind of record: "join request"."""
        return "".join(f" {c.lower()}" if c.isupper() else c for c in cls.__name__).strip()

    def _to_item(self) -> list[Any]:
        fields = dataclasses.fields(self)
        values = [getattr(self, field.name) for field in fields]
        items = [shape.dump(value) for shape, value in zip(self.SHAPES, values, strict=True)]
        return [self.VERSION, *items]

    @classmethod
    def _from_item(cls, item: Any) -> Self:
        if type(item) is not list or not item:
            raise _refuse(f"a {cls._called()}")
        if type(item[0]) is not int:  # it may be as long as the message, so it is not shown
            raise RemoteProtocolError("version", f"{cls._called()} of no version, this is {cls.VERSION}")
        if item[0] != cls.VERSION and item[0] not in cls.EARLIER:
            raise RemoteProtocolError("version", f"{cls._called()} of version {item[0]}, this is {cls.VERSION}")
        shapes = cls.SHAPES[: cls.EARLIER.get(item[0])]
        if len(item) != len(shapes) + 1:
            raise _refuse(f"{len(shapes)} fields of a {cls._called()}")
        return cls(*(shape.load(entry) for shape, entry in zip(shapes, item[1:], strict=True)))
