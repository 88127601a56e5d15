"""`make soak-full`: half an hour at full rate, while streams and links come and go.  Nothing may grow.

      alpha          bravo           rod
        |              |              |          three network namespaces on one LAN, a real daemon in each;
     ---+--------------+--------------+---       rod relays in some of the rounds

A round is TCP at full rate with pings beside it, and in some rounds the stream moves onto a relay and back.  Then comes
silence until no data-plane socket is left.  Every 10 s, and at rest after every round, the threads, descriptors and
memory of each daemon are read from the kernel.  At the end the rests are compared: see `Verdict`.

The samples go to build/soak.json, a picture of memory over time to build/soak.svg.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from rig import gauge
from rig.enter import deliver
from rig.narration import STARTED, chapter, paint, play, tell
from rig.soak_chart import chart
from rig.topology import Daemon, Host, Lab, LabFailure, Process, Realm, wait_for

IDLE_TIMEOUT_S, LINGER_S = 1.0, 0.5  # 15 and 2 by default; short, so that streams and links come and go all the time
REST_WITHIN_S = 15.0
SAMPLE_EVERY_S = 10.0
FULL_RATE_S = 6
MINUTES = 30.0
# At first allocators, caches and pools of Python and the C library fill up: with what is kept for a time (answers 12 s,
# streams 30 s, onions an hour) and with the largest burst so far.
WARM_UP_SHARE = 0.25
# What a round may add to a daemon's allocated memory.  A frame, a link or a stream is larger, so a leak of one of those
# is found.  Per round and not per hour: a faster machine plays more rounds in an hour.  Measured: 0.5 to 1.5 in 20
# minutes, and 0.15 MB between the least and the most after the warm-up.  One table is known to grow still: the onions
# seen, 4096 at most (0.6 MB), kept so that none is used twice while the hop key lives.
GROWTH_KIB_PER_ROUND_MAX = 4.0
JUDGED_S_MIN = 600.0  # after the warm-up; a shorter time says nothing about an hour


@dataclass(frozen=True, slots=True)
class Sample:
    """The resources of one daemon at one moment.  at_s: since the soak began."""

    host: str
    at_s: float
    rest: bool  # no data-plane socket was open anywhere
    threads: int
    descriptors: int
    rss_mb: float
    pss_mb: float
    allocated_mb: float  # anonymous memory: heap, stacks, pools; not files that are mapped
    drops: dict[str, int]


@dataclass(frozen=True, slots=True)
class Round:
    """What one round carried."""

    at_s: float
    what: str
    mbit: float
    pings: int
    pings_lost: int
    rest_after_s: float


@dataclass(slots=True)
class Soak:
    """The lab, and everything measured so far."""

    lab: Lab
    hosts: tuple[Host, ...]
    realm: Realm
    started: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)

    @property
    def daemons(self) -> dict[str, Daemon]:
        """The daemon of each host, by name."""
        return self.realm.daemons

    @property
    def at_s(self) -> float:
        """Seconds since the soak began."""
        return time.monotonic() - self.started

    def look(self, *, rest: bool) -> None:
        """Take a sample of every daemon."""
        for name, daemon in self.daemons.items():
            if daemon.exit_code is not None:
                raise LabFailure(f"{name}: the daemon ended with {daemon.exit_code}{daemon.tail()}")
            held = gauge.memory(daemon.pid)
            self.samples.append(
                Sample(
                    host=name,
                    at_s=round(self.at_s, 1),
                    rest=rest,
                    threads=gauge.threads(daemon.pid),
                    descriptors=gauge.descriptors(daemon.pid),
                    rss_mb=round(held.rss_mb, 3),
                    pss_mb=round(held.pss_mb, 3),
                    allocated_mb=round(held.allocated_mb, 3),
                    drops=dict(daemon.status().drops),
                )
            )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample every SAMPLE_EVERY_S while the block runs."""
        over = threading.Event()
        failures: list[LabFailure] = []

        def watch() -> None:
            while not over.wait(SAMPLE_EVERY_S - self.at_s % SAMPLE_EVERY_S):
                try:
                    self.look(rest=False)
                except LabFailure as failure:
                    failures.append(failure)
                    return

        thread = threading.Thread(target=watch, name="samples")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if failures:
            raise failures[0]

    def await_rest(self) -> float:
        """Wait until no daemon has a data-plane socket; return the seconds that took."""
        return self.realm.await_idle(within_s=REST_WITHIN_S)

    def tails(self) -> str:
        """The ends of all daemons' logs."""
        return self.realm.tails()


# --- the rounds -------------------------------------------------------------------------------------------------


def full_rate(soak: Soak, number: int) -> Round:
    """Carry TCP, each round the other way; every other pair of rounds four flows, every third a second destination."""
    alpha, bravo, rod = soak.hosts
    there, back = (alpha, bravo) if number % 2 else (bravo, alpha)
    to = back.overlay_addresses()[number // 2 % 2]
    flows = ("1", "4")[number // 2 % 2]
    beside = [pinging(there, to)]
    if number % 3 == 0:
        beside.append(
            pinging(there, rod.overlay_addresses()[1])
        )  # a further link, and a further destination in the queue
    mbit = there.iperf3(back, to, "--parallel", flows, seconds=FULL_RATE_S)
    sent, lost = answered(soak, beside)
    what = f"TCP, {flows} flow{'s' * (flows != '1')}, {there.name} to {back.name}"
    return Round(round(soak.at_s, 1), what, round(mbit, 1), sent, lost, round(soak.await_rest(), 2))


def moved(soak: Soak, _number: int) -> Round:
    """Carry TCP at full rate, and move it onto the relay and back twice."""
    alpha, bravo, rod = soak.hosts
    to = bravo.overlay_addresses()[1]
    serving = bravo.serve_iperf3()
    beside = [pinging(alpha, to)]
    flow = alpha.spawn("flow", "iperf3", "--client", to, "--json", "--time", str(2 * FULL_RATE_S))
    wait_for(lambda: beside[0].output().count("time=") > 3, "a stream", within_s=10, logs=tuple(soak.daemons.values()))
    for way in (("--via", rod.name), ("--direct",)) * 2:
        alpha.conflux("route", "move", bravo.name, *way)
        alpha.run("sleep", "1")
    if flow.wait(2 * FULL_RATE_S + 20):
        raise LabFailure(f"a flow that was moved did not end well{flow.tail()}{soak.tails()}")
    serving.wait(5)
    sent, lost = answered(soak, beside)
    mbit = round(gauge.iperf3_mbit(flow.output()), 1)
    return Round(
        round(soak.at_s, 1), "TCP, moved onto a relay and back, twice", mbit, sent, lost, round(soak.await_rest(), 2)
    )


def cold(soak: Soak, _number: int) -> Round:
    """Send one packet to each of the others: a stream and a link come and go for it."""
    alpha, bravo, rod = soak.hosts
    beside = [pinging(one, other.overlay_addresses()[1], "-c", "1") for one, other in ((alpha, bravo), (bravo, rod))]
    for ping in beside:
        ping.wait(15)
    sent, lost = answered(soak, beside)
    return Round(round(soak.at_s, 1), "one packet", 0.0, sent, lost, round(soak.await_rest(), 2))


# The order of rounds; a relay carries in one of six.
ROUNDS = (full_rate, full_rate, cold, full_rate, full_rate, moved)


def pinging(host: Host, address: str, *options: str) -> Process:
    """Start a ping that goes on until it is stopped."""
    return host.spawn("ping", "ping", "-n", "-i", "0.1", "-W", "10", *options, address)


def answered(soak: Soak, running: list[Process]) -> tuple[int, int]:
    """End the pings; return how many packets they sent and how many were lost."""
    sent = lost = 0
    for ping in running:
        ping.signal(signal.SIGINT)
        ping.wait(15)
        counted = gauge.pings(ping.output())
        if not counted.received:
            raise LabFailure(f"no ping was answered{ping.tail()}{soak.tails()}")
        sent += counted.sent
        lost += counted.lost
        ping.log.unlink()  # half an hour of logs would fill /run, which is memory
    return sent, lost


# --- the verdict ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the resources of one daemon at rest changed after the warm-up.

    threads and descriptors: the most of the first three rests after the warm-up, and the least of the last three.  More
    is growth: a descriptor that is open for a moment, as of the API's connection, is not in all three.
    """

    host: str
    threads: tuple[int, int]
    descriptors: tuple[int, int]
    allocated_mb: tuple[float, float]
    growth_kib_per_round: float
    over_s: float

    @property
    def faults(self) -> list[str]:
        """One sentence for each thing that grew."""
        found = [
            f"{self.host}: {what} grew from {first} to {last}"
            for what, (first, last) in (("threads", self.threads), ("descriptors", self.descriptors))
            if last > first
        ]
        if self.over_s >= JUDGED_S_MIN and self.growth_kib_per_round > GROWTH_KIB_PER_ROUND_MAX:
            grew = f"{self.growth_kib_per_round:.1f} KiB a round (at most {GROWTH_KIB_PER_ROUND_MAX:g})"
            found.append(f"{self.host}: memory grew by {grew}")
        return found


def judge(samples: Sequence[Sample], host: str) -> Verdict:
    """Return the verdict on a host.  Raises LabFailure if there are too few samples."""
    rests = [sample for sample in samples if sample.rest and sample.host == host]
    after = [sample for sample in rests if sample.at_s >= WARM_UP_SHARE * rests[-1].at_s]
    if len(after) < 6:
        raise LabFailure(f"{len(after)} rests after the warm-up are too few to say anything; let it run longer")
    first, last = after[:3], after[-3:]
    return Verdict(
        host=host,
        threads=(max(s.threads for s in first), min(s.threads for s in last)),
        descriptors=(max(s.descriptors for s in first), min(s.descriptors for s in last)),
        allocated_mb=(
            round(statistics.median(s.allocated_mb for s in first), 2),
            round(statistics.median(s.allocated_mb for s in last), 2),
        ),
        growth_kib_per_round=round(1024 * slope([(number, s.allocated_mb) for number, s in enumerate(after)]), 2),
        over_s=round(after[-1].at_s - after[0].at_s, 1),
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the median of the slopes between any two points (Theil and Sen): one burst does not tilt it."""
    return statistics.median(
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for number, earlier in enumerate(points)
        for later in points[number + 1 :]
        if later[0] > earlier[0]
    )


# --- the run ----------------------------------------------------------------------------------------------------


def run(soak: Soak, minutes: float) -> None:
    """Play rounds until the time is over."""
    chapter(f"{minutes:g} minutes of rounds; idle timeout {IDLE_TIMEOUT_S:g} s, linger {LINGER_S:g} s")
    number = 0
    while soak.at_s < 60 * minutes:
        number += 1
        with soak.watched():
            done = ROUNDS[number % len(ROUNDS)](soak, number)
        soak.rounds.append(done)
        soak.look(rest=True)
        now = soak.samples[-len(soak.daemons) :]
        held = ", ".join(f"{s.threads}/{s.descriptors}/{s.allocated_mb:.1f}" for s in now)
        tell(f"{number}", f"{done.what}: {done.mbit:.0f} Mbit/s, {done.pings_lost} of {done.pings} pings lost; {held}")
        if number % 10 == 0:
            report(soak, minutes, [])


def report(soak: Soak, minutes: float, verdicts: list[Verdict]) -> None:
    """Deliver everything seen so far, and the picture."""
    rates = sorted(done.mbit for done in soak.rounds if done.mbit)
    faults = [fault for verdict in verdicts for fault in verdict.faults]
    last = {sample.host: sample for sample in soak.samples}
    findings: dict[str, Any] = {
        "machine": gauge.machine(),
        "minutes": minutes,
        "settings": {"idle_timeout_s": IDLE_TIMEOUT_S, "linger_s": LINGER_S, "sample_every_s": SAMPLE_EVERY_S},
        "bounds": {"growth_kib_per_round": GROWTH_KIB_PER_ROUND_MAX, "threads": 0, "descriptors": 0},
        "ended": bool(verdicts),
        "faults": faults,
        "rounds": len(soak.rounds),
        "mbit": {"least": rates[0], "median": statistics.median(rates), "most": rates[-1]} if rates else {},
        "gbit_carried": round(sum(done.mbit * FULL_RATE_S for done in soak.rounds) / 1e3, 1),
        "pings": {"sent": sum(d.pings for d in soak.rounds), "lost": sum(d.pings_lost for d in soak.rounds)},
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "drops": {name: sample.drops for name, sample in last.items()},
        "each_round": [asdict(done) for done in soak.rounds],
        "samples": [asdict(sample) for sample in soak.samples],
    }
    deliver("soak.json", json.dumps(findings, indent=1) + "\n")
    deliver("soak.svg", chart(soak.samples, findings))


def main() -> int:
    """Soak, judge and show; return 1 if something grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"how long ({MINUTES:g})")
    minutes: float = parser.parse_args().minutes
    print(paint("1", "Conflux soak: nothing grows"))
    lab = Lab({"stream": {"idle_timeout": IDLE_TIMEOUT_S}, "link": {"linger": LINGER_S}})
    lan = lab.lan()
    hosts = tuple(lab.host(name, lan) for name in ("alpha", "bravo", "rod"))
    soak = Soak(lab, hosts, lab.realm(*hosts))
    run(soak, minutes)
    verdicts = [judge(soak.samples, host.name) for host in hosts]
    report(soak, minutes, verdicts)
    chapter(f"After {time.monotonic() - STARTED:.0f} s and {len(soak.rounds)} rounds, at rest, after the warm-up")
    for verdict in verdicts:
        threads, descriptors, memory = (
            f"{one:g} to {other:g}" for one, other in (verdict.threads, verdict.descriptors, verdict.allocated_mb)
        )
        tell(verdict.host, f"threads {threads}, descriptors {descriptors}, allocated {memory} MB,")
        tell("", f"{verdict.growth_kib_per_round:+.2f} KiB a round (at most {GROWTH_KIB_PER_ROUND_MAX:g})")
        drops = next(sample.drops for sample in reversed(soak.samples) if sample.host == verdict.host)
        tell("", f"drops counted: {drops}")
    print("\nbuild/soak.json has all of it, build/soak.svg the picture.", flush=True)
    faults = [fault for verdict in verdicts for fault in verdict.faults]
    for fault in faults:
        print(f"{paint('31', 'soak: failed')}: {fault}", flush=True)
    return int(bool(faults))


if __name__ == "__main__":
    raise SystemExit(play("soak", main))
