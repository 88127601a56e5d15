"""What the issuer's commands share: this node as an issuer, its records, and what a person calls a member or a date."""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

from conflux.cli import context
from conflux.errors import ConfigError, StateError, UserError
from conflux.ids import fold_name, parse_node_id
from conflux.realm.issued import Issued
from conflux.realm.issuer import Issuer
from conflux.realm.listbook import ListBook
from conflux.realm.member import Member
from conflux.realm.name import parse_node_name
from conflux.state.clock import realm_clock
from conflux.state.directory import StateDir
from conflux.state.founding import issuer_of
from conflux.state.issuer_files import IssuerFiles
from conflux.state.list_files import ListFiles
from conflux.state.revoking import load_book


class Office(NamedTuple):
    """An issuer at its desk.  now_unix: by the realm's clock."""

    state: StateDir
    member: Member
    issuer: Issuer
    files: IssuerFiles
    now_unix: int

    def book(self) -> ListBook:
        """Return the signed lists that are kept here."""
        return load_book(ListFiles(self.state), self.member, lambda: self.now_unix)

    def find(self, word: str) -> Issued:
        """Return the record of the member of a name or node id.  Raises UserError if there is none."""
        entries = list(self.files.issued())
        try:
            node_id = parse_node_id(fold_name(word))
        except ConfigError:
            name = parse_node_name(word)
            found = [entry for entry in entries if entry.is_member and entry.name == name]
        else:
            found = [entry for entry in entries if entry.is_member and entry.node_id == node_id]
        if not found:
            raise UserError(f"{self.member.name} has let in no member {word!r}: `conflux realm members` lists them")
        return found[0]


def in_realm(state: StateDir) -> Member:
    """Return this node as a member.  Raises StateError if it is none."""
    member = state.member()
    if member is None:
        raise StateError(f"{state.path}: in no realm yet; `conflux realm create` makes one")
    return member


def open_office(options: argparse.Namespace) -> Office:
    """Return this node as an issuer.  Raises UserError if it is none."""
    state = StateDir.open(context.load(options).node.state_dir)
    member = in_realm(state)
    issuer = issuer_of(state, member)
    if issuer is None:
        raise UserError(f"{member.name} does not issue for realm {member.anchor.name}: ask the node that made it")
    return Office(state, member, issuer, IssuerFiles(state), realm_clock(state).now_unix())


def date(unix: int) -> str:
    """Return a date for people, in this host's time zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix))
