"""The check of a flashed board: what first boot, its card and its updates have to say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from conflux.doctor.finding import Check, Finding, bad

REMEDY = "see first-boot.log on the card's first partition, and docs/how-to/trouble.md"


def judge(notices: Iterable[str]) -> Iterator[Finding]:
    """Judge what the programs around the daemon noticed; of a host that is no flashed board nothing is said."""
    return (bad(Check.BOARD, notice, REMEDY) for notice in notices)
