"""`conflux realm members` and `conflux realm invites`: who was let in, and who still may come."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import NamedTuple

from conflux.cli import show
from conflux.cli.observe import print_json
from conflux.cli.office import Office, date, open_office
from conflux.errors import UserError
from conflux.ids import NodeId, format_node_id
from conflux.realm import address
from conflux.realm.invite import Invite
from conflux.realm.issued import End, Issued


class MemberRow(NamedTuple):
    """A node that this issuer let in.

    state: member, expired, or why its membership ended.  expires_at, admitted_at: Unix seconds; None: not known.
    due: it has not got yet what was granted to it last.
    """

    name: str
    node: str
    addresses: tuple[str, ...]
    tags: tuple[str, ...]
    capabilities: tuple[str, ...]
    state: str
    admitted_at: int | None
    expires_at: int
    former_names: tuple[str, ...]
    due: bool


class InviteRow(NamedTuple):
    """An invitation.  state: open, used-up or expired.  used_by: names, or node ids of nodes that are forgotten."""

    id: str
    state: str
    expires_at: int
    uses_max: int
    uses: int
    used_by: tuple[str, ...]
    tags: tuple[str, ...]
    capabilities: tuple[str, ...]
    replaces: str | None
    approval_required: bool


class Withdrawn(NamedTuple):
    """The answer to `conflux realm invites cancel`.  uses: how many joined with the invitation, and stay."""

    id: str
    uses: int


class Members(NamedTuple):
    """The answer to `conflux realm members`."""

    members: tuple[MemberRow, ...]


class Invites(NamedTuple):
    """The answer to `conflux realm invites`."""

    invites: tuple[InviteRow, ...]


def members(options: argparse.Namespace) -> int:
    """List the nodes that this issuer let in."""
    office = open_office(options)
    entries = sorted(office.files.issued(), key=lambda entry: (not entry.is_member, entry.name, entry.serial))
    denies = office.book().denies
    rows = [_member(office, entry, is_denied=denies(entry.node_id, office.issuer.issuer_id)) for entry in entries]
    if options.json:
        return print_json(Members(tuple(rows)))
    count = sum(entry.is_member for entry in entries)
    sys.stdout.write(
        f"{show.plural(count, 'member')} let in by {office.member.name}\n\n{member_table(rows, show.columns())}\n"
    )
    return 0


def _member(office: Office, entry: Issued, *, is_denied: bool) -> MemberRow:
    denied = str(End.REVOKED) if is_denied else ""  # by another issuer, or the root
    state = entry.end or denied or ("expired" if entry.not_after <= office.now_unix else "member")
    return MemberRow(
        entry.name,
        format_node_id(entry.node_id),
        (str(address.ipv6_address(office.member.realm_id, entry.node_id)), str(entry.ipv4)),
        entry.tags,
        entry.capabilities,
        state,
        entry.admitted_at or None,
        entry.not_after,
        tuple(old.name for old in entry.former if old.not_after > office.now_unix),
        entry.due,
    )


def member_table(rows: list[MemberRow], columns: int) -> str:
    """Return three lines for each member: who it is, its addresses, and what it may; or one under the other."""
    lines: list[tuple[str, str, str]] = []
    for row in rows:
        ipv6, ipv4 = row.addresses
        lines += [(row.name, row.node, _state(row)), (" ", ipv4, _rights(row)), (" ", ipv6, " ")]
    text = show.table(("name", "id and addresses", "membership"), lines)
    if max(map(len, text.split("\n"))) <= columns:
        return text
    return "\n".join(_card(row, columns) for row in rows)


def _card(row: MemberRow, columns: int) -> str:
    lines = [row.node, *reversed(row.addresses), *show.wrapped(_state(row), columns - 1)]
    return "\n".join([row.name, *(f" {line}" for line in [*lines, *show.wrapped(_rights(row), columns - 1)])])


def _state(row: MemberRow) -> str:
    until = date(row.expires_at)
    return {"member": f"until {until}", "expired": f"EXPIRED {until}"}.get(row.state, row.state.upper())


def _rights(row: MemberRow) -> str:
    rights = ", ".join((*row.capabilities, *(f"#{tag}" for tag in row.tags))) or "no rights"
    return f"{rights} (not yet known to it)" if row.due else rights


def invites(options: argparse.Namespace) -> int:
    """List the invitations."""
    office = open_office(options)
    names = {entry.node_id: entry.name for entry in office.files.issued()}
    rows = [_invite(invite, names, office.now_unix) for invite in office.files.invites()]
    rows.sort(key=lambda row: (row.state != "open", row.expires_at))
    if options.json:
        return print_json(Invites(tuple(rows)))
    if not rows:
        sys.stdout.write("no invitations; `conflux realm invite` makes one\n")
        return 0
    sys.stdout.write(invite_table(rows, show.columns()) + "\n")
    return 0


def invite_table(rows: list[InviteRow], columns: int) -> str:
    """Return a line for each invitation, or a card."""
    cells = [
        (
            row.id,
            row.state,
            date(row.expires_at),
            f"{row.uses}/{row.uses_max}",
            ", ".join(row.used_by),
            f"in the place of {row.replaces}" if row.replaces else ", ".join((*row.capabilities, *row.tags)),
        )
        for row in rows
    ]
    return show.table(("invitation", "state", "until", "used", "by", "gives"), cells, columns=columns)


def _invite(invite: Invite, names: Mapping[NodeId, str], now_unix: int) -> InviteRow:
    state = "expired" if invite.not_after <= now_unix else "used-up" if len(invite.used) >= invite.count else "open"
    replaces = NodeId(invite.replaces)
    return InviteRow(
        invite.invite_id.hex(),
        state,
        invite.not_after,
        invite.count,
        len(invite.used),
        tuple(names.get(node, format_node_id(node)) for node in invite.used),
        invite.tags,
        invite.capabilities,
        names.get(replaces, format_node_id(replaces)) if replaces else None,
        invite.approve,
    )


def cancel(options: argparse.Namespace) -> int:
    """Withdraw an invitation; who joined with it stays."""
    office = open_office(options)
    word = options.id
    found = [invite for invite in office.files.invites() if invite.invite_id.hex().startswith(word)]
    if not found:
        raise UserError(f"there is no invitation {word}: `conflux realm invites` lists them")
    if len(found) > 1:
        raise UserError(f"{len(found)} invitations begin with {word}: give more of it")
    office.issuer.withdraw(found[0], now_unix=office.now_unix)
    if options.json:
        return print_json(Withdrawn(found[0].invite_id.hex(), len(found[0].used)))
    sys.stdout.write(f"invitation {found[0].invite_id.hex()} withdrawn\n")
    return 0
