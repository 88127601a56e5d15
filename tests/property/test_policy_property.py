"""Rules of any kind: what holds for all of them, and any bytes in place of a rule file."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from kit.policies import ENDS, KEYS, NODES, NOWS, POLICIES, read, rules, texts, written

from conflux.policy.checks import examine
from conflux.policy.cover import Index, shadowed_rules
from conflux.policy.judge import Verdict, judge, passing_between
from conflux.policy.reading import read_untrusted
from conflux.policy.rules import End, Policy
from conflux.policy.terms import Span, covered, merged

MOMENT = st.sampled_from(NOWS)
QUESTIONS = st.lists(st.tuples(ENDS, ENDS, KEYS, MOMENT), min_size=1, max_size=8)
SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda at: Span(at[0], at[0] + at[1])), max_size=9
)


def asked(policy: Policy, source: End, target: End, key: int, at: int) -> Verdict:
    return judge(policy, source, target, key >> 16, key & 0xFFFF, at_unix=at)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_rule_file_or_have_faults(data):
    got = read_untrusted(data)
    assert (got.policy is None) == bool(got.faults)
    examine(got, None, now_unix=0)


@settings(max_examples=40, deadline=None)
@given(texts(), QUESTIONS, st.randoms(use_true_random=False))
def test_the_order_of_rules_means_nothing(drawn, questions, random):
    head, blocks = drawn
    policy, shuffled = read(written(head, blocks)), read(written(head, random.sample(blocks, len(blocks))))
    for question in questions:
        assert asked(policy, *question).is_allowed == asked(shuffled, *question).is_allowed


@settings(max_examples=40, deadline=None)
@given(texts(), rules(), QUESTIONS)
def test_one_more_rule_takes_nothing_away(drawn, block, questions):
    head, blocks = drawn
    policy, more = read(written(head, blocks)), read(written(head, [*blocks, block]))
    for question in questions:
        assert asked(more, *question).is_allowed or not asked(policy, *question).is_allowed


@settings(max_examples=40, deadline=None)
@given(texts(), QUESTIONS, st.none() | st.lists(NODES, max_size=4))
def test_without_the_shadowed_rules_the_same_passes(drawn, questions, members):
    """If members are known, it holds for them; what would pass between other nodes is not asked."""
    head, blocks = drawn
    policy = read(written(head, blocks))
    shadowed = shadowed_rules(policy, None if members is None else tuple(members))
    assert shadowed is not None
    left = read(written(head, [block for number, block in enumerate(blocks) if number not in shadowed]))
    for source, target, key, at in questions:
        if members is None or all(end in members or not hasattr(end, "tags") for end in (source, target)):
            assert asked(left, source, target, key, at).is_allowed == asked(policy, source, target, key, at).is_allowed


@settings(max_examples=40, deadline=None)
@given(POLICIES, QUESTIONS)
def test_the_index_finds_the_rules_that_the_judge_finds(policy, questions):
    index = Index(policy)
    for source, target, _, at in questions:
        found = index.rules_between(source, target)
        quick = list(passing_between(policy, source, target, at_unix=at, rules=found))
        assert quick == list(passing_between(policy, source, target, at_unix=at))


@settings(max_examples=40, deadline=None)
@given(POLICIES, QUESTIONS)
def test_a_rule_that_is_named_allows_the_flow_alone(policy, questions):
    for question in questions:
        said = asked(policy, *question)
        if said.rule is not None:
            alone = policy._replace(rules=(said.rule,), is_open=False)
            assert asked(alone, *question).is_allowed
            assert not asked(policy._replace(is_open=False, rules=()), *question).is_allowed


@given(SPANS, SPANS)
def test_merged_spans_hold_the_same_and_do_not_meet(spans, others):
    found = merged(spans)
    assert {each for span in spans for each in range(span.first, span.last + 1)} == {
        each for span in found for each in range(span.first, span.last + 1)
    }
    assert all(before.last + 1 < after.first for before, after in pairwise(found))
    held = {each for span in found for each in range(span.first, span.last + 1)}
    for other in others:
        assert covered(other, found) == (set(range(other.first, other.last + 1)) <= held)
