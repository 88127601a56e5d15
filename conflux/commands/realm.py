"""`conflux realm ...`: make a realm, invite nodes, sign what was carried here.  Works on the state directory itself."""

from __future__ import annotations

import argparse
import os
import sys
import time

from conflux.commands import context, show
from conflux.errors import ConfigError, RemoteProtocolError, StateError, UserError
from conflux.ids import format_node_id
from conflux.joining import host_label
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import RELAY
from conflux.realm.founding import found_realm, issuer_of
from conflux.realm.invite import make_invite
from conflux.realm.issuer import Issuer
from conflux.realm.issuer_files import IssuerFiles
from conflux.realm.join import OfflineRequest, explain_refusal
from conflux.realm.member import Member
from conflux.realm.name import parse_name
from conflux.realm.store import ROOT_KEY, StateDir

INVITE_KEPT_S = (
    30 * 86400
)  # an invitation that ended this long ago is forgotten, and then "unknown" instead of "expired"


def create(options: argparse.Namespace) -> int:
    """Make a realm with this node as its first member and issuer."""
    config = context.load(options)
    state = StateDir.open(config.node.state_dir, create=True)
    state.lock()
    try:
        name = options.node or config.node.name or host_label()
        now_unix = int(time.time())
        member = found_realm(state, options.name, name, now_unix=now_unix, entropy=os.urandom, ipv4_prefix=options.ipv4)
    finally:
        state.close()
    print_member(member, f"realm {member.anchor.name} created")
    sys.stdout.write(
        f"  root key   {state.path / ROOT_KEY}\n"
        "\nWho has the root key owns the realm: keep a copy of it in a safe place.  This\n"
        "node invites and signs without it.\n"
        "\nNext: conflux up, and conflux realm invite for every node that shall join.\n"
    )
    return 0


def invite(options: argparse.Namespace) -> int:
    """Print a new invitation."""
    state, member, _ = _issuing(options)
    now_unix = int(time.time())
    entry, token = make_invite(
        member.anchor,
        member.node_id,
        now_unix=now_unix,
        entropy=os.urandom,
        valid_s=options.ttl,
        count=options.count,
        tags=tuple(options.tag),
        capabilities=_capabilities(options),
        hints=tuple(options.hint),
    )
    files = IssuerFiles(state)
    with files.transaction():
        files.forget_invites_before(now_unix - INVITE_KEPT_S)
        files.save_invite(entry)
    text = token.format()
    if options.no_qr:
        sys.stdout.write(text + "\n")
        return 0
    if "utf" in (sys.stdout.encoding or "").lower():  # the code is drawn with block characters
        import segno  # 4 MB, and only needed here

        segno.make(text, error="l", micro=False).terminal(sys.stdout, compact=True)
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.not_after))
    sys.stdout.write(
        f"\nGood for {show.plural(entry.count, 'node')} until {until}.  On the new node:\n\n  conflux join {text}\n"
    )
    return 0


def sign(options: argparse.Namespace) -> int:
    """Answer a request file."""
    _, member, issuer = _issuing(options)
    for tag in options.tag:
        parse_name(tag, "tag")
    try:
        request = OfflineRequest.decode_untrusted(context.read_file(options.request, OfflineRequest.BYTES_MAX))
        answer = issuer.admit(
            request, now_unix=int(time.time()), tags=tuple(options.tag), capabilities=_capabilities(options)
        )
    except RemoteProtocolError as error:
        if error.reason in ("malformed", "oversized", "bad-signature", "version"):
            raise ConfigError(f"{options.request}: not a join request, or a damaged one ({error})") from None
        raise UserError(explain_refusal(error.reason)) from None
    path = options.answer or options.request.with_name(options.request.name + ".answer")
    context.write_file(path, answer.encode())
    sys.stdout.write(
        show.fields(
            [
                ("signed", f"{request.name}, {format_node_id(request.node_id)}"),
                ("answer", f"{path}: carry it back, and there: conflux join --answer {path.name}"),
                ("root", root_words(member.anchor)),
            ]
        )
        + "\n"
    )
    return 0


def _issuing(options: argparse.Namespace) -> tuple[StateDir, Member, Issuer]:
    state = StateDir.open(context.load(options).node.state_dir)
    member = state.member()
    if member is None:
        raise StateError(f"{state.path}: in no realm yet; `conflux realm create` makes one")
    issuer = issuer_of(state, member)
    if issuer is None:
        raise UserError(f"{member.name} does not issue for realm {member.anchor.name}: ask the node that made it")
    return state, member, issuer


def _capabilities(options: argparse.Namespace) -> tuple[str, ...]:
    return () if options.no_relay else (RELAY,)


def print_member(member: Member, title: str) -> None:
    """Print who we are now."""
    rows = [
        ("  node", f"{member.name}, {format_node_id(member.node_id)}"),
        ("  addresses", "\n".join(str(address) for address in member.addresses)),
        ("  root", root_words(member.anchor)),
    ]
    sys.stdout.write(f"{title}\n{show.fields(rows)}\n")


def root_words(anchor: RealmAnchor) -> str:
    """Return the root's fingerprint as two people would compare it."""
    digits = anchor.fingerprint.hex()[:32]
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))
