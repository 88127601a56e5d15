"""Answers as lines of JSON."""

import json
from dataclasses import dataclass
from enum import StrEnum

import pytest

from conflux.api.server import encode


class Word(StrEnum):
    ON = "on"


@dataclass(frozen=True, slots=True)
class Inner:
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Outer:
    inner: Inner
    number: float | None


def test_dataclasses_become_objects_wherever_they_stand():
    message = {"done": {"each": [Outer(Inner((Word.ON,)), None), Inner(())]}}
    line = encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line) == {"done": {"each": [{"inner": {"words": ["on"]}, "number": None}, {"words": []}]}}


@pytest.mark.parametrize("value", [b"bytes", object(), {1, 2}])
def test_a_value_that_json_does_not_have_is_a_bug(value):
    with pytest.raises(TypeError):
        encode({"done": value})
