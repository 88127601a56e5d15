"""Shows the figures of `make bench`, and puts them all into build/bench.json.

build/bench.json is pytest-benchmark's own file, with one more key, "whole_program": the figures of
bench/whole_program.py.  Two such files, from two machines or two commits, are compared with `pytest-benchmark compare`
as far as the hot paths go.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BUILD = Path(__file__).resolve().parents[1] / "build"

# Figure, unit, meaning.
WHOLE_PROGRAM = (
    ("cold_ms", "ms", "first ping through a fresh stream and link, median"),
    ("cold_ms_min", "ms", "the same, best"),
    ("cold_ms_max", "ms", "the same, worst"),
    ("warm_ms", "ms", "ping while the link is open, median"),
    ("tcp_mbit", "Mbit/s", "TCP, one flow"),
    ("tcp_reverse_mbit", "Mbit/s", "TCP, one flow, the other way"),
    ("tcp_4_flows_mbit", "Mbit/s", "TCP, four flows"),
    ("bare_wire_mbit", "Mbit/s", "TCP on the same wire without Conflux"),
    ("tcp_cpu_s_per_gbit", "s", "processor time per Gbit, both daemons"),
    ("cold_exchange_bytes", "bytes", "on the wire for one cold ping, from nothing to nothing, both ways"),
    ("cold_exchange_data_plane_bytes", "bytes", "of these, on the link (the rest is control channel)"),
    ("rest_bytes_per_min", "bytes", "control channel at rest, per minute, both ways"),
    ("rest_cpu_percent", "%", "processor at rest, one daemon"),
    ("ready_s", "s", "from start to READY=1"),
    ("rss_before_the_first_link_mb", "MB", "memory of a daemon, resident, before its first link"),
    ("rss_idle_mb", "MB", "memory, resident, idle after links"),
    ("rss_idle_after_load_mb", "MB", "memory, resident, idle after iperf3"),
    ("pss_idle_mb", "MB", "memory, its share, idle after links"),
)


def number(value: float) -> str:
    """Return value with three significant digits and no exponent."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def duration(seconds: float) -> str:
    """Return seconds in a fitting unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds * 1e9)} ns"


def hot_paths(benchmarks: list[dict[str, Any]]) -> str:
    """Return the table of pytest-benchmark's results."""
    width = max((len(row["name"]) for row in benchmarks), default=0)
    lines = [f"  {'hot path':<{width}} {'median':>12} {'best':>12} {'rounds':>8}  noted"]
    for row in sorted(benchmarks, key=lambda row: row["fullname"]):
        stats = row["stats"]
        noted = ", ".join(f"{key} {value}" for key, value in row["extra_info"].items())
        times = f"{duration(stats['median']):>12} {duration(stats['min']):>12} {stats['rounds']:>8}"
        lines.append(f"  {row['name']:<{width}} {times}  {noted}".rstrip())
    return "\n".join(lines)


def whole_program(figures: dict[str, Any]) -> str:
    """Return the table of the lab's figures, with the parts of memory and imports."""
    lines = [f"  {'whole program':<32} {'measured':>16}  what it is"]
    for name, unit, text in WHOLE_PROGRAM:
        lines.append(f"  {name:<32} {f'{number(figures[name])} {unit}':>16}  {text}")
    lines += ["", "  memory of an idle daemon, by share (MB)"]
    lines += [f"    {size:8.1f}  {part}" for part, size in figures["memory_parts_idle_mb"].items()]
    lines += ["", "  importing the daemon (ms)"]
    lines += [f"    {took:8.0f}  {package}" for package, took in figures["import_ms"].items()]
    return "\n".join(lines)


def main() -> int:
    """Join the two reports and print their tables."""
    path = BUILD / "bench.json"
    report: dict[str, Any] = json.loads(path.read_text())
    figures = report["whole_program"] = json.loads((BUILD / "whole_program.json").read_text())
    path.write_text(json.dumps(report, indent=2) + "\n")
    machine = figures["machine"]
    print(
        f"\n{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}\n"
    )
    print(hot_paths(report["benchmarks"]))
    print()
    print(whole_program(figures))
    print("\nbuild/bench.json has all of it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
