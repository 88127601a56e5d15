"""The grammar of `conflux doctor` and `conflux report`."""

from __future__ import annotations

from conflux.cli.grammar import Commands, adder, json_option, path


def add_doctor(commands: Commands) -> None:
    """Add `doctor` and `report`."""
    doctor = adder(commands)(
        "doctor",
        "doctor:doctor",
        "look for what is wrong on this board, and say what mends it",
        "conflux doctor\n  conflux doctor --json | jq '.findings[] | select(.grade == \"bad\")'",
    )
    doctor.add_argument("--quick", action="store_true", help="without what sends packets or takes more than a moment")
    json_option(doctor)
    report = adder(commands)(
        "report",
        "report:write_report",
        "write an archive for the report of a fault, with no secret in it",
        "conflux report\n  conflux report fault.tar.gz",
    )
    report.add_argument(
        "file", nargs="?", type=path, metavar="FILE", help="the archive (default: named after the node)"
    )
    json_option(report)
