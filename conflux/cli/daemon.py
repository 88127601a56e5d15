"""`conflux up` and `conflux down`."""

from __future__ import annotations

import argparse

from conflux.cli import context

DOWN_TIMEOUT_S = 30.0


def up(options: argparse.Namespace) -> int:
    """Run the daemon."""
    config = context.load(options)
    context.warn_of_readable_secrets(options, config)
    from conflux.daemon.run import run  # loads WebRTC, so it comes after the configuration is known to be good

    return run(config)


def down(options: argparse.Namespace) -> int:
    """Stop the daemon and wait until it is gone."""
    context.daemon(options).call_to_end("down", DOWN_TIMEOUT_S)
    return 0
