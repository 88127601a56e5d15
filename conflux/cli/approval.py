"""`conflux realm pending`, `approve` and `refuse`: nodes that wait for a person."""

from __future__ import annotations

import argparse
import sys
from typing import NamedTuple

from conflux.cli import show
from conflux.cli.observe import print_json
from conflux.cli.office import Office, date, open_office
from conflux.errors import ConfigError, UserError
from conflux.ids import fold_name, format_node_id, parse_node_id
from conflux.realm.waiting import Decision, Waiting


class WaitingRow(NamedTuple):
    """A node that waits.  asked_at, expires_at: Unix seconds; the latter is the invitation's end.

    decision: of Decision.
    """

    name: str
    node: str
    invitation: str
    asked_at: int
    expires_at: int
    decision: str


class Pending(NamedTuple):
    """The answer to `conflux realm pending`."""

    pending: tuple[WaitingRow, ...]


class Decided(NamedTuple):
    """The answer to `conflux realm approve` and `conflux realm refuse`.  decision: of Decision.

    expires_at: the invitation's end.
    """

    name: str
    node: str
    decision: str
    expires_at: int


def pending(options: argparse.Namespace) -> int:
    """List the nodes that wait for a person."""
    office = open_office(options)
    rows = [_row(entry) for entry in sorted(_waiting(office), key=lambda entry: entry.asked_at)]
    if options.json:
        return print_json(Pending(tuple(rows)))
    if not rows:
        sys.stdout.write("nobody waits\n")
        return 0
    cells = [(row.name, row.node, date(row.asked_at), row.decision.replace("none", "waits")) for row in rows]
    sys.stdout.write(show.table(("name", "id", "asked", "state"), cells, columns=show.columns()) + "\n")
    return 0


def _waiting(office: Office) -> list[Waiting]:
    return [entry for entry in office.files.waiting() if entry.not_after > office.now_unix]


def _row(entry: Waiting) -> WaitingRow:
    return WaitingRow(
        entry.name,
        format_node_id(entry.node_id),
        entry.invite_id.hex(),
        entry.asked_at,
        entry.not_after,
        entry.decision,
    )


def approve(options: argparse.Namespace) -> int:
    """Let a node join that waits."""
    return _say(options, _decide(options, Decision.APPROVED), "may join: it asks again within seconds")


def refuse(options: argparse.Namespace) -> int:
    """Keep out a node that waits."""
    return _say(options, _decide(options, Decision.REFUSED), "is refused, as long as its invitation holds")


def _say(options: argparse.Namespace, entry: Waiting, text: str) -> int:
    if options.json:
        return print_json(Decided(entry.name, format_node_id(entry.node_id), entry.decision, entry.not_after))
    sys.stdout.write(f"{entry.name} {text}\n")
    return 0


def _decide(options: argparse.Namespace, decision: Decision) -> Waiting:
    office = open_office(options)
    word = fold_name(options.node)
    try:
        node_id = parse_node_id(word)
    except ConfigError:
        found = [entry for entry in _waiting(office) if entry.name == word]
    else:
        found = [entry for entry in _waiting(office) if entry.node_id == node_id]
    if not found:
        raise UserError(f"no node {options.node!r} waits: `conflux realm pending` lists those that do")
    if len(found) > 1:
        verb = "approve" if decision is Decision.APPROVED else "refuse"
        raise UserError(
            f"{len(found)} nodes wait as {word}: name the one you mean by the id that it shows itself: "
            f"`conflux realm {verb} ID {word}`"
        )
    name = _name_meant(options, found[0], decision)
    return office.issuer.decide(found[0].node_id, decision, name=name, now_unix=office.now_unix)


def _name_meant(options: argparse.Namespace, entry: Waiting, decision: Decision) -> str | None:
    """Return the name under which a person saw a node; None if it makes no difference.

    A node can ask under another name at any moment, so an id alone does not say what is approved.
    """
    word: str = fold_name(options.node if options.name is None else options.name)
    if word == entry.name:
        return word
    if options.name is not None:
        raise UserError(f"it waits as {entry.name} now, and not as {word}: look at `conflux realm pending`")
    if decision is Decision.APPROVED:
        command = f"conflux realm approve {format_node_id(entry.node_id)} {entry.name}"
        raise UserError(f"an approval is for a name too; it waits as {entry.name} now: `{command}`")
    return None
