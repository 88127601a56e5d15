"""The grammar of `conflux bench`."""

from __future__ import annotations

from conflux.cli.grammar import Commands, adder, json_option, path


def add_bench(commands: Commands) -> None:
    """Add `conflux bench`."""
    bench = adder(commands)(
        "bench",
        "bench:bench",
        "measure this board, without a second one",
        "conflux bench --out report\n  conflux bench --compare pi4.json pi5.json",
    )
    bench.add_argument("--quick", action="store_true", help="in 20 seconds instead of two minutes, with more spread")
    bench.add_argument("--out", type=path, metavar="DIR", help="where the report goes: JSON and a page (default: here)")
    bench.add_argument("--force", action="store_true", help="replace a report that is there")
    bench.add_argument(
        "--compare", nargs=2, type=path, metavar=("A", "B"), help="two reports, side by side, instead of measuring"
    )
    json_option(bench)
