"""JSON Schema (draft 7), as much of it as a schema of ours uses; any other keyword is an error of the test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
_SILENT = frozenset({"$comment", "$schema", "$id", "definitions", "format", "default"})


def faults(value: Any, schema: Any, root: Any, where: str = "$") -> Iterator[str]:
    """Yield what a schema has against a value."""
    if schema is True or schema is False:
        if not schema:
            yield f"{where}: nothing may stand here"
        return
    for keyword, rule in schema.items():
        if keyword not in _SILENT:
            yield from _RULES[keyword](value, rule, schema, root, where)


def _is(value: Any, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _type(value: Any, rule: Any, _schema: Any, _root: Any, where: str) -> Iterator[str]:
    names = rule if isinstance(rule, list) else [rule]
    if not any(_is(value, name) for name in names):
        yield f"{where}: is no {' or '.join(names)}"


def _reference(value: Any, rule: Any, _schema: Any, root: Any, where: str) -> Iterator[str]:
    yield from faults(value, root["definitions"][rule.removeprefix("#/definitions/")], root, where)


def _one_of(value: Any, rule: Any, _schema: Any, root: Any, where: str) -> Iterator[str]:
    tried = [list(faults(value, each, root, where)) for each in rule]
    if tried.count([]) != 1:
        yield f"{where}: fits {tried.count([])} of {len(rule)} shapes: {tried}"


def _members(value: Any, _rule: Any, schema: Any, root: Any, where: str) -> Iterator[str]:
    """properties, patternProperties and additionalProperties, which have to be seen together."""
    if not isinstance(value, dict):
        return
    for name, member in value.items():
        here = f"{where}.{name}"
        known = [schema.get("properties", {})[name]] if name in schema.get("properties", {}) else []
        known += [each for pattern, each in schema.get("patternProperties", {}).items() if re.search(pattern, name)]
        for each in known or [schema.get("additionalProperties", True)]:
            yield from faults(member, each, root, here)


def _required(value: Any, rule: Any, _schema: Any, _root: Any, where: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{where}: {name} is missing" for name in rule if name not in value)


def _items(value: Any, rule: Any, _schema: Any, root: Any, where: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from faults(item, rule, root, f"{where}[{index}]")


def _unique(value: Any, rule: Any, _schema: Any, _root: Any, where: str) -> Iterator[str]:
    if rule and isinstance(value, list) and any(value.count(item) > 1 for item in value):
        yield f"{where}: an item stands twice"


def _enum(value: Any, rule: Any, _schema: Any, _root: Any, where: str) -> Iterator[str]:
    if value not in rule:
        yield f"{where}: is none of {rule}"


def _pattern(value: Any, rule: Any, _schema: Any, _root: Any, where: str) -> Iterator[str]:
    if isinstance(value, str) and not re.search(rule, value):
        yield f"{where}: does not look like {rule}"


def _nothing(*_: Any) -> Iterator[str]:
    yield from ()


_RULES = {
    "type": _type,
    "$ref": _reference,
    "oneOf": _one_of,
    "properties": _members,
    "patternProperties": lambda value, rule, schema, root, where: (
        _nothing() if "properties" in schema else _members(value, rule, schema, root, where)
    ),
    "additionalProperties": lambda value, rule, schema, root, where: (
        _nothing()
        if "properties" in schema or "patternProperties" in schema
        else _members(value, rule, schema, root, where)
    ),
    "required": _required,
    "items": _items,
    "uniqueItems": _unique,
    "enum": _enum,
    "pattern": _pattern,
}
