"""`conflux control ...`: what an operator of a broker does, and why a broker does not let this node in."""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from conflux.broker import ask
from conflux.broker.check import Ask, refusal_of
from conflux.broker.check import check as check_broker
from conflux.broker.directory import AREA, LEAVES, SERVERS, Directory
from conflux.broker.layout import ONLY_REGION, Layout, make_layout
from conflux.broker.push import Outcome, accounts_at, ended_of
from conflux.broker.push import push as push_account
from conflux.broker.server_files import PLACE, UNIT
from conflux.cli import context, office, show
from conflux.cli.observe import print_json
from conflux.cli.office import Office
from conflux.config.settings import Config
from conflux.errors import ConfigError, RemoteProtocolError, StateError, UsageError, UserError
from conflux.ids import BROKER_PORT
from conflux.realm.lists import BrokerNotice
from conflux.realm.member import Member
from conflux.state.broker_files import BROKER_KEY, load_signer, save_notice, save_signer
from conflux.state.directory import StateDir
from conflux.state.revoking import as_ended


class BrokerMade(NamedTuple):
    """The answer to `conflux control init`.  servers, leaves: hosts, each with a folder of that name in directory.

    own: why this node's own credential has no JWT yet; None: it has one.  told: the members hear of the broker now.
    """

    realm: str
    directory: str
    servers: tuple[str, ...]
    leaves: tuple[str, ...]
    own: str | None
    told: bool


class Announced(NamedTuple):
    """The answer to `conflux control announce`.  servers: empty for none.  told: the members hear of it now."""

    servers: tuple[str, ...]
    told: bool


class Pushed(NamedTuple):
    """The answer to `conflux control push`.  new: the account has changed.  failed: servers, and why."""

    new: bool
    signing_keys: int
    revoked_users: int
    took: tuple[str, ...]
    failed: Mapping[str, str]


class BrokerFinding(NamedTuple):
    """What a look at the broker found.  where: clock, credential, or a server."""

    where: str
    wrong: bool
    text: str


class BrokerChecked(NamedTuple):
    """The answer to `conflux control check`."""

    findings: tuple[BrokerFinding, ...]


def init(options: argparse.Namespace) -> int:
    """Write what the servers need, and let this issuer sign users."""
    desk = office.open_office(options)
    path: Path = options.directory
    layout = _layout(options, path)
    _require_own_key(desk, path)
    now = datetime.datetime.now(datetime.UTC)
    realm = desk.member.anchor.name
    directory = Directory.make(path, layout, desk.member.realm_id, realm, now)
    save_signer(desk.state, desk.member.realm_id, directory.signer())
    own, own_words = _renew_own(options)
    notice = directory.notice()
    told = _tell(options, desk.state, notice)
    if options.json:
        return print_json(BrokerMade(realm, str(path), tuple(layout.hosts), tuple(layout.leaves), own, told))
    rows = [(f"{path}/{SERVERS}/{host}/", f"to {PLACE}/ on {host}") for host in layout.hosts]
    rows += [(f"{path}/{LEAVES}/{host}/", f"to {PLACE}/ on {host}, a site's gateway") for host in layout.leaves]
    rows.append((f"{path}/ca.pem", "what nodes trust: `ca` in [control.nats]"))
    rows.append((f"{path}/keys/", "keep a copy of them in a safe place: they rule the broker"))
    sys.stdout.write(
        f"broker of realm {realm}: {show.plural(len(rows) - 2, 'server')}\n"
        + "".join(f"  {name}\n      {text}\n" for name, text in rows)
        + f"\nOn each host: systemctl enable --now {PLACE}/{UNIT}\n"
        f"{desk.member.name} puts a NATS user JWT into every credential that it signs from now on.\n{own_words}"
        + _told_words(notice, told=told)
    )
    return 0


def announce(options: argparse.Namespace) -> int:
    """Tell the realm's members which broker to use, or that there is none any more."""
    desk = office.open_office(options)
    if options.none:
        notice = BrokerNotice((), b"", AREA)
    else:
        directory = Directory.open(options.directory)
        if desk.issuer.anchor.realm_id != directory.realm_id():
            raise ConfigError(f"{directory.path}: the broker of another realm than {desk.member.anchor.name}")
        notice = directory.notice()
    told = _tell(options, desk.state, notice)
    if options.json:
        return print_json(Announced(tuple(notice.servers), told))
    sys.stdout.write(_told_words(notice, told=told))
    return 0


def _tell(options: argparse.Namespace, state: StateDir, notice: BrokerNotice) -> bool:
    """Have this issuer's daemon tell the realm of a broker; say whether it does so now, or when it runs."""
    save_notice(state, notice)
    try:
        context.daemon(options).call("look-at-broker")
    except UserError:
        return False
    return True


def _told_words(notice: BrokerNotice, *, told: bool) -> str:
    what = ", ".join(notice.servers) or "the realm uses no broker any more"
    return f"Members are told {'now' if told else 'when the daemon of this issuer runs'}: {what}\n"


def _renew_own(options: argparse.Namespace) -> tuple[str | None, str]:
    """Give this issuer itself a credential with a JWT, if it has none.

    Returns why that cannot be, or None; and what there is to say.
    """
    desk = office.open_office(options)  # anew: it has the signing key now
    if desk.member.chain.credential.nats_jwt:
        return None, ""
    try:
        chain = desk.issuer.renew(desk.member.chain, now_unix=desk.now_unix)
    except RemoteProtocolError as error:
        return str(error), f"Its own credential has none yet: {error}.\n"
    desk.state.save_member(Member(desk.member.keys, desk.member.anchor, chain))
    return None, "Its own credential has one now.\n"


def _require_own_key(desk: Office, path: Path) -> None:
    """Raise StateError if this issuer signs for another broker: before anything is written."""
    kept = load_signer(desk.state, desk.member.realm_id)
    if kept is None or (_is_there(path) and Directory.open(path).signer().key.public == kept.key.public):
        return
    raise StateError(f"{desk.state.path / BROKER_KEY}: the key of another broker than {path}; it is not overwritten")


def _is_there(path: Path) -> bool:
    return path.exists() and any(path.iterdir())


def _layout(options: argparse.Namespace, path: Path) -> Layout:
    """Return the layout that the options name; what they do not name stays as it is."""
    kept = Directory.open(path).layout() if _is_there(path) else None
    if options.servers is not None:
        regions = {ONLY_REGION: options.servers}
    elif options.region is not None:
        regions = dict(options.region)
        if len(regions) != len(options.region):
            raise UsageError("a region is named twice")
    else:
        regions = {} if kept is None else {region.name: region.hosts for region in kept.regions}
    leaves = () if kept is None else kept.leaves
    leaves += tuple(host for host in options.leaf if kept is None or host not in kept.leaves)
    port = (BROKER_PORT if kept is None else kept.port) if options.port is None else options.port
    try:
        return make_layout(regions, leaves, port)
    except ConfigError as error:  # what is kept was checked as it was read
        raise UsageError(str(error)) from None


def push(options: argparse.Namespace) -> int:
    """Publish the account, with every membership and every capability that this issuer has ended."""
    outcome = push_ended(office.open_office(options), options.directory)
    account = outcome.account
    if options.json:
        keys, users = len(account.signing_keys), len(account.revoked)
        print_json(Pushed(outcome.is_new, keys, users, outcome.took, outcome.failed))
        return 1 if outcome.failed else 0
    what = "new account" if outcome.is_new else "account, unchanged"
    sys.stdout.write(
        f"{what}: {show.plural(len(account.signing_keys), 'signing key')}, "
        f"{show.plural(len(account.revoked), 'revoked user')}\n"
    )
    rows = [(f"  {host}", "took it") for host in outcome.took]
    rows += [(f"  {host}", f"did not: {why}") for host, why in outcome.failed.items()]
    sys.stdout.write(show.fields(rows) + "\n")
    return 1 if outcome.failed else 0


def push_ended(desk: Office, path: Path) -> Outcome:
    """Publish the account with every membership that has ended: by this issuer's records, or by a deny list.

    JWTs with a capability that was taken back end with it.

    Raises UserError if no server can be reached, ConfigError for the directory of another realm.
    """
    directory = Directory.open(path)
    if desk.issuer.anchor.realm_id != directory.realm_id():
        raise ConfigError(f"{directory.path}: the broker of another realm than {desk.member.anchor.name}")
    now_unix = int(time.time())
    ended = ended_of(as_ended(desk.files.issued(), desk.book()), now_unix)
    return push_account(directory, ended, now_unix)


def check(options: argparse.Namespace) -> int:
    """Connect as this node, and print what was found; the exit code says whether something is wrong."""
    config = context.load(options)
    state = StateDir.open(config.node.state_dir)
    member = state.member()
    if member is None:
        raise StateError(f"{state.path}: in no realm yet; `conflux join` or `conflux realm create` changes that")
    ask = _ask(options, config, state, member)
    findings = []
    for each in check_broker(ask, member, floor_unix=state.floor_unix(), now_unix=int(time.time())):
        findings.append(BrokerFinding(*each))
        if not options.json:
            sys.stdout.write(f"{each.where}: {'WRONG: ' if each.is_wrong else ''}{each.text}\n")
            sys.stdout.flush()
    if options.json:
        print_json(BrokerChecked(tuple(findings)))
    return 1 if any(each.wrong for each in findings) else 0


def _ask(options: argparse.Namespace, config: Config, state: StateDir, member: Member) -> Ask:
    """Return what to check: what the options name, else the configuration, else what the realm says of its broker."""
    settings = config.control.nats
    settings = settings._replace(ca=options.ca or settings.ca)
    if options.server is not None:
        settings = settings._replace(servers=(options.server,))
    found = ask.known(settings, state, member)
    if found is None:
        raise ConfigError("no server is configured or announced: [control.nats] servers, or --server HOST:PORT")
    return found._replace(why_refused=_why(options, member))


def _why(options: argparse.Namespace, member: Member) -> Callable[[str], str | None]:
    """Return what says, with the operator's keys, why a server refuses this node."""
    if options.broker is None:
        return lambda host: None
    directory = Directory.open(options.broker)

    def why(host: str) -> str | None:
        now_unix = int(time.time())
        accounts = accounts_at(directory, host, now_unix)
        return None if isinstance(accounts, str) else refusal_of(member, accounts)

    return why
