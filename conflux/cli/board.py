"""`conflux board renew`: a board whose card was copied forgets whose copy it is."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from conflux.api.client import NotRunning
from conflux.bench.report import BYTES_MAX, JSON_NAME, PAGE_NAME
from conflux.board import renew as board_renew
from conflux.board.files import Fat
from conflux.board.places import Places
from conflux.cli import context
from conflux.cli.daemon import DOWN_TIMEOUT_S
from conflux.cli.observe import print_json
from conflux.errors import StateError, UserError
from conflux.ids import format_node_id
from conflux.realm.member import Member
from conflux.state import erasing
from conflux.state.directory import GRANT, ROOT_KEY, StateDir
from conflux.state.founding import issuer_of
from conflux.web.measured import PLACE

FLASHED: Final = Path("/usr/lib/conflux-board/image")  # on a board that was flashed with an image of Conflux
UNIT: Final = "conflux.service"
ASKED: Final = ("bench", "bench.txt")  # on the card: who has no other way to this board asks by such a file


class BoardRenewed(NamedTuple):
    """The answer to `conflux board renew`.

    name, node, realm: what this board was; null if it was no member, or that could not be read.  restarting: it
    starts again, and is a new board then.
    """

    name: str | None
    node: str | None
    realm: str | None
    restarting: bool


def renew(options: argparse.Namespace) -> int:
    """Forget this node's keys, its realm and all that it learned."""
    config = context.load(options)
    is_flashed = FLASHED.exists() and options.state_dir is None and options.config is None
    state = StateDir.open(config.node.state_dir)
    member = _member(state, force=options.force)
    if not options.yes:
        _ask(member, is_flashed, sys.stderr if options.json else sys.stdout)
    if is_flashed:
        board_renew.begin(Places())
        restarts_service = False
    else:
        restarts_service = _stop(options)
        state.lock()
        try:
            erasing.begin(state.path)
            erasing.finish(state.path)
        finally:
            state.close()
    if options.json:
        print_json(_answer(member, restarting=is_flashed))
    else:
        sys.stdout.write("\n".join(_told(member, state.path, is_flashed, restarts_service)) + "\n")
    if is_flashed:
        _systemctl("reboot")
    elif restarts_service:
        _systemctl("start", UNIT)
    return 0


def bench(options: argparse.Namespace) -> int:
    """Measure this board; the report goes on the card's FAT partition, and is shown by the page."""
    if not FLASHED.exists():
        raise UserError("this board was not flashed with an image of Conflux: `conflux bench` measures any board")
    fat = Fat(Places().fat)
    for name in ASKED:
        fat.remove(name)  # first: a board that fails at this must not try it at every start
    code = measure(options.quick)
    for name in (JSON_NAME, PAGE_NAME):
        fat.write(name, context.read_file(PLACE / name, BYTES_MAX))
    sys.stderr.write(f"the report is on the card, {PAGE_NAME}, and on this board's page, at /bench\n")
    return code


def measure(quick: bool) -> int:
    """Measure, with the report in PLACE; return the exit code of `conflux bench`."""
    from conflux.cli.bench import bench as run  # loads what it measures with

    return run(argparse.Namespace(compare=None, quick=quick, out=PLACE, force=True, json=False))


def _member(state: StateDir, *, force: bool) -> Member | None:
    """Return what this board is a member as; None if it is none, or that cannot be read.  Raises UserError."""
    try:
        member = state.member()
        issues = member is not None and (state.root_key() is not None or issuer_of(state, member) is not None)
    except StateError:  # damaged: one more reason to begin anew
        member, issues = None, any((state.path / name).exists() for name in (ROOT_KEY, GRANT))
    if issues and not force:
        who = "this board" if member is None else f"{member.name} issues for realm {member.anchor.name}, and"
        raise UserError(f"{who} has keys that its realm needs; if it is the copy, and the original works: --force")
    return member


def _ask(member: Member | None, is_flashed: bool, out: TextIO) -> None:
    """Have a person say that it is meant.  Raises UserError."""
    if not sys.stdin.isatty():
        raise UserError("no terminal to ask on: --yes forgets this node's keys without asking")
    who = "this board" if member is None else f"{member.name} of realm {member.anchor.name}"
    then = ", and starts again" if is_flashed else ""
    out.write(f"{who} forgets its keys for good{then}; a new token lets it in as another node.  Renew? [y/N] ")
    out.flush()
    if sys.stdin.readline(16).strip().lower() not in ("y", "yes"):
        raise UserError("not renewed; nothing was changed")


def _stop(options: argparse.Namespace) -> bool:
    """End the daemon if one runs; return whether it is a service, which is to be started again."""
    try:
        context.daemon(options).call_to_end("down", DOWN_TIMEOUT_S)
    except NotRunning:
        return False
    given = options.state_dir is not None or options.config is not None
    return not given and Path("/run/systemd/system").exists() and _systemctl("is-enabled", "--quiet", UNIT) == 0


def _systemctl(*words: str) -> int:
    program = shutil.which("systemctl")
    if program is None:
        return 1
    return subprocess.run([program, *words], check=False).returncode  # noqa: S603  # a program of the system


def _answer(member: Member | None, *, restarting: bool) -> BoardRenewed:
    if member is None:
        return BoardRenewed(None, None, None, restarting)
    return BoardRenewed(member.name, format_node_id(member.node_id), member.anchor.name, restarting)


def _told(member: Member | None, path: Path, is_flashed: bool, restarts_service: bool) -> list[str]:
    who = "This board" if member is None else f"{member.name}, {format_node_id(member.node_id)},"
    if is_flashed:
        return [
            f"{who} starts again now, and is a new board then.",
            "Next: put a token into conflux.toml on its card, or `conflux join TOKEN --name NAME`.",
        ]
    up = "" if restarts_service else " and `conflux up`"
    return [
        f"{who} is forgotten: {path} is empty.",
        f"Next: `conflux join TOKEN --name NAME`{up}.",
        "A copied host has the other's machine id and ssh host keys too: see docs/how-to/trouble.md.",
    ]
