"""`conflux realm grant` and `conflux realm rename`: a standing member's rights and name, changed and handed over.

`conflux realm accept` takes a grant that was carried.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from conflux.api.client import NotRunning
from conflux.cli import context
from conflux.cli.observe import answered, print_json
from conflux.cli.office import Office, date, open_office
from conflux.errors import ConfigError, RemoteProtocolError, StateError, UsageError, UserError
from conflux.ids import format_node_id
from conflux.realm.credential import ISSUER, Grant
from conflux.realm.invite import check_rights
from conflux.realm.issued import Issued
from conflux.realm.join import explain_refusal
from conflux.realm.member import Member
from conflux.realm.name import new_node_name
from conflux.state.clock import realm_clock
from conflux.state.directory import ROOT_KEY, StateDir
from conflux.state.grants import accept_grant, give_block

LATER = "it gets the change when it is back, or with its next renewal"


class HandedOver(StrEnum):
    """What became of a changed credential."""

    USED = "used"  # the member, or this node itself, uses it
    DUE = "due"  # on record: the member gets it when it is back, or with its next renewal
    UNCHANGED = "unchanged"  # there was nothing to change


class Granted(NamedTuple):
    """The answer to `conflux realm grant`.

    block, expires_at: of --issuer: the addresses that it may give, and until when.  file: with the grant.
    """

    name: str
    node: str
    tags: tuple[str, ...]
    capabilities: tuple[str, ...]
    state: HandedOver
    block: str | None
    expires_at: int | None
    file: str | None


class Renamed(NamedTuple):
    """The answer to `conflux realm rename`.  former: the name until now."""

    name: str
    node: str
    former: str
    state: HandedOver


class Accepted(NamedTuple):
    """The answer to `conflux realm accept`.  new: this node did not have this grant yet."""

    node: str
    block: str
    expires_at: int
    new: bool


def grant(options: argparse.Namespace) -> int:
    """Give a member tags and capabilities, or take them back."""
    rights = (options.tag, options.no_tag, options.capability, options.no_capability)
    if options.issuer and any(rights):
        raise UsageError("--issuer is a grant by itself: give or take back the rest in a second call")
    if not options.issuer and (options.block is not None or options.file is not None):
        raise UsageError("--block and --file belong to --issuer")
    if ISSUER in {*options.capability, *options.no_capability}:
        raise UsageError("the capability issuer needs a grant of the root: conflux realm grant NODE --issuer")
    office = open_office(options)
    entry = office.find(options.node)
    if options.issuer:
        return _grant_issuer(options, office, entry)
    tags = _changed(entry.tags, options.tag, options.no_tag)
    capabilities = _changed(entry.capabilities, options.capability, options.no_capability)
    check_rights(tags, capabilities)
    new = _change(office, entry, tags=tags, capabilities=capabilities)
    state, said = (HandedOver.UNCHANGED, "") if new == entry else _hand_over(options, office, new)
    if options.json:
        return print_json(_granted(new, state))
    held = ", ".join((*new.capabilities, *(f"#{tag}" for tag in new.tags))) or "no rights"
    sys.stdout.write(f"{new.name}: {held}\n{said}\n" if said else f"{entry.name} has these rights already\n")
    return 0


def _granted(entry: Issued, state: HandedOver, given: Grant | None = None, file: Path | None = None) -> Granted:
    return Granted(
        entry.name,
        format_node_id(entry.node_id),
        entry.tags,
        entry.capabilities,
        state,
        None if given is None else str(given.ipv4_block),
        None if given is None else given.not_after,
        None if file is None else str(file),
    )


def _grant_issuer(options: argparse.Namespace, office: Office, entry: Issued) -> int:
    if options.file is not None:
        context.require_new(options.file, force=options.force)
    root = office.state.root_key()
    if root is None:
        raise UserError(f"{office.state.path / ROOT_KEY}: missing: only the root lets a node issue")
    if not entry.node_public:
        raise UserError(f"{entry.name} is on record without its keys until its next renewal; try again after that")
    if entry.node_id == office.member.node_id:
        raise UserError(f"{entry.name} issues already: it is this node")
    given = give_block(office.state, root, office.member, entry.node_public, options.block, now_unix=office.now_unix)
    capabilities = tuple(dict.fromkeys((*entry.capabilities, ISSUER)))
    new = _change(office, entry, capabilities=capabilities)
    if options.file is not None:
        context.write_file(options.file, given.encode())
    state, said = _hand_over(options, office, new)
    if options.json:
        return print_json(_granted(new, state, given, options.file))
    what = f"{new.name} may issue, addresses of {given.ipv4_block}, until {date(given.not_after)}"
    if options.file is not None:
        what += f"\nthe grant is in {options.file}: carry it there, and: conflux realm accept {options.file.name}"
    sys.stdout.write(f"{what}\n{said}\n")
    return 0


def accept(options: argparse.Namespace) -> int:
    """Take a grant that was carried here."""
    state = StateDir.open(context.load(options).node.state_dir)
    member = state.member()
    if member is None:
        raise StateError(f"{state.path}: in no realm yet; a node issues for a realm that it is a member of")
    try:
        grant = Grant.decode_untrusted(context.read_file(options.file, Grant.BYTES_MAX))
        is_new = accept_grant(state, member, grant, now_unix=realm_clock(state).now_unix())
    except RemoteProtocolError as error:
        raise ConfigError(f"{options.file}: not a grant of this realm's root to this node ({error})") from None
    if options.json:
        node = format_node_id(member.node_id)
        return print_json(Accepted(node, str(grant.ipv4_block), grant.not_after, is_new))
    said = "this node may issue" if is_new else "this node has this grant already"
    sys.stdout.write(f"{said}: addresses of {grant.ipv4_block}; a running daemon takes note within a minute\n")
    return 0


def rename(options: argparse.Namespace) -> int:
    """Give a member another name."""
    office = open_office(options)
    entry = office.find(options.node)
    name = new_node_name(options.name)
    new = _change(office, entry, name=name)
    state, said = (HandedOver.UNCHANGED, "") if new == entry else _hand_over(options, office, new)
    if options.json:
        return print_json(Renamed(new.name, format_node_id(new.node_id), entry.name, state))
    sys.stdout.write(f"{entry.name} is {name} now\n{said}\n" if said else f"{name} has this name already\n")
    return 0


def _changed(held: tuple[str, ...], given: Iterable[str], taken: Iterable[str]) -> tuple[str, ...]:
    wanted = dict.fromkeys((*held, *given))
    for word in taken:
        if word not in wanted:
            raise UserError(f"it has no {word!r} that could be taken back")
        del wanted[word]
    return tuple(wanted)


def _change(
    office: Office,
    entry: Issued,
    *,
    name: str | None = None,
    tags: tuple[str, ...] | None = None,
    capabilities: tuple[str, ...] | None = None,
) -> Issued:
    try:
        return office.issuer.change(
            entry.node_id, now_unix=office.now_unix, name=name, tags=tags, capabilities=capabilities
        )
    except RemoteProtocolError as error:
        raise UserError(explain_refusal(error.reason)) from None


def _hand_over(options: argparse.Namespace, office: Office, entry: Issued) -> tuple[HandedOver, str]:
    """Have the daemon hand a changed credential over; return what became of it.  It is on record in any case."""
    try:
        got = answered(context.daemon(options).call("hand-over", node=format_node_id(entry.node_id)))
    except NotRunning:
        return _without_daemon(office, entry)
    if got.get("used"):
        return HandedOver.USED, "it uses its new credential"
    return HandedOver.DUE, f"it does not answer: {LATER}"


def _without_daemon(office: Office, entry: Issued) -> tuple[HandedOver, str]:
    """Adopt what was changed for this node itself; for another it stays on record."""
    if entry.node_id != office.member.node_id:
        return HandedOver.DUE, f"no daemon runs here: when one does, {LATER}"
    office.state.lock()
    try:
        chain = office.issuer.reissue(entry.node_id, now_unix=office.now_unix)
        office.state.save_member(Member(office.member.keys, office.member.anchor, chain))
        office.issuer.delivered(entry.node_id, chain.credential.serial)
    except RemoteProtocolError as error:
        raise UserError(explain_refusal(error.reason)) from None
    finally:
        office.state.close()
    return HandedOver.USED, "this node uses its new credential"
