"""`conflux realm revoke` and `conflux realm revoked`: end a membership, and see whose ended.

A running daemon does the revoking, so that all nodes hear of it at once.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

from conflux.api.client import NotRunning
from conflux.cli import context, show
from conflux.cli.observe import answered, print_json
from conflux.cli.office import date, in_realm, open_office
from conflux.errors import ConfluxError, UserError, words_of
from conflux.ids import fold_name, format_node_id
from conflux.state.broker_files import load_signer
from conflux.state.clock import realm_clock
from conflux.state.directory import StateDir
from conflux.state.issuer_files import IssuerFiles
from conflux.state.list_files import ListFiles
from conflux.state.revoking import DeniedRow, Revoked, Revoker, denied_rows, load_book


class BrokerTold(NamedTuple):
    """Whether a server of the broker was told.  server: None for all of them.  text: the rest, for a person."""

    server: str | None
    admits: bool
    text: str


class RevokedNode(NamedTuple):
    """The answer to `conflux realm revoke`.

    cancelled: ids of invitations that could have let the node in again.  told: the nodes in reach have heard of it.
    broker: empty where the realm has none.
    """

    name: str | None
    node: str
    reason: str
    cancelled: tuple[str, ...]
    told: bool
    broker: tuple[BrokerTold, ...]


class RevokedNodes(NamedTuple):
    """The answer to `conflux realm revoked`."""

    revoked: tuple[DeniedRow, ...]


def revoke(options: argparse.Namespace) -> int:
    """End a node's membership; the exit code says whether the broker knows, if it was to be told."""
    if options.broker is not None:
        from conflux.broker.directory import Directory

        Directory.open(options.broker)  # a slip of the pen is found before anything is done
    try:
        answer = answered(context.daemon(options).call("revoke", name=fold_name(options.name), reason=options.reason))
        node, name, cancelled, told = answer["node"], answer["name"], tuple(answer["cancelled"]), True
    except NotRunning:
        here = _revoke_here(options, fold_name(options.name))
        node, name, cancelled, told = format_node_id(here.node), here.name, tuple(here.cancelled), False
    code, broker = _tell_broker(options, node)
    done = RevokedNode(name if name != node else None, node, options.reason, cancelled, told, tuple(broker))
    if options.json:
        print_json(done)
    else:
        sys.stdout.write(show.fields(_fields(done)) + "\n")
    return code


def _fields(done: RevokedNode) -> list[tuple[str, str]]:
    """Return a revocation as a person reads it."""
    told = (
        "every node in reach; the others hear of it when they meet one that knows"
        if done.told
        else "nobody yet: no daemon runs here.  `conflux up` tells every node in reach"
    )
    fields = [("revoked", f"{done.name}, {done.node}" if done.name else done.node), ("told", told)]
    if done.cancelled:
        fields.append(("cancelled", f"{show.plural(len(done.cancelled), 'invitation')} that could let it in again"))
    return [*fields, *(("broker", " ".join(filter(None, (each.server, each.text)))) for each in done.broker)]


def _revoke_here(options: argparse.Namespace, target: str) -> Revoked:
    """Revoke without a daemon: it finds the list when it starts."""
    state = StateDir.open(context.load(options).node.state_dir)
    state.lock()
    try:
        member = in_realm(state)
        revoker = Revoker(state, member)
        node = revoker.find(target)
        if node is None:
            raise UserError(f"{target!r} is not on this issuer's record: give the node's id")
        clock = realm_clock(state)
        book = load_book(ListFiles(state), member, clock.now_unix)
        return revoker.revoke(book, node, reason=options.reason, now_unix=clock.now_unix())
    finally:
        state.close()


def _tell_broker(options: argparse.Namespace, node: str) -> tuple[int, list[BrokerTold]]:
    """Have the broker admit the node no more, if its operator's directory is given; else say that it still does."""
    directory: Path | None = options.broker
    config = context.load(options)
    state = StateDir.open(config.node.state_dir)
    if directory is None:
        has_broker = config.control.nats.servers or load_signer(state, in_realm(state).realm_id) is not None
        words = "still admits it, until its operator runs: conflux control push DIR"
        return 0, [BrokerTold(None, True, words)] if has_broker else []
    from conflux.cli.control import push_ended  # the client of a broker, which few commands need

    try:
        desk = open_office(options)
        outcome = push_ended(desk, directory)
    except (ConfluxError, OSError) as error:
        words = f"still admits it: {words_of(error)}.  Later: conflux control push {directory}"
        return 1, [BrokerTold(None, True, words)]
    rows = [BrokerTold(host, False, "admits it no more") for host in outcome.took]
    rows += [BrokerTold(host, True, f"may still admit it: {why}") for host, why in outcome.failed.items()]
    if not any(format_node_id(entry.node_id) == node and entry.node_public for entry in desk.files.issued()):
        where = "`conflux control push` at the issuer that let it in"
        words = f"still admits it: its key is not on this issuer's record; {where} ends that"
        return 1, [BrokerTold(None, True, words)]
    return (1 if outcome.failed else 0), rows


def revoked(options: argparse.Namespace) -> int:
    """List the nodes that are revoked, as far as this node knows."""
    state = StateDir.open(context.load(options).node.state_dir)
    member = in_realm(state)
    book = load_book(ListFiles(state), member, lambda: int(time.time()))
    names = {each.node_id: each.name for each in IssuerFiles(state).issued()}
    rows = denied_rows(book, member.anchor, names)
    if options.json:
        return print_json(RevokedNodes(tuple(rows)))
    table = [(row.name, row.node, date(row.revoked_at), row.by, row.reason) for row in rows]
    header = ("name", "node", "since", "by", "reason")
    text = show.table(header, table, columns=show.columns()) if table else "no node is revoked"
    sys.stdout.write(text + "\n")
    return 0
