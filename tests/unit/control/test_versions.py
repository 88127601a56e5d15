"""Nodes of other versions: whatever they say is told apart by its first number, and by nothing that it may mean."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator

import pytest

import conflux
from conflux import record
from conflux.errors import RemoteProtocolError
from conflux.record import Record

ROOMS = ("anchor", "control", "link", "realm", "route", "stream")


def records(kind: type[Record] = Record) -> Iterator[type[Record]]:
    """Yield every record that has fields, of rooms that nodes talk to each other from."""
    for room in ROOMS:
        importlib.import_module(f"conflux.{room}")
        for module in pkgutil.walk_packages([f"{conflux.__path__[0]}/{room}"], f"conflux.{room}."):
            importlib.import_module(module.name)
    found = {kind}
    while more := {each for parent in found for each in parent.__subclasses__()} - found:
        found |= more
    for each in sorted(found, key=lambda each: each.__name__):
        # A dataclass with slots is a second class, in the place of the one that was written.
        if "SHAPES" in vars(each) and getattr(sys.modules[each.__module__], each.__name__) is each:
            yield each


@pytest.mark.parametrize("kind", list(records()), ids=lambda kind: kind.__name__)
def test_record_of_a_later_version_is_refused_by_that_name_whatever_is_in_it(kind: type[Record]) -> None:
    later = max((kind.VERSION, *kind.EARLIER)) + 1
    for fields in ([], [0], [b"later"] * len(kind.SHAPES)):
        with pytest.raises(RemoteProtocolError) as caught:
            kind.decode_untrusted(record.encode([later, *fields]))
        assert caught.value.reason == "version"
