"""`conflux up`, `conflux down` and `conflux reload`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

from conflux.cli import context
from conflux.cli.entry import lives_long
from conflux.cli.observe import answered, print_json
from conflux.config import settings
from conflux.config.settings import Origin
from conflux.host import netlink
from conflux.host.log import start as start_log
from conflux.host.systemd import Notifier
from conflux.state.directory import StateDir

DOWN_TIMEOUT_S = 30.0


class Up(NamedTuple):
    """The answer to `conflux up`.  state: of daemon.background.How.  text: for a person.  log: the file."""

    state: str
    pid: int
    text: str
    log: str


class Down(NamedTuple):
    """The answer to `conflux down`.  pid: of the daemon that has ended."""

    pid: int


def up(options: argparse.Namespace) -> int:
    """Run the daemon, in the background or here."""
    config = context.load(options)
    context.warn_of_readable_secrets(options, config)

    path = None if options.config is None else options.config.absolute()
    state_dir = None if options.state_dir is None else options.state_dir.absolute()

    def run(notifier: Notifier, log: Path | None = None) -> int:
        from conflux.daemon import waiting
        from conflux.daemon.ending import ignore_hangup

        ignore_hangup()
        start_log(config.node.log_level, log)
        if not waiting.for_realm(config, notifier):
            return 0
        with netlink.Child() as child:
            child.start()
            from conflux.daemon.run import run  # loads WebRTC: not before there is a realm

            lives_long()
            return run(config, notifier, log, child=child, origin=Origin(path, state_dir))

    if options.foreground or "NOTIFY_SOCKET" in os.environ:  # a unit of version 0.1 does not say --foreground
        return run(Notifier())
    from conflux.daemon.background import LOG_NAME, How, start

    log = StateDir.open(config.node.state_dir, create=True).path / LOG_NAME
    started = start(lambda notifier: run(notifier, log), log)
    if options.json:
        return print_json(Up(started.how, started.pid, started.text, str(log)))
    state = "up" if started.how is How.READY else "the daemon runs"
    sys.stdout.write(f"{state}: {started.text}\nlog: {log}\n")
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop the daemon and wait until it is gone."""
    pid = context.daemon(options).call_to_end("down", DOWN_TIMEOUT_S)
    return print_json(Down(pid)) if options.json else 0


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
