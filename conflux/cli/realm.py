"""`conflux realm ...`: make a realm, invite nodes, sign requests.  It uses the state directory, not the daemon."""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from typing import NamedTuple

from conflux.cli import context, show
from conflux.cli.observe import print_json
from conflux.cli.office import Office, date, open_office
from conflux.cli.ready import next_step
from conflux.config.settings import Config
from conflux.crypto.kdf import sha256
from conflux.daemon.device import warnings
from conflux.daemon.joining import host_label
from conflux.errors import ConfigError, RemoteProtocolError, UsageError, UserError
from conflux.host import networks
from conflux.ids import format_node_id
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import RELAY
from conflux.realm.invite import Token, make_invite
from conflux.realm.issuer import Rights
from conflux.realm.join import OfflineRequest, explain_refusal
from conflux.realm.member import Member
from conflux.realm.reason import Reason
from conflux.state.broker_files import broker_of, load_signer
from conflux.state.directory import ROOT_KEY, StateDir
from conflux.state.founding import found_realm

# An invitation is forgotten this long after its end; a node that uses it then hears "unknown", not "expired".
INVITE_KEPT_S = 30 * 86400


class Joined(NamedTuple):
    """The answer to `conflux realm create` and `conflux join`.  root_key: where a founder has the root's key."""

    name: str
    node: str
    realm: str
    addresses: tuple[str, ...]
    root: str
    root_key: str | None


class InviteMade(NamedTuple):
    """The answer to `conflux realm invite`.  replaces: the name of the member whose place is taken."""

    id: str
    token: str
    expires_at: int
    uses_max: int
    replaces: str | None


class Signed(NamedTuple):
    """The answer to `conflux realm sign`.  answer: the file.  root: to be compared on the new node."""

    name: str
    node: str
    answer: str
    root: str


def create(options: argparse.Namespace) -> int:
    """Make a realm with this node as its first member and issuer."""
    config = context.load(options)
    state = StateDir.open(config.node.state_dir, create=True)
    state.lock()
    try:
        name = options.node or config.node.name or host_label()
        now_unix = int(time.time())
        member = found_realm(
            state,
            options.name,
            name,
            now_unix=now_unix,
            entropy=os.urandom,
            ipv4_prefix=options.ipv4,
            check=partial(_require_free, config.tun.name),
        )
    finally:
        state.close()
    if options.json:
        return print_json(joined(member, config, root_key=str(state.path / ROOT_KEY)))
    print_member(member, f"realm {member.anchor.name} created", config)
    sys.stdout.write(
        f"  root key   {state.path / ROOT_KEY}\n"
        f"\nThe holder of {ROOT_KEY} controls the network.  Keep a copy on a USB stick: you\n"
        "need it if this board breaks (conflux realm backup, conflux realm restore).\n"
        f"\nNext: {next_step(options)}\n"
        "Then, for each node that is to join: conflux realm invite\n"
    )
    return 0


def _require_free(device: str, anchor: RealmAnchor) -> None:
    """Raise ConfigError if this host uses addresses of the realm's IPv4 prefix: here another one can be chosen."""
    found = networks.overlap(anchor.ipv4_prefix, networks.taken(but=device))
    if found is not None:
        raise ConfigError(
            f"the realm's IPv4 prefix {anchor.ipv4_prefix} overlaps {found}: name another private one with --ipv4"
        )
    if networks.tailscale_drops(anchor.ipv4_prefix):
        raise ConfigError(
            f"Tailscale runs here, and its firewall drops packets from {anchor.ipv4_prefix}: "
            "name another private prefix with --ipv4, as 10.113.0.0/16"
        )


def invite(options: argparse.Namespace) -> int:
    """Print a new invitation."""
    if options.qr and not (sys.stdout.isatty() and "utf" in (sys.stdout.encoding or "").lower()):
        raise UsageError("--qr draws on a terminal that shows UTF-8: leave it out here")
    office = open_office(options)
    member, now_unix = office.member, office.now_unix
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
        replaces=_replaced(office, options),
        approve=options.approve,
    )
    if not options.no_broker:
        token = _over_broker(office, token)
    files = office.files
    with files.transaction():
        files.forget_invites_before(now_unix - INVITE_KEPT_S)
    office.issuer.invite(entry, now_unix=now_unix)
    text = token.format()
    if options.json:
        replaced = None if options.replace is None else office.find(options.replace).name
        return print_json(InviteMade(entry.invite_id.hex(), text, entry.not_after, entry.count, replaced))
    if options.quiet:
        sys.stdout.write(text + "\n")
        return 0
    if options.qr:
        import segno  # 4 MB of memory, needed only here

        segno.make(text, error="l", micro=False).terminal(sys.stdout, compact=True)
    named = "" if options.replace is None else f" --name {office.find(options.replace).name}"
    good = f"Good for {show.plural(entry.count, 'node')} until {date(entry.not_after)}."
    if entry.approve:
        good += "  Whoever uses it waits: conflux realm pending."
    sys.stdout.write(f"\n{good}  On the new node:\n\n  conflux join {text}{named}\n")
    return 0


def _over_broker(office: Office, token: Token) -> Token:
    """Return the token with the way over the realm's broker, if it has one and this issuer admits to it."""
    signer = load_signer(office.state, office.member.realm_id)
    notice = broker_of(office.state, office.member.anchor, lambda: office.now_unix)
    if signer is None or notice is None:
        return token
    admission = signer.join_pass(token.invite_id, token.secret, issued_at=office.now_unix, expires_at=token.not_after)
    return token.with_broker((server.removeprefix("tls://") for server in notice.servers), sha256(notice.ca), admission)


def sign(options: argparse.Namespace) -> int:
    """Answer a request file."""
    office = open_office(options)
    path = options.answer or options.request.with_name(options.request.name + ".answer")
    context.require_new(path, force=options.force)
    try:
        request = OfflineRequest.decode_untrusted(context.read_file(options.request, OfflineRequest.BYTES_MAX))
        if office.book().denies(request.node_id):
            raise RemoteProtocolError(Reason.REVOKED)
        rights = Rights(tuple(options.tag), _capabilities(options), replaces=_replaced(office, options))
        answer = office.issuer.admit(request, now_unix=office.now_unix, rights=rights)
    except RemoteProtocolError as error:
        if error.reason in ("malformed", "oversized", "bad-signature", "version"):
            raise ConfigError(f"{options.request}: not a join request, or a damaged one ({error})") from None
        raise UserError(explain_refusal(error.reason)) from None
    context.write_file(path, answer.encode())
    node = format_node_id(request.node_id)
    if options.json:
        return print_json(Signed(request.name, node, str(path), root_words(office.member.anchor)))
    sys.stdout.write(
        show.fields(
            [
                ("signed", f"{request.name}, {node}"),
                ("answer", f"{path}: carry it back, and there: conflux join --answer {path.name}"),
                ("root", f"{root_words(office.member.anchor)}: compare it there, or give it with --root"),
            ]
        )
        + "\n"
    )
    return 0


def _replaced(office: Office, options: argparse.Namespace) -> bytes:
    """Return the node id of the member that --replace names; empty without it.  Raises UserError."""
    if options.replace is None:
        return b""
    entry = office.find(options.replace)
    if entry.node_id == office.member.node_id:
        raise UserError(f"--replace {options.replace}: that is this node itself")
    return entry.node_id


def _capabilities(options: argparse.Namespace) -> tuple[str, ...]:
    return (*(() if options.no_relay else (RELAY,)), *dict.fromkeys(options.capability))


def print_member(member: Member, title: str, config: Config) -> None:
    """Print the member under a title, and on standard error what of its realm collides with this host's networks."""
    rows = [
        ("  node", f"{member.name}, {format_node_id(member.node_id)}"),
        ("  addresses", "\n".join(str(address) for address in member.addresses)),
        ("  root", root_words(member.anchor)),
    ]
    sys.stdout.write(f"{title}\n{show.fields(rows, columns=show.columns())}\n")
    _warn(member, config)


def joined(member: Member, config: Config, *, root_key: str | None = None) -> Joined:
    """Return the member for programs, and print on standard error what print_member() prints there."""
    _warn(member, config)
    addresses = tuple(map(str, member.addresses))
    node, realm = format_node_id(member.node_id), member.anchor.name
    return Joined(member.name, node, realm, addresses, root_words(member.anchor), root_key)


def _warn(member: Member, config: Config) -> None:
    if config.tun.ipv4:
        for warning in warnings(member, networks.taken(but=config.tun.name)):
            sys.stderr.write(f"conflux: warning: {warning}\n")


def root_words(anchor: RealmAnchor) -> str:
    """Return the root's fingerprint in groups of four digits, for two people to compare."""
    digits = anchor.fingerprint.hex()[:32]
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))
