"""`conflux status --wait-ready`: wait until packets can pass, or say what is missing."""

from __future__ import annotations

import argparse
import time

from conflux.api.client import NotRunning
from conflux.api.ready import lacks
from conflux.cli import context, observe
from conflux.cli.observe import answered
from conflux.errors import UserError

LOOK_S = 0.2  # between two looks


def status(options: argparse.Namespace) -> int:
    """Print the status of the node; first wait until it is ready, if that is asked for."""
    if options.wait_ready is not None:
        wait(options, options.wait_ready)
    return observe.status(options)


def next_step(options: argparse.Namespace) -> str:
    """Return what a person does once this node is a member: a daemon that waits for that comes up by itself."""
    try:
        context.daemon(options).look("status")
    except NotRunning:
        return "conflux up"
    except UserError:
        pass
    return "conflux status --wait-ready (the daemon that waited comes up by itself)"


def wait(options: argparse.Namespace, within_s: float) -> None:
    """Return once the device and a control channel are up.  Raises UserError with what is missing after within_s."""
    client, ends_at = context.daemon(options), time.monotonic() + within_s
    while True:
        try:
            missing = lacks(answered(client.look("status")))
        except UserError as error:  # no daemon yet, or one that waits for a realm
            missing = str(error)
        if not missing:
            return
        if time.monotonic() >= ends_at:
            raise UserError(f"not ready after {within_s:g} s: {missing}")
        time.sleep(LOOK_S)
