"""What a board pays for a LAN of up to a thousand, simulated with the real machines: a table, and what does not hold.

It needs no rights and no network, and some minutes of one core: python tests/lab/lan_scale.py [N ...]
"""

from __future__ import annotations

import argparse
import statistics

from conflux.control.lan.circle import STANDING_COUNT_MAX
from conflux.sim.site import Site

COUNTS = (10, 100, 1000)
DEGREE_MAX = 8.0  # in the mean; the small mesh of ten has nine


def measure(count: int) -> list[str]:
    """Measure one size, print its rows, and return what does not hold."""
    site = Site(count)
    site.run(20.0)
    for _ in range(20):
        site.broadcast(site.rng.choice(site.boards))
    degrees = [board.degree for board in site.boards]
    print(f"{count:5}  neighbours {statistics.mean(degrees):.1f}, {max(degrees)} at most; parts {site.parts()[:3]}")
    faults = []
    if count > STANDING_COUNT_MAX and (statistics.mean(degrees) > DEGREE_MAX or max(degrees) > STANDING_COUNT_MAX):
        faults.append(f"{count}: too many neighbours")
    print(f"       at rest {site.rest_bytes_per_minute() / 1000:.1f} kB a board and minute, in both directions")
    for told, words in ((1, "a question"), (2, "a presence"), (None, "a list")):
        before = site.stats.copy()
        shares = [site.broadcast(site.rng.choice(site.boards), told=told) for _ in range(10)]
        copies = (site.stats["copies"] - before["copies"]) / 10 / count
        size = (site.stats["bytes"] - before["bytes"]) / 10
        print(f"       {words}: {min(shares):.1%} hear it, {copies:.2f} copies, {size / count:.0f} B each")
        print(f"       {words}: {size / 1000:.0f} kB on the LAN")
        if min(shares) < 1.0:
            faults.append(f"{count}: {words} does not reach everybody")
    for share in (0.3, 0.5) if count >= 50 else ():
        faults += _lose(count, share)
    return faults


def _lose(count: int, share: float) -> list[str]:
    """Take the power of many at once; return what does not hold afterwards."""
    site = Site(count, seed=3)
    site.run(20.0)
    for _ in range(20):
        site.broadcast(site.rng.choice(site.boards))
    site.kill(site.rng.sample(site.boards, int(count * share)))
    parts, began = site.parts(), site.now
    first = site.broadcast(site.rng.choice(site.living()), 1.0)
    while len(site.parts()) > 1 and site.now < began + 200.0:
        site.run(1.0)
    whole_s = site.now - began
    site.run(100.0)
    later = [site.broadcast(site.rng.choice(site.living())) for _ in range(5)]
    print(
        f"       {share:.0%} lose power: parts {parts[:3]}, {first:.1%} hear the next; "
        f"one again after {whole_s:.0f} s, then {min(later):.1%}"
    )
    return [] if min(later) == 1.0 else [f"{count}: {share:.0%} gone, and not everybody is found again"]


def main() -> int:
    """Measure every size; return 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", type=int, nargs="*", default=COUNTS, help="how many boards, in turn")
    faults = [fault for count in parser.parse_args().nodes for fault in measure(count)]
    for fault in faults:
        print(f"lan-scale: failed: {fault}")
    return int(bool(faults))


if __name__ == "__main__":
    raise SystemExit(main())
