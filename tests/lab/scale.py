"""`make control-full`: what up to a thousand nodes cost a broker of three servers.  The cost of one may not grow.

Every node has the real plane, stream handshake and NATS adapter (rig/crowd.py); all are in this process, so a delay has
its share of this process too.  The rows go to build/control-scale.json, a picture to build/control-scale.svg, and what
a node costs at rest among a thousand to build/control.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict

from rig import gauge
from rig.enter import add_figures, deliver
from rig.narration import paint, play, tell
from rig.scale import Plan, Row, measure
from rig.scale_chart import chart

COUNTS = (10, 100, 300, 1000)
REST_S = 200.0  # two pings of each connection: a multiple of PAIR_PING_S
START_PER_S = 50.0  # handshakes of both ends share this machine's cores
STREAMS_MAX = 300
# What grows with the crowd at rest is the presence of an area, which has 128 nodes at most.
IDLE_KB_PER_MIN_MAX = 0.7
CONSTANT_WITHIN = 1.25  # from a hundred nodes on: areas are nearly full then


def faults(rows: Sequence[Row]) -> list[str]:
    """Return what does not hold: one sentence each."""
    found = [f"{row.nodes} nodes: {row.streams_failed} streams failed" for row in rows if row.streams_failed]
    found += [
        f"{row.nodes} nodes: {row.idle_kb_per_min:.2f} kB a minute at rest"
        for row in rows
        if max(row.idle_kb_per_min, row.idle_measured_kb_per_min or 0.0) >= IDLE_KB_PER_MIN_MAX
    ]
    full = [row for row in rows if row.nodes >= 100]
    for figure in ("idle_kb_per_min", "messages_per_stream", "kb_per_stream"):
        values = [getattr(row, figure) for row in full]
        if values and max(values) > CONSTANT_WITHIN * min(values):
            found.append(f"{figure} is not constant: {values}")
    return found


def show(row: Row) -> None:
    """Print a row."""
    tell(f"{row.nodes}", f"joined in {row.joined_s:.1f} s, {row.join_kb_per_node:.0f} kB each; {row.areas} areas")
    measured = f", {row.idle_measured_kb_per_min:.2f} measured" if row.idle_measured_kb_per_min is not None else ""
    tell("", f"at rest {row.idle_kb_per_min:.2f} kB a minute each{measured}; servers {row.server_mb} MB")
    tell("", f"{row.streams} streams: {row.messages_per_stream:g} messages, {row.kb_per_stream:.0f} kB, "
             f"{row.stream_ms_median:.0f} ms, 99 % within {row.stream_ms_p99:.0f} ms; {row.retries} retries; "
             f"{row.server_cpu_ms_per_stream:.1f} ms of the servers")  # fmt: skip
    tell("", f"drops: { {str(reason): number for reason, number in row.drops.items()} }")


def main() -> int:
    """Measure, show and judge; return 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=COUNTS, help="how many nodes, in turn")
    parser.add_argument("--rest", type=float, default=REST_S, help=f"seconds of rest ({REST_S:g})")
    options = parser.parse_args()
    print(paint("1", "Conflux at scale: a broker of three servers"))
    rows = []
    for count in options.nodes:
        rows.append(asyncio.run(measure(Plan(count, STREAMS_MAX, start_per_s=START_PER_S, rest_s=options.rest))))
        show(rows[-1])
        findings = {"machine": gauge.machine(), "faults": faults(rows), "rows": [asdict(row) for row in rows]}
        deliver("control-scale.json", json.dumps(findings, indent=1) + "\n")
        deliver("control-scale.svg", chart(rows, gauge.machine()))
    if rows[-1].nodes == COUNTS[-1]:
        last = rows[-1]
        figures = {
            "idle_kb_per_min_1000": last.idle_measured_kb_per_min or last.idle_kb_per_min,
            "stream_ms_p99_1000": last.stream_ms_p99,
            "joined_s_1000": last.joined_s,
        }
        add_figures("control.json", figures)
    print("\nbuild/control-scale.json has all of it, build/control-scale.svg the picture.", flush=True)
    for fault in faults(rows):
        print(f"{paint('31', 'scale: failed')}: {fault}", flush=True)
    return int(bool(faults(rows)))


if __name__ == "__main__":
    raise SystemExit(play("scale", main))
