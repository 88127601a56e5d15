"""`conflux realm audit`: what this issuer did, when and to whom; and whether the record of it holds."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from typing import NamedTuple

from conflux.cli import show
from conflux.cli.observe import print_json
from conflux.cli.office import date, open_office
from conflux.errors import UserError
from conflux.ids import format_node_id
from conflux.realm.audit import Broken, Entry, Head, verified
from conflux.state.audit_files import AuditFiles


class AuditRow(NamedTuple):
    """One entry.  at: unix seconds.  node: an id; None if it is about no node."""

    number: int
    at: int
    what: str
    node: str | None
    name: str | None
    detail: str


class Entries(NamedTuple):
    """The answer to `conflux realm audit`."""

    entries: tuple[AuditRow, ...]


class Verified(NamedTuple):
    """The answer to `conflux realm audit --verify`.  last_number, last_hash: of the newest entry."""

    verified_entries: int
    last_number: int
    last_hash: str


def audit(options: argparse.Namespace) -> int:
    """Print the newest entries, or verify all of them."""
    office = open_office(options)
    log = AuditFiles(office.state, office.member.realm_id)
    key = office.member.keys.public
    count, kept = 0, deque[Entry](maxlen=options.last)
    try:
        for entry in verified(log.lines(), key, office.member.realm_id):
            count += 1
            kept.append(entry)
    except Broken as error:
        raise UserError(f"{log.path}: the record does not hold: {error}") from None
    if options.verify:
        return _print_verified(count, log.head(), as_json=options.json)
    rows = [_row(entry) for entry in kept]
    if options.json:
        return print_json(Entries(tuple(rows)))
    cells = [(row.number, date(row.at), row.what, row.name or row.node, row.detail) for row in rows]
    text = show.table(("", "when", "what", "who", "how"), cells, columns=show.columns()) if cells else "nothing yet"
    sys.stdout.write(text + "\n")
    return 0


def _print_verified(count: int, head: Head, *, as_json: bool) -> int:
    if as_json:
        return print_json(Verified(count, head.number, head.digest.hex()))
    gone = head.number - count
    before = f"; the {gone} before them are gone by rotation" if gone else ""
    sys.stdout.write(f"the record holds: {count} entries{before}\nlast  {head.number}  {head.digest.hex()}\n")
    return 0


def _row(entry: Entry) -> AuditRow:
    node = format_node_id(entry.node) if entry.node else None
    return AuditRow(entry.number, entry.at, entry.what, node, entry.name or None, entry.detail)
