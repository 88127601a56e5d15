"""What is done with the data partition, for everything that its steps can come to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from conflux.board.data import Rescue, Seen, Step, next_step, notices, tried

RESULTS = {
    Step.CHECK: (0, 1, 4, 8),
    Step.REPAIR: (1, 4, 8),
    Step.REPAIR_BY_SPARE: (1, 8),
    Step.RESCUE: tuple(Rescue),
}
STEP_COUNT_MAX = 12
Walk = tuple[tuple[Step, ...], Seen]


def walks(seen: Seen, before: tuple[Step, ...] = (), *, restored_before: bool = False) -> Iterator[Walk]:
    """Yield every way that a boot can take, to its last step."""
    step = next_step(seen)
    assert len(before) < STEP_COUNT_MAX, before
    if step is Step.DONE:
        yield before, seen
        return
    for result in RESULTS.get(step, (True, False)):
        after = tried(seen, step, result)
        if step is Step.MOUNT and result:
            after = after._replace(is_restored=restored_before and Step.FORMAT not in before)
        yield from walks(after, (*before, step), restored_before=restored_before)


def every_walk() -> Iterator[Walk]:
    for present, kept, had, invited, restored in product((True, False), repeat=5):
        yield from walks(Seen(present, kept, had, invited), restored_before=restored and kept)


EVERY = tuple(every_walk())


def usual(**results: object) -> tuple[Step, ...]:
    """Return the steps of a boot on which everything succeeds, but for the results given by the step's value."""
    seen, steps = Seen(present=True, is_kept=False, had_identity=True, invited=False), []
    while (step := next_step(seen)) is not Step.DONE:
        steps.append(step)
        good: object = 0 if step in (Step.CHECK, Step.REPAIR, Step.REPAIR_BY_SPARE) else True
        answers = results.get(step.value.replace("-", "_"), good)
        result = answers.pop(0) if isinstance(answers, list) else answers
        seen = tried(seen, step, result)
    return tuple(steps)


def test_a_board_always_has_some_place_for_its_state():
    assert all(seen.mounted or seen.in_memory is not None for _, seen in EVERY)


def test_the_partition_is_never_made_anew_where_that_would_lose_an_identity():
    for steps, seen in EVERY:
        if Step.FORMAT in steps:
            assert seen.is_kept or seen.saved or not seen.had_identity or seen.invited, steps


def test_what_was_rescued_is_dropped_only_after_it_was_restored():
    for steps, seen in EVERY:
        if Step.DROP_RESCUE in steps:
            assert seen.restored or seen.is_restored, steps


def test_a_rescue_that_was_restored_never_takes_the_place_of_newer_state():
    for steps, seen in EVERY:
        if seen.is_restored and seen.mounted:
            assert Step.FORMAT not in steps
            assert Step.RESTORE not in steps


def test_whatever_is_not_as_usual_is_told():
    for steps, seen in EVERY:
        unusual = {Step.FORMAT, Step.MOUNT_MEMORY, Step.REPAIR} & set(steps)
        assert bool(notices(seen)) == bool(unusual or seen.grown is False), steps


def test_the_usual_boot_checks_mounts_and_grows():
    assert usual() == (Step.CHECK, Step.MOUNT, Step.GROW)


def test_damage_that_the_check_leaves_is_repaired():
    assert usual(check=4) == (Step.CHECK, Step.REPAIR, Step.MOUNT, Step.GROW)


def test_a_spare_superblock_is_tried_last():
    assert usual(check=8, repair=8) == (Step.CHECK, Step.REPAIR, Step.REPAIR_BY_SPARE, Step.MOUNT, Step.GROW)


def test_an_identity_is_read_kept_and_put_back():
    steps = usual(check=8, repair=8, repair_by_spare=8, mount=[False, True], rescue=Rescue.IDENTITY)
    assert steps[4:] == (
        Step.RESCUE,
        Step.KEEP_RESCUE,
        Step.FORMAT,
        Step.MOUNT,
        Step.RESTORE,
        Step.DROP_RESCUE,
        Step.GROW,
    )


def test_an_identity_that_cannot_be_kept_elsewhere_is_used_from_memory():
    steps = usual(check=8, repair=8, repair_by_spare=8, mount=[False], rescue=Rescue.IDENTITY, keep_rescue=False)
    assert steps[-2:] == (Step.MOUNT_MEMORY, Step.RESTORE_TO_MEMORY)


@pytest.mark.parametrize("rescue", [Rescue.UNREADABLE, Rescue.NO_IDENTITY])
def test_a_lost_identity_waits_for_a_persons_word(rescue):
    seen = Seen(True, False, had_identity=True, invited=False, check=8, repair=8, spare=8, mounted=False, rescue=rescue)
    assert next_step(seen) is Step.MOUNT_MEMORY
    assert next_step(seen._replace(invited=True)) is Step.FORMAT
    assert next_step(seen._replace(had_identity=False)) is Step.FORMAT
    assert "new invitation" in notices(seen._replace(in_memory=True))[0]
