"""What a command that was asked for JSON prints if it fails."""

from __future__ import annotations

from typing import NamedTuple


class Failure(NamedTuple):
    """The error of a command, beside the line on standard error."""

    error: str
