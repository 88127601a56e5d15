"""The seeds from which simulated lives are drawn: some that are always tried, and some that never were."""

from __future__ import annotations

import os
import subprocess

from kit.tree import TREE


def seeds(count: int) -> list[int]:
    """Return 0 to count - 1, and one more that the commit determines: each commit tries a seed of its own.

    CONFLUX_SIM_SEEDS=N: N of them, in the place of count.  CONFLUX_SIM_FROM=N: those from N on, in the place of 0; with
    the time in it no two nights try the same.  CONFLUX_SIM_SEED=N: that one alone, to repeat what another run found.
    The name of a test has its seed.
    """
    if again := os.environ.get("CONFLUX_SIM_SEED"):
        return [int(again)]
    first, count = int(os.environ.get("CONFLUX_SIM_FROM", "0")), int(os.environ.get("CONFLUX_SIM_SEEDS", count))
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=TREE, capture_output=True, text=True, check=False).stdout
    return [*range(first, first + count), *([int(head[:8], 16)] if head else [])]
