"""`conflux join`: with a token, over the network, or with files that a person carries."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from typing import NamedTuple, TextIO

from conflux.cli import context, show
from conflux.cli.observe import print_json
from conflux.cli.ready import next_step
from conflux.cli.realm import joined, print_member, root_words
from conflux.daemon.joining import join_with_token, wanted_name
from conflux.errors import ConfigError, RemoteProtocolError, StateError, UsageError, UserError, printable
from conflux.host import arguments
from conflux.ids import format_node_id
from conflux.realm.anchor import RealmAnchor
from conflux.realm.invite import Token, parse_hint
from conflux.realm.join import NONCE_BYTES, JoinAnswer, OfflineRequest, accept_offline_untrusted
from conflux.realm.member import Member
from conflux.state.clock import realm_clock
from conflux.state.directory import StateDir

REQUEST = "join.request"  # in the state directory, until its answer comes


TOKEN_VARIABLE = "CONFLUX_TOKEN"  # noqa: S105  # its name
TOKEN_BYTES_MAX = 4096


class Asked(NamedTuple):
    """The answer to `conflux join --request FILE`.  request: the file."""

    name: str
    node: str
    request: str


def join(options: argparse.Namespace) -> int:
    """Join with a token, or make a request file, or read the answer to one."""
    by_files = options.request is not None or options.answer is not None
    if options.root is not None and options.answer is None:
        raise UsageError("--root belongs to --answer; a token names its root itself")
    if options.peer is not None and by_files:
        raise UsageError("--peer belongs to a token: a join by files asks nobody")
    if options.name is not None and options.answer is not None:
        raise UsageError("--name belongs to --request: the answer is for the name that was asked for")
    config = context.load(options)
    context.warn_of_readable_secrets(options, config)
    name = wanted_name(config, options.name)
    # A bad token is refused before a directory or a key is made.
    token = _token(options)
    peers = () if options.peer is None else (parse_hint(options.peer),)
    state = StateDir.open(config.node.state_dir, create=options.answer is None)
    state.lock()
    try:
        former = state.member()
        if former is not None:
            _require_ended(state, former, token)
            name = options.name or former.name
        if token is not None:
            waits = _say_that_it_waits(state, name, sys.stderr if options.json else sys.stdout)
            member = asyncio.run(join_with_token(config, state, token, name, peers, waits))
        elif options.request is not None:
            return _request(state, name, options)
        else:
            member = _answer(state, former, options)
    finally:
        state.close()
    if options.json:
        return print_json(joined(member, config))
    print_member(member, f"joined realm {member.anchor.name}", config)
    sys.stdout.write(f"\nNext: {next_step(options)}\n")
    return 0


def _token(options: argparse.Namespace) -> Token | None:
    """Return the token, given in one of its ways, or None for a join by files.  Raises UserError, ConfigError."""
    if options.request is not None or options.answer is not None:
        return None
    if options.token_file is not None:
        where, text = str(options.token_file), context.read_file(options.token_file, TOKEN_BYTES_MAX)
    elif options.token == "-":  # noqa: S105  # no password
        where, text = "standard input", sys.stdin.buffer.readline(TOKEN_BYTES_MAX)
    elif options.token is not None:
        token = Token.parse(options.token)
        _warn_of_onlookers(options.token)
        return token
    elif TOKEN_VARIABLE in os.environ:
        where, text = TOKEN_VARIABLE, os.environ[TOKEN_VARIABLE].encode(errors="replace")
    else:
        raise UsageError(
            f"no token: give one, or -, --token-file or {TOKEN_VARIABLE}; --request does without a network"
        )
    try:
        return Token.parse(text.decode(errors="replace"))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _warn_of_onlookers(token: str) -> None:
    """Say so if a process shows the token to all users of this host: of this one, entry.main() has overwritten it."""
    if (found := arguments.shown(token)) is not None:
        pid, name = found
        sys.stderr.write(
            f"conflux: warning: every user of this host can see the token in the arguments of {printable(name)} "
            f"(process {pid}): `conflux join -` reads it from standard input, --token-file from a file, and "
            f"{TOKEN_VARIABLE} is a variable for it\n"
        )


def _say_that_it_waits(state: StateDir, name: str, out: TextIO) -> Callable[[], None]:
    def say() -> None:
        node = format_node_id(state.make_node_keys().node_id)
        out.write(
            f"waiting for approval as {name}, {node}\n"
            f"  at the issuer: conflux realm approve {name}\n"
            "  this command goes on by itself, for an hour; Ctrl-C ends it, and it can be repeated\n"
        )
        out.flush()

    return say


def _require_ended(state: StateDir, member: Member, token: Token | None) -> None:
    """Raise StateError unless the credential has ended and the token is of its realm.

    A node that joins its realm again keeps its keys, its name and its addresses.
    """
    if member.chain.not_after > realm_clock(state).now_unix() or (
        token is not None and token.realm_id != member.anchor.realm_id
    ):
        state.require_realm(None)


# ── by files ──


def _request(state: StateDir, name: str, options: argparse.Namespace) -> int:
    context.require_new(options.request, force=options.force)
    request = OfflineRequest.build(state.make_node_keys(), name, nonce=os.urandom(NONCE_BYTES))
    context.write_file(options.request, request.encode())
    state.save_record(
        REQUEST, request
    )  # last: if the file cannot be written, the answer to an earlier request is still taken
    if options.json:
        return print_json(Asked(name, format_node_id(request.node_id), str(options.request)))
    rows = [
        ("request", f"{options.request}: {name}, {format_node_id(request.node_id)}"),
        ("next", f"carry it to a node that issues, and there: conflux realm sign {options.request.name}"),
    ]
    sys.stdout.write(show.fields(rows) + "\n")
    return 0


def _answer(state: StateDir, former: Member | None, options: argparse.Namespace) -> Member:
    request = state.load_record(REQUEST, OfflineRequest)
    keys = state.node_keys()
    if request is None or keys is None:
        raise StateError(f"{state.path}: no request was made here: `conflux join --request FILE` makes one")
    answer = context.read_file(options.answer, JoinAnswer.BYTES_MAX)
    try:
        anchor = JoinAnswer.decode_untrusted(answer).anchor
        if former is None or former.realm_id != anchor.realm_id:  # of our own realm the root is known
            _compare_root(anchor, options)
        clock = realm_clock(state)
        member = accept_offline_untrusted(answer, request, keys, clock, fingerprint=anchor.fingerprint)
    except RemoteProtocolError as error:
        if error.reason == "wrong-answer":
            raise ConfigError(f"{options.answer}: not the answer to the newest request made here") from None
        raise ConfigError(f"{options.answer}: not a valid answer ({error})") from None
    state.save_member(member)
    state.remove(REQUEST)
    return member


def _compare_root(anchor: RealmAnchor, options: argparse.Namespace) -> None:
    """Have a person say that the root in the answer is the issuer's.  Raises UserError, ConfigError.

    Nothing is kept before: a forged answer is of a realm of its forger's, and only the root tells the two apart.
    """
    words = root_words(anchor)
    if options.root is not None:
        if options.root != words.replace(" ", ""):
            raise ConfigError(f"{options.answer}: its root is another one: {words}; nothing was kept")
        return
    if not sys.stdin.isatty():
        raise UserError(
            f"{options.answer}: is its root the issuer's?  Give it as `conflux realm sign` printed it: --root"
        )
    out = sys.stderr if options.json else sys.stdout
    out.write(f"realm {anchor.name}, root {words}\nDoes `conflux realm sign` show this root? [y/N] ")
    out.flush()
    if sys.stdin.readline(16).strip().lower() not in ("y", "yes"):
        raise UserError("not joined; nothing was kept")
