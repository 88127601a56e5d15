"""`conflux update`: installs an update of a board image, says what became of one, keeps what runs, or goes back."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import NamedTuple

from conflux.board import running
from conflux.board import update as board_update
from conflux.board.rauc import Rauc
from conflux.board.trial import Boot, Trial
from conflux.board.update import Board, UpdateStatus
from conflux.board.update_files import UpdateFiles
from conflux.cli import context, show
from conflux.cli.observe import print_json
from conflux.errors import UsageError, UserError


class Updated(NamedTuple):
    """What starts next.  peers: names of who answered, of whom one has to answer again.  restarting: at once."""

    version: str
    slot: str
    former_version: str
    peers: tuple[str, ...]
    restarting: bool


class Marked(NamedTuple):
    """What was marked good."""

    version: str
    slot: str


def _board(options: argparse.Namespace) -> Board:
    """Return this board.  Raises UserError where this is none, or for a user who may not."""
    now = running.running()
    if os.geteuid() != 0:
        raise UserError("updates are root's: run it with sudo")
    return Board(now, Rauc(), UpdateFiles(), context.daemon(options), running.units)


def update(options: argparse.Namespace) -> int:
    """Install a bundle, restart into one that is installed, or print the status."""
    if options.status:
        if options.bundle is not None or options.reboot:
            raise UsageError("--status only looks: it goes with no bundle and no --reboot")
        return _status(options)
    if options.bundle is None and not options.reboot:
        raise UsageError("name a bundle, or ask for --status or --reboot (see conflux update --help)")
    board = _board(options)
    with Progress() as progress:
        if options.bundle is None:
            trial = board_update.remember_again(board, progress.tell)
        else:
            trial = board_update.install(board, options.bundle, progress.tell)
    done = _updated(trial, options.reboot)
    _print(options, done, describe_updated(done))
    if options.reboot:
        running.reboot()
    return 0


def _updated(trial: Trial, restarting: bool) -> Updated:
    peers = tuple(peer.name for peer in trial.peers)
    return Updated(trial.version, trial.slot, trial.former_version, peers, restarting)


def _print(options: argparse.Namespace, done: Updated, text: str) -> None:
    if options.json:
        print_json(done)
    else:
        sys.stdout.write(text + "\n")
    sys.stdout.flush()


def describe_updated(done: Updated) -> str:
    """Return what starts next, and what it will be judged by."""
    if done.peers:
        judged = f"it is kept if one of these answers again: {', '.join(done.peers)}"
    else:
        judged = "no node answered: it is judged by its units alone"
    return f"{_next(done, 'conflux update --reboot')}\n{judged}"


def describe_rollback(done: Updated, running: str) -> str:
    """Return what starts next, after a rollback.  running: the slot that runs."""
    if done.slot == running:
        return f"the update was taken back: {done.version} in slot {done.slot} runs on, and starts at the next boot"
    return _next(done, "conflux update rollback --reboot")


def _next(done: Updated, command: str) -> str:
    when = "the board restarts into it now" if done.restarting else f"it starts at the next boot: {command}"
    return f"{done.version} is in slot {done.slot}: {when}"


def mark_good(options: argparse.Namespace) -> int:
    """Keep what runs now."""
    board = _board(options)
    board_update.mark_good(board)
    done = Marked(board.now.image.version, board.now.slot)
    if options.json:
        return print_json(done)
    sys.stdout.write(f"{done.version} in slot {done.slot} is good\n")
    return 0


def rollback(options: argparse.Namespace) -> int:
    """Have the other slot start next."""
    board = _board(options)
    slot, version = board_update.rollback(board)
    # What runs already needs no restart.
    done = Updated(version, slot, board.now.image.version, (), options.reboot and slot != board.now.slot)
    _print(options, done, describe_rollback(done, board.now.slot))
    if done.restarting:
        running.reboot()
    return 0


def _status(options: argparse.Namespace) -> int:
    got = board_update.status(_board(options))
    if options.json:
        return print_json(got)
    sys.stdout.write(describe_status(got, columns=show.columns()) + "\n")
    return 0


def describe_status(got: UpdateStatus, *, columns: int = 80) -> str:
    """Return the text of `conflux update --status`."""
    other = "B" if got.slot == "A" else "A"
    rows: list[tuple[str, object]] = [
        ("runs", f"{got.version} in slot {got.slot}, for {got.board}"),
        ("other slot", f"{other}: {got.other_version or 'nothing that an update installed'}"),
        ("next boot", "not known" if got.next_slot is None else f"slot {got.next_slot}"),
        ("goes back to", f"{got.floor}, and no further"),
        ("update", _pending(got)),
    ]
    if got.last is not None:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(got.last.at))
        verdict = "good" if got.last.good else f"not taken: {got.last.why}"
        rows.append(("last", f"{got.last.version}, {at}: {verdict}"))
    return show.fields(rows, columns=columns)


def _pending(got: UpdateStatus) -> str:
    if got.update is None:
        return "none waits"
    version = f"{got.update.version} in slot {got.update.slot}"
    match got.update.stage:
        case Boot.PENDING:
            return f"{version} waits for a restart: conflux update --reboot"
        case Boot.TRIAL:
            return f"{version} is being judged: it waits for {got.update.waits_for or 'its start'}"
        case _:
            return f"{version} did not start; the reason is being looked for"


class Progress:
    """Shows how far an update is, on a terminal: there standard error has a line that changes."""

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the line away, so that an error has one of its own."""
        if self._on_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def tell(self, percent: int, words: str) -> None:
        """Show a step: how far it is, and what it does."""
        if self._on_terminal:
            sys.stderr.write(f"\r\x1b[K{percent:>3} %  {words}")
            sys.stderr.flush()
