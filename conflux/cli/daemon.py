"""`conflux up`, `conflux down` and `conflux reload`."""

from __future__ import annotations

import argparse
import sys

from conflux.cli import context
from conflux.cli.observe import answered, print_json
from conflux.config import settings
from conflux.config.settings import Origin

DOWN_TIMEOUT_S = 30.0


def up(options: argparse.Namespace) -> int:
    """Run the daemon."""
    config = context.load(options)
    context.warn_of_readable_secrets(options, config)
    from conflux.daemon.run import run  # loads WebRTC, so it comes after the configuration is known to be good

    path = None if options.config is None else options.config.absolute()
    state_dir = None if options.state_dir is None else options.state_dir.absolute()
    return run(config, origin=Origin(path, state_dir))


def down(options: argparse.Namespace) -> int:
    """Stop the daemon and wait until it is gone."""
    context.daemon(options).call_to_end("down", DOWN_TIMEOUT_S)
    return 0


def reload(options: argparse.Namespace) -> int:
    """Have the running daemon take the configuration; print what changed, and what needs a restart."""
    context.load(options)  # a mistake is said here, with its line, and the daemon hears nothing of it
    path = options.config or settings.PATH_DEFAULT
    text = settings.read(path) if options.config is not None or path.exists() else ""
    got = answered(context.daemon(options).call("reload", text=text))
    if options.json:
        return print_json(got)
    changed, restart = ", ".join(got["changed"]), ", ".join(got["restart"])
    lines = [f"changed: {changed}"] if changed else []
    lines += [f"needs a restart: {restart}"] if restart else []
    sys.stdout.write("\n".join(lines or ["nothing has changed"]) + "\n")
    return 0
