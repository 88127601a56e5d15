"""Reads the JSON of a command back into the named tuples that it was made of.

Labs, the demo and the soak read fields, not keys: a field that gets another name is found by mypy, on the day it is
renamed.  A key that is missing, or has no field, is an error of the lab.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from conflux.api import scheme

T = TypeVar("T")


def read(kind: type[T], answer: object) -> T:
    """Return what a command printed, as a named tuple of this kind.  Raises ValueError with the path to what is wrong.

    answer: the decoded object, with its number of the scheme.
    """
    if not isinstance(answer, dict) or answer.get(scheme.KEY) != scheme.VERSION:
        raise ValueError(f"{kind.__name__}: no object of scheme {scheme.VERSION}: {answer!r:.200}")
    value: T = _read(kind, {key: each for key, each in answer.items() if key != scheme.KEY}, kind.__name__)
    return value


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read(hint: Any, value: Any, where: str) -> Any:
    arguments = typing.get_args(hint)
    match typing.get_origin(hint) or hint:
        case types.UnionType | typing.Union:
            (inner,) = (each for each in arguments if each is not types.NoneType)
            return None if value is None else _read(inner, value, where)
        case typing.Literal:
            return _one_of(value, value in arguments, hint, where)
        case kind if kind is tuple:
            _one_of(value, isinstance(value, list), hint, where)
            return tuple(_read(arguments[0], each, f"{where}[{at}]") for at, each in enumerate(value))
        case kind if kind is Mapping or kind is dict:
            _one_of(value, isinstance(value, dict), hint, where)
            return {key: _read(arguments[1], each, f"{where}.{key}") for key, each in value.items()}
        case kind if hasattr(kind, "_fields"):
            return _record(kind, value, where)
        case kind if issubclass(kind, Enum):
            return kind(_one_of(value, value in list(kind), hint, where))
        case kind:
            fits = type(value) is kind or (kind is float and type(value) is int)
            return _one_of(value, fits, hint, where)


def _record(kind: Any, value: Any, where: str) -> Any:
    _one_of(value, isinstance(value, dict), kind, where)
    missing, unknown = set(kind._fields) - set(value), set(value) - set(kind._fields)
    if missing or unknown:
        raise ValueError(f"{where}: lacks {sorted(missing)}, and has no field for {sorted(unknown)}")
    hints = _hints(kind)
    return kind(**{key: _read(hints[key], each, f"{where}.{key}") for key, each in value.items()})


def _one_of(value: Any, fits: bool, hint: Any, where: str) -> Any:
    if not fits:
        raise ValueError(f"{where}: {value!r:.100} is no {hint}")
    return value
