"""What fuzzing found worth keeping, and where it starts, run once more: deterministic, quick, without a fuzzer."""

from __future__ import annotations

import pytest
from fuzz.corpus import CORPUS, kept
from fuzz.native import NATIVE
from fuzz.script import chunk, expand, shorten
from fuzz.seeds import others, records, seeds
from fuzz.targets import TARGETS
from hypothesis import given
from hypothesis import strategies as st

CORPUS_BYTES_MAX = 300_000


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_nothing_in_the_corpus_surprises_its_parser(target):
    assert kept(target), "a target without a corpus: tests/fuzz/run.py --keep"
    for path in kept(target):
        TARGETS[target](path.read_bytes())
    for seed in seeds()[target]:
        TARGETS[target](seed)


@pytest.mark.parametrize("target", sorted(records() | others()))
def test_fuzzing_starts_from_what_is_accepted(target):
    accepted = [TARGETS[target](seed) for seed in seeds()[target]]
    assert all(accepted) or (target == "card-verify" and accepted == [True, True, False])


def test_corpus_is_small_and_has_no_orphans():
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS) | set(NATIVE)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*")) < CORPUS_BYTES_MAX


@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"\xf8", bytes(8), bytes(5000)]), max_size=4).map(b"".join))
def test_shorthand_stands_for_any_bytes(data):
    assert expand(shorten(data)) == data
    assert chunk(data)[2:] == shorten(data)
