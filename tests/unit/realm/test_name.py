"""The names that a person types: case and mDNS's ending make no difference wherever a node is meant."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from kit.nodes import id_of

from conflux.config import settings
from conflux.control.who import Who
from conflux.daemon.joining import wanted_name
from conflux.errors import ConfigError
from conflux.ids import fold_name, format_node_id
from conflux.node.naming import who_of
from conflux.realm.name import parse_name, parse_node_name


@pytest.mark.parametrize("word", ["attic", "Attic", "ATTIC", "attic.local", "Attic.Local", "attic.local.", " attic "])
def test_a_node_has_one_name_however_it_is_typed(word: str) -> None:
    assert fold_name(word) == parse_node_name(word) == "attic"
    assert who_of(word) == Who(name="attic")
    assert wanted_name(settings.Config(), word) == "attic"
    assert settings.parse(f"[node]\nname = '{word}'").node.name == "attic"


@pytest.mark.parametrize("word", ["", ".local", "attic.lan", "at tic", "-attic", "attic.local.local"])
def test_a_word_that_is_no_name_is_quoted_as_it_was_typed(word: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_node_name(word)
    assert repr(word) in str(refused.value)


def test_ids_and_addresses_are_known_in_any_case() -> None:
    node = id_of("attic")
    assert who_of(format_node_id(node).upper()) == Who(node=node)
    assert who_of("FD00::A") == Who(address=ip_address("fd00::a"))


def test_names_of_realms_and_tags_are_taken_as_they_are() -> None:
    with pytest.raises(ConfigError, match="'Home' is no realm name"):
        parse_name("Home", "realm name")
