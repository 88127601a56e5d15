"""Where each key of a TOML text stands."""

from __future__ import annotations

import pytest
import tomli

from conflux.policy.places import places_of

TEXT = '''\
version = 1 # one
"closed" = [ "a",
  # b
  'b', """c
"]c""", ]
x.y = { z = 1.5, w = [ {}, 2027-01-04 06:00:00Z, 3 ] }

[groups]
press = ["p"]
[[allow]]
name = "[x]\\"]"
on = [
  "tcp",
]
[[allow]]
name = 'y'
[allow.deep]
k = 1
[[allow.list]]
[[allow.list]]
k = 2
'''


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("version",), (1, 1)),
        (("closed",), (2, 1)),
        (("closed", 0), (2, 14)),
        (("closed", 1), (4, 3)),
        (("closed", 2), (4, 8)),
        (("x",), (6, 1)),
        (("x", "y", "z"), (6, 9)),
        (("x", "y", "w", 1), (6, 28)),
        (("x", "y", "w", 2), (6, 50)),
        (("groups", "press", 0), (9, 10)),
        (("allow",), (10, 1)),
        (("allow", 0), (10, 1)),
        (("allow", 0, "on", 0), (13, 3)),
        (("allow", 1), (15, 1)),
        (("allow", 1, "deep", "k"), (18, 1)),
        (("allow", 1, "list", 1, "k"), (21, 1)),
    ],
)
def test_a_key_and_an_entry_of_a_list_have_a_place(path, place):
    tomli.loads(TEXT)
    assert places_of(TEXT)[path] == place


def test_every_path_of_a_text_has_a_place():
    def paths(value, path=()):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            yield (*path, key)
            yield from paths(inner, (*path, key))

    assert set(places_of(TEXT)) == set(paths(tomli.loads(TEXT)))


def test_what_lies_deep_has_no_place_and_what_follows_has_one():
    text = f"a = {'[' * 50}1{']' * 50}\nb = 2\n"
    assert places_of(text)[("b",)] == (2, 1)
    assert len(places_of(text)) < 12
