"""The grammar of `conflux realm ...`."""

from __future__ import annotations

import argparse
import re

from conflux.cli.grammar import (
    Commands,
    Help,
    Parser,
    adder,
    capability,
    count,
    duration,
    furnish,
    json_option,
    member,
    node,
    node_name,
    path,
    place,
    prefix,
    quoted,
    realm_name,
    realm_prefix,
    reason,
    tag,
)


def add_realm(commands: Commands) -> None:
    """Add `conflux realm` and its commands."""
    words = "create a realm and let nodes in"
    realm = commands.add_parser("realm", help=words, description=f"{words.capitalize()}.", formatter_class=Help)
    add = adder(realm.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser))
    create = add("create", "realm:create", "make a realm with this node in it", "conflux realm create home")
    create.add_argument("name", type=realm_name, metavar="NAME", help="what the realm is called")
    create.add_argument("--node", type=node_name, metavar="NAME", help="this node's name in it (default: the host's)")
    create.add_argument(
        "--ipv4",
        type=realm_prefix,
        metavar="PREFIX",
        help="its IPv4 addresses, at least a /28 (default: a /16 of 100.64.0.0/10)",
    )
    json_option(create)
    invite = add(
        "invite",
        "realm:invite",
        "print an invitation",
        "conflux realm invite\n  conflux realm invite --count 20 --ttl 7d --quiet\n  conflux realm invite --qr",
    )
    invite.add_argument(
        "--count", type=count(1, 1000), metavar="N", default=1, help="how many may join with it (default 1)"
    )
    invite.add_argument(
        "--ttl", type=duration, metavar="TIME", default=86400, help="how long it holds: 30m, 12h, 7d (default 24h)"
    )
    _grants(invite)
    invite.add_argument(
        "--hint",
        action="append",
        default=[],
        type=place,
        metavar="HOST[:PORT]",
        help="where this node is, for joiners mDNS does not reach; repeatable",
    )
    invite.add_argument(
        "--no-broker",
        action="store_true",
        help="leave the realm's broker out: the token is short, and for LANs alone",
    )
    invite.add_argument("--approve", action="store_true", help="whoever uses it waits for `conflux realm approve`")
    shown = invite.add_mutually_exclusive_group()
    shown.add_argument("--qr", action="store_true", help="draw it as a QR code too, on a terminal")
    shown.add_argument("--quiet", action="store_true", help="print the token alone, for scripts")
    json_option(shown)
    invite.former = {"--no-qr": "--quiet"}
    invites = add(
        "invites",
        "members:invites",
        "list the invitations: what is open, and who came with it",
        "conflux realm invites\n  conflux realm invites cancel 3f9a",
    )
    invites.usage = "conflux realm invites [--json]\n       conflux realm invites cancel ID"
    json_option(invites)
    invites.apart = {"cancel": _cancel()}
    json_option(add("members", "members:members", "list the nodes that this one let in", "conflux realm members"))
    json_option(add("pending", "approval:pending", "list the nodes that wait for approval", "conflux realm pending"))
    for verb, text in (("approve", "let a node join that waits"), ("refuse", "keep out a node that waits")):
        decide = add(verb, f"approval:{verb}", text, f"conflux realm {verb} kitchen")
        decide.add_argument(
            "node", type=member, metavar="NODE", help="by name or id: `conflux realm pending` lists them"
        )
        decide.add_argument(
            "name", type=member, metavar="NAME", nargs="?", help="with an id: the name under which it waits"
        )
        json_option(decide)
    audit = add(
        "audit",
        "audit:audit",
        "show who was invited, let in, renewed, changed, refused or thrown out, and when",
        "conflux realm audit --last 50\n  conflux realm audit --verify",
    )
    audit.add_argument(
        "--last", type=count(1, 100_000), metavar="N", default=20, help="how many of the newest entries (default 20)"
    )
    audit.add_argument("--verify", action="store_true", help="verify all entries instead, and print the last hash")
    json_option(audit)
    grant = add(
        "grant",
        "rights:grant",
        "give a member tags and capabilities, or take them back, at once",
        "conflux realm grant kitchen --tag light --capability relay\n  conflux realm grant kitchen --no-tag light",
    )
    _node(grant)
    for option, what in (("tag", tag), ("capability", capability)):
        for no, does in (("", "give"), ("no-", "take back")):
            grant.add_argument(
                f"--{no}{option}",
                type=what,
                action="append",
                default=[],
                metavar=option.upper(),
                help=f"{does} a {option}; repeatable",
            )
    grant.add_argument("--issuer", action="store_true", help="let it issue too; needs the root's key")
    grant.add_argument(
        "--block", type=prefix, metavar="PREFIX", help="with --issuer: its IPv4 addresses (default: a free block)"
    )
    grant.add_argument("--file", type=path, metavar="FILE", help="with --issuer: write the grant, to be carried there")
    grant.add_argument("--force", action="store_true", help="with --file: replace the file")
    json_option(grant)
    accept = add("accept", "rights:accept", "take a grant that was carried here", "conflux realm accept shed.grant")
    accept.add_argument("file", type=path, metavar="FILE", help="what `conflux realm grant --issuer --file` wrote")
    json_option(accept)
    rename = add("rename", "rights:rename", "give a member another name, at once", "conflux realm rename pi-3 kitchen")
    _node(rename)
    rename.add_argument("name", type=node_name, metavar="NAME", help="its new name")
    json_option(rename)
    backup = add(
        "backup",
        "succession:backup",
        "write a copy of the root key, encrypted, so that another board can be the founder",
        "conflux realm backup home.backup",
    )
    backup.add_argument("file", type=path, metavar="FILE", help="where it goes; keep it away from this board")
    backup.add_argument("--force", action="store_true", help="replace the file")
    _passphrase(backup).add_argument("--plain", action="store_true", help="do not encrypt it")
    json_option(backup)
    restore = add(
        "restore",
        "succession:restore",
        "make this board the founder of the realm of a backup",
        "conflux realm restore home.backup --node gate",
    )
    restore.add_argument("file", type=path, metavar="FILE", help="what `conflux realm backup` wrote")
    restore.add_argument(
        "--node", type=node_name, metavar="NAME", help="this node's name, if it is no member (default: the host's)"
    )
    _passphrase(restore)
    json_option(restore)
    sign = add("sign", "realm:sign", "sign a request that was carried here", "conflux realm sign kitchen.request")
    sign.add_argument("request", type=path, metavar="FILE", help="what `conflux join --request` wrote")
    sign.add_argument("--answer", type=path, metavar="FILE", help="where the answer goes (default: FILE.answer)")
    sign.add_argument("--force", action="store_true", help="replace the answer that is there")
    _grants(sign)
    json_option(sign)
    revoke = add(
        "revoke",
        "revoke:revoke",
        "end a node's membership, on every node at once",
        "conflux realm revoke kitchen --reason stolen\n  conflux realm revoke kitchen --broker broker",
    )
    revoke.add_argument("name", type=node, metavar="NODE", help="the node's name, its id, or an overlay address")
    revoke.add_argument(
        "--reason", type=reason, metavar="WORD", default="revoked", help="one word that every node can read"
    )
    revoke.add_argument(
        "--broker", type=path, metavar="DIR", help="what `conflux control init` made: its servers are told too"
    )
    json_option(revoke)
    words = "list the nodes that are revoked, by whom and why"
    json_option(add("revoked", "revoke:revoked", words, "conflux realm revoked"))


def _passphrase(command: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    how = command.add_mutually_exclusive_group()
    how.add_argument(
        "--passphrase-file", type=path, metavar="FILE", help="read the passphrase there, - for standard input"
    )
    return how


def _node(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "node", type=member, metavar="NODE", help="a member, by name or id: `conflux realm members` lists them"
    )


def _cancel() -> Parser:
    cancel = Parser(prog="conflux realm invites cancel", formatter_class=Help)
    text = "withdraw an invitation; who joined with it stays"
    furnish(cancel, "members:cancel", text, "conflux realm invites cancel 3f9a")
    cancel.add_argument(
        "id", type=_invitation, metavar="ID", help="as `conflux realm invites` shows it, or its first digits"
    )
    json_option(cancel)
    return cancel


def _invitation(text: str) -> str:
    word = text.lower()
    if re.fullmatch(r"[0-9a-f]{4,16}", word) is None:
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is no invitation: its id is 16 of 0-9 and a-f, or the first four or more"
        )
    return word


def _grants(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--tag", type=tag, action="append", default=[], metavar="TAG", help="a tag the new node gets; repeatable"
    )
    command.add_argument(
        "--replace",
        type=member,
        metavar="NAME",
        help="the new node takes the place of the one of that name, whose membership ends",
    )
    command.add_argument("--no-relay", action="store_true", help="the new node may not pass the routes of others on")
    command.add_argument(
        "--capability",
        action="append",
        default=[],
        choices=("bridge",),
        metavar="CAPABILITY",
        help="a right that the new node gets; bridge: to join its LAN and the broker",
    )
