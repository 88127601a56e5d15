"""The grammar of `conflux doctor` and `conflux report`."""

from __future__ import annotations

from conflux.cli.grammar import Commands, adder, json_option


def add_doctor(commands: Commands) -> None:
    """Add `doctor`."""
    doctor = adder(commands)(
        "doctor",
        "doctor:doctor",
        "look for what is wrong on this board, and say what mends it",
        "sudo conflux doctor\n  conflux doctor --json | jq '.findings[] | select(.grade == \"bad\")'",
    )
    doctor.add_argument("--quick", action="store_true", help="without what sends packets or takes more than a moment")
    json_option(doctor)
