"""What a person allows a day and a month, how near this node is to it, and what it stretches then.

The bound is soft: nothing is ever stopped.  What stretches costs a little time, and each of it stays within what its
own part of the program bounds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

NEAR_SHARE: Final = 0.8
BACK_SHARE: Final = 0.05  # so much below a threshold a state ends: one byte more or less changes nothing


class State(StrEnum):
    """How what passed compares with what is allowed."""

    UNDER = "under"
    NEAR = "near"
    OVER = "over"


class Bound(NamedTuple):
    """[budget] of conflux.toml.  Bytes of both directions; None: no bound."""

    day_bytes: int | None = None
    month_bytes: int | None = None
    month_starts: int = 1


class Pace(NamedTuple):
    """What stretches.  keep_weight: of what stays open without packets.  stretch: of the times between two signs."""

    keep_weight: float
    stretch: float


PACES: Final = {State.UNDER: Pace(1.0, 1.0), State.NEAR: Pace(2.0, 2.0), State.OVER: Pace(4.0, 4.0)}


def share(bound: Bound, *, day: int, month: int) -> float | None:
    """Return which part of the bound is used, of the two the larger one; None: there is no bound."""
    parts = [
        used / allowed for used, allowed in ((day, bound.day_bytes), (month, bound.month_bytes)) if allowed is not None
    ]
    return max(parts, default=None)


def state_of(used: float | None, before: State) -> State:
    """Return the state for a share.  before: the state until now, which does not end for a little less."""
    if used is None:
        return State.UNDER
    if used >= 1 or (before is State.OVER and used >= 1 - BACK_SHARE):
        return State.OVER
    if used >= NEAR_SHARE or (before is not State.UNDER and used >= NEAR_SHARE - BACK_SHARE):
        return State.NEAR
    return State.UNDER
