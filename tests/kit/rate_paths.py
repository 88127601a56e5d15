"""cext/rate/rate.c on simulated paths: compiled, run, added up.  `PYTHONPATH=tests .venv/bin/python -m
kit.rate_paths` prints the table of docs/explanation/rate.md.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from kit import compile
from kit.tree import CEXT, DRIVERS

PIPE_KB = 312.5  # 50 Mbit/s for 50 ms: what "BDP" means below
OURS = "flow=ours"
CUBIC = "flow=cubic"


def build(options: Sequence[str] = compile.UNDEFINED) -> Path:
    sources = (DRIVERS / "rate/rate_world.c", CEXT / "rate/rate.c")
    return compile.build(*sources, options=("-O2", *options), libraries=("m",))


@dataclass(frozen=True, slots=True)
class Flow:
    good_mbit: list[float]  # per bin, what arrived for the first time
    estimate_mbit: list[float]
    lost: int
    sent: int  # packets

    @property
    def lost_share(self) -> float:
        return self.lost / max(1, self.sent)


@dataclass(frozen=True, slots=True)
class Outcome:
    bin_s: float
    queue_ms: list[float]  # before the bottleneck, at the end of each bin
    flows: tuple[Flow, ...]

    def cut(self, values: Sequence[float], since: float, until: float | None = None) -> Sequence[float]:
        end = len(values) if until is None else round(until / self.bin_s)
        return values[round(since / self.bin_s) : end]

    def good(self, since: float, until: float | None = None, flow: int = 0) -> float:
        """Return the average rate between two moments, in Mbit/s."""
        return fmean(self.cut(self.flows[flow].good_mbit, since, until))

    def shares(self, since: float, until: float | None = None) -> list[float]:
        rates = [self.good(since, until, flow) for flow in range(len(self.flows))]
        return [rate / sum(rates) for rate in rates]

    def queue(self, since: float, until: float | None = None, part: float = 0.5) -> float:
        """Return the queue, in ms, that this part of the moments stayed below; 1: the longest."""
        values = sorted(self.cut(self.queue_ms, since, until))
        return values[min(len(values) - 1, int(part * len(values)))]

    def good_worst(self, since: float, window: float, flow: int = 0) -> float:
        """Return the lowest rate of any window of that length, in Mbit/s."""
        values = self.cut(self.flows[flow].good_mbit, since)
        count = round(window / self.bin_s)
        return min(fmean(values[at : at + count]) for at in range(0, len(values) - count, max(1, count // 4)))


def jain(shares: Sequence[float]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def run(program: Path, *words: str, seed: int = 1) -> Outcome:
    done = subprocess.run([program, f"seed={seed}", *words], check=True, capture_output=True, text=True)
    world: dict[str, Any] = json.loads(done.stdout)
    flows = (
        Flow(flow["good_mbit"], flow["estimate_mbit"], flow["lost"], flow["sent_bytes"] // flow["packet_bytes"])
        for flow in world["flows"]
    )
    return Outcome(world["bin_ms"] / 1000, world["queue_ms"], tuple(flows))


def lossy(loss: float, pipes: float) -> tuple[str, ...]:
    return (f"loss={loss}", f"buffer_kb={PIPE_KB * pipes}", "seconds=20", OURS)


def lan(mbit: int, rtt_ms: float, stall_ms: float) -> tuple[str, ...]:
    """Return a path whose bottleneck is the receiver's processor: it stalls about every 5 ms; timers are 60 us late."""
    stall = f",stall_every=5,stall_max={stall_ms}" if stall_ms else ""
    return ("seconds=4", "mbit=10000", "buffer_kb=2000", f"{OURS},rtt={rtt_ms},cpu_mbit={mbit},slack=0.06{stall}")


def near(buffer_ms: int, bucket_kb: int) -> tuple[str, ...]:
    """Return a near bottleneck of 50 Mbit/s, as tbf makes it."""
    return (f"buffer_kb={6.25 * buffer_ms}", f"tbf_kb={bucket_kb}", f"{OURS},rtt=0.3,slack=0.06")


def step(mbit: float, then: float) -> tuple[str, ...]:
    """Return a path with another rate from second 10 to 20, in Mbit/s."""
    return ("seconds=30", f"mbit={mbit}", f"step=10000:{then}", f"step=20000:{mbit}", "buffer_kb=3000", OURS)


def beside(other: str, pipes: float, seconds: int = 30) -> tuple[str, ...]:
    return (f"seconds={seconds}", f"buffer_kb={PIPE_KB * pipes}", OURS, other)


def _one(outcome: Outcome, since: float) -> str:
    flow = outcome.flows[0]
    return (
        f"{outcome.good(since):8.2f} | {outcome.queue(since):.1f} | {outcome.queue(since, part=0.95):.1f} "
        f"| {100 * flow.lost_share:.1f}"
    )


def _many(outcome: Outcome, since: float) -> str:
    shares = outcome.shares(since)
    words = "/".join(f"{100 * share:.0f}" for share in shares)
    return f"{words} | {jain(shares):.2f} | {outcome.queue(since):.1f} | {100 * outcome.flows[0].lost_share:.1f}"


def _table(
    program: Path, head: str, row: Callable[[Outcome, float], str], since: float, **paths: Sequence[str]
) -> None:
    print(f"\n| {head} |\n|{'---|' * (head.count('|') + 1)}")
    for name, words in paths.items():
        print(f"| {name} | {row(run(program, *words), since)} |")


def main() -> None:
    program = build(())
    _table(
        program,
        "path | Mbit/s | queue, median ms | 95 % below | lost, %",
        _one,
        2.0,
        **{
            f"50 Mbit/s, 50 ms, {100 * loss:.0f} % lost, {pipes} BDP": lossy(loss, pipes)
            for loss in (0, 0.01, 0.05)
            for pipes in (0.25, 1, 4)
        },
        **{
            f"{mbit} Mbit/s, {rtt} ms, stalls to {stall} ms": lan(mbit, rtt, stall)
            for mbit, rtt in ((1000, 0.05), (2000, 0.1), (3000, 0.3))
            for stall in (0, 1, 3)
        },
        **{
            f"50 Mbit/s, 0.3 ms, buffer {buffer} ms, bucket {bucket} kB": near(buffer, bucket)
            for buffer in (10, 50)
            for bucket in (0, 16, 64)
        },
        **{
            "100 kbit/s, 50 ms": ("seconds=60", "mbit=0.1", "buffer_kb=50", OURS),
            "1 Mbit/s, 50 ms": ("seconds=30", "mbit=1", "buffer_kb=125", OURS),
            "40, 10, 40 Mbit/s, 50 ms": step(40, 10),
            "50 Mbit/s, by the batch every 10 ms, 1 % lost": ("aggregate=10", "loss=0.01", f"{OURS},rtt=10"),
        },
    )
    _table(
        program,
        "who | shares, % | Jain | queue, median ms | lost, %",
        _many,
        20.0,
        **{
            "two, one joins at 5 s, 1 BDP": beside(f"{OURS},start=5000", 1),
            "the same, 4 BDP": beside(f"{OURS},start=5000", 4),
            "the same, 0.25 BDP": beside(f"{OURS},start=5000", 0.25),
            "the same, 1 % lost": (*beside(f"{OURS},start=5000", 1), "loss=0.01"),
            "50 ms, then 10 ms": beside(f"{OURS},start=5000,rtt=10", 1),
            "both 0.3 ms": ("seconds=30", f"{OURS},rtt=0.3", f"{OURS},rtt=0.3,start=5000"),
            **{f"ours, cubic, {pipes} BDP, 60 s": beside(CUBIC, pipes, 60) for pipes in (0.25, 0.5, 1, 2, 4)},
            **{f"ours, cubic, {pipes} BDP, 180 s": beside(CUBIC, pipes, 180) for pipes in (1, 4)},
        },
    )


if __name__ == "__main__":
    main()
