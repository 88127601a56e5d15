"""`conflux realm grant` and `conflux realm rename`: a standing member's rights and name, changed and handed over."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from conflux.api.client import NotRunning
from conflux.cli import context
from conflux.cli.observe import answered
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


def grant(options: argparse.Namespace) -> int:
    """Give a member tags and capabilities, or take them back."""
    office = open_office(options)
    entry = office.find(options.node)
    if options.issuer:
        return _grant_issuer(options, office, entry)
    if options.block is not None or options.file is not None:
        raise UsageError("--block and --file belong to --issuer")
    if ISSUER in {*options.capability, *options.no_capability}:
        raise UserError("the capability issuer needs a grant of the root: conflux realm grant NODE --issuer")
    tags = _changed(entry.tags, options.tag, options.no_tag)
    capabilities = _changed(entry.capabilities, options.capability, options.no_capability)
    check_rights(tags, capabilities)
    new = _change(office, entry, tags=tags, capabilities=capabilities)
    if new == entry:
        sys.stdout.write(f"{entry.name} has these rights already\n")
        return 0
    rights = ", ".join((*new.capabilities, *(f"#{tag}" for tag in new.tags))) or "no rights"
    return hand_over(options, office, new, f"{new.name}: {rights}")


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
    what = f"{new.name} may issue, addresses of {given.ipv4_block}, until {date(given.not_after)}"
    if options.file is not None:
        context.write_file(options.file, given.encode())
        what += f"\nthe grant is in {options.file}: carry it there, and: conflux realm accept {options.file.name}"
    return hand_over(options, office, new, what)


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
    said = "this node may issue" if is_new else "this node has this grant already"
    sys.stdout.write(f"{said}: addresses of {grant.ipv4_block}; a running daemon takes note within a minute\n")
    return 0


def rename(options: argparse.Namespace) -> int:
    """Give a member another name."""
    office = open_office(options)
    entry = office.find(options.node)
    name = new_node_name(options.name)
    new = _change(office, entry, name=name)
    if new == entry:
        sys.stdout.write(f"{name} has this name already\n")
        return 0
    return hand_over(options, office, new, f"{entry.name} is {name} now")


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


def hand_over(options: argparse.Namespace, office: Office, entry: Issued, what: str) -> int:
    """Have the daemon hand a changed credential over, and say what became of it; it is on record in any case."""
    try:
        got = answered(context.daemon(options).call("hand-over", node=format_node_id(entry.node_id)))
    except NotRunning:
        said = _without_daemon(office, entry)
    else:
        said = "it uses its new credential" if got.get("used") else f"it does not answer: {LATER}"
    sys.stdout.write(f"{what}\n{said}\n")
    return 0


def _without_daemon(office: Office, entry: Issued) -> str:
    """Adopt what was changed for this node itself; for another it stays on record."""
    if entry.node_id != office.member.node_id:
        return f"no daemon runs here: when one does, {LATER}"
    office.state.lock()
    try:
        chain = office.issuer.reissue(entry.node_id, now_unix=office.now_unix)
        office.state.save_member(Member(office.member.keys, office.member.anchor, chain))
        office.issuer.delivered(entry.node_id, chain.credential.serial)
    except RemoteProtocolError as error:
        raise UserError(explain_refusal(error.reason)) from None
    finally:
        office.state.close()
    return "this node uses its new credential"
