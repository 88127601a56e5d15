"""`conflux help` and `conflux version`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import NamedTuple

from conflux import __version__
from conflux.api import scheme
from conflux.cli.parser import parser


def show(options: argparse.Namespace) -> int:
    """Print the help of the command that is named, or of all.  It ends the process, as --help does."""
    parser().parse_args([*options.words, "--help"])
    return 0


class Version(NamedTuple):
    """The answer to `conflux version`."""

    version: str


def version(options: argparse.Namespace) -> int:
    """Print the version."""
    text = json.dumps(scheme.answer(Version(__version__))) if options.json else f"conflux {__version__}"
    sys.stdout.write(text + "\n")
    return 0
