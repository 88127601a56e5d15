"""What a person may name as a bundle."""

from __future__ import annotations

import argparse

import pytest

from conflux.cli.update_grammar import bundle


@pytest.mark.parametrize(
    "word",
    ["a.raucb", "/mnt/my updates/a.raucb", "https://host/a.raucb", "http://[fd00::1]:8080/a.raucb?b=c", "a:b.raucb"],
)
def test_files_and_addresses_are_taken(word):
    assert bundle(word) == word


@pytest.mark.parametrize(
    "word",
    ["", "a\0b", "ftp://host/a", "file:///etc/passwd", "https://", "https:///a", "https://host/a b", "http://h/\n"],
)
def test_other_addresses_are_not(word):
    with pytest.raises(argparse.ArgumentTypeError):
        bundle(word)
