"""Strict canonical CBOR (RFC 8949, section 4.2.1): the one encoding of every message and record that is not a frame.

A record is a frozen dataclass whose fields carry a shape; on the wire it is the array [version, field, field, ...].
Whatever is not exactly what encode() would have written is refused, so a signature over the bytes is a signature over
the meaning.  Tags, floats, indefinite lengths and long forms never reach the CBOR library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeVar

import cbor2

from conflux.errors import LocalProtocolError, RemoteProtocolError

DEPTH_MAX = 8  # chosen; the deepest record of ours nests 4
ITEM_COUNT_MAX = 4096  # per message; bounds the objects one message can make us allocate

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
    """Walk the heads only: types, shortest lengths, depth, item count, no bytes missing or left over."""
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
    """Return the argument of a head and where the next byte is; refuse any but the shortest form."""
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


# A shape turns a decoded item into a field's value or raises RemoteProtocolError, and turns it back.


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """How one field looks on the wire."""

    load: Callable[[Any], Any]
    dump: Callable[[Any], Any] = lambda value: value


def _refuse(what: str) -> RemoteProtocolError:
    return RemoteProtocolError("malformed", f"expected {what}")


def octets(size_min: int, size_max: int | None = None) -> Shape:
    """bytes of exactly size_min, or of size_min to size_max."""
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
    """Base of every wire record.

    Subclass as a frozen, slotted dataclass, name SHAPES in field order and a VERSION; encode() and decode_untrusted()
    follow.  A changed meaning is a new VERSION.
    """

    VERSION: ClassVar[int] = 1
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

    def _to_item(self) -> list[Any]:
        fields = dataclasses.fields(self)
        values = [getattr(self, field.name) for field in fields]
        items = [shape.dump(value) for shape, value in zip(self.SHAPES, values, strict=True)]
        return [self.VERSION, *items]

    @classmethod
    def _from_item(cls, item: Any) -> Self:
        if type(item) is not list or not item:
            raise _refuse(f"a {cls.__name__}")
        if item[0] != cls.VERSION or type(item[0]) is not int:
            raise RemoteProtocolError("version", f"{cls.__name__} of version {item[0]!r}, this is {cls.VERSION}")
        if len(item) != len(cls.SHAPES) + 1:
            raise _refuse(f"{len(cls.SHAPES)} fields of {cls.__name__}")
        return cls(*(shape.load(entry) for shape, entry in zip(cls.SHAPES, item[1:], strict=True)))
