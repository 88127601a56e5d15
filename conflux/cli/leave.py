"""`conflux leave`: this node's membership ends; its keys stay."""

from __future__ import annotations

import argparse
import sys
from typing import NamedTuple, TextIO

from conflux.api.client import NotRunning
from conflux.cli import context
from conflux.cli.daemon import DOWN_TIMEOUT_S
from conflux.cli.observe import answered, print_json
from conflux.errors import StateError, UserError
from conflux.ids import format_node_id
from conflux.realm.member import Member
from conflux.state.directory import StateDir
from conflux.state.founding import issuer_of


class Left(NamedTuple):
    """The answer to `conflux leave`.  told: the issuer knows.  kept: the directory with the keys."""

    name: str
    node: str
    realm: str
    told: bool
    kept: str


def _ask(member: Member, out: TextIO) -> None:
    """Have a person say that it is meant.  Raises UserError."""
    if not sys.stdin.isatty():
        raise UserError(f"no terminal to ask on: --yes leaves realm {member.anchor.name} without asking")
    said = f"{member.name} leaves realm {member.anchor.name}; only a new token lets it in again"
    out.write(f"{said}.  Leave? [y/N] ")
    out.flush()
    if sys.stdin.readline(16).strip().lower() not in ("y", "yes"):
        raise UserError("not left; nothing was changed")


def leave(options: argparse.Namespace) -> int:
    """Tell the issuer if it can be reached, stop the daemon, and forget the realm."""
    state = StateDir.open(context.load(options).node.state_dir)
    member = state.member()
    if member is None:
        raise StateError(f"{state.path}: in no realm, so there is nothing to leave")
    if not options.force and (state.root_key() is not None or issuer_of(state, member) is not None):
        raise UserError(
            f"{member.name} issues for realm {member.anchor.name}: its members need it, or another board in its place "
            "(conflux realm backup, conflux realm restore).  --force leaves all the same"
        )
    if not options.yes:
        _ask(member, sys.stderr if options.json else sys.stdout)
    told = False
    client = context.daemon(options)
    try:
        told = bool(answered(client.call("leave")).get("told"))
        client.call_to_end("down", DOWN_TIMEOUT_S)
    except NotRunning:
        pass
    state.lock()
    try:
        state.forget_realm()
    finally:
        state.close()
    node = format_node_id(member.node_id)
    if options.json:
        return print_json(Left(member.name, node, member.anchor.name, told, str(state.path)))
    issuer = "its issuer knows" if told else f"its issuer does not know yet; there: conflux realm revoke {node}"
    sys.stdout.write(f"{member.name} has left realm {member.anchor.name}; {issuer}\nIts keys stay in {state.path}.\n")
    return 0
