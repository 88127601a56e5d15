"""`conflux join`: with a token over the LAN, or with files that a person carries."""

from __future__ import annotations

import argparse
import os
import sys

from conflux.commands import context, show
from conflux.commands.realm import print_member
from conflux.errors import ConfigError, RemoteProtocolError, StateError
from conflux.ids import format_node_id
from conflux.joining import join_with_token, realm_clock, wanted_name
from conflux.realm.invite import Token, parse_hint
from conflux.realm.join import NONCE_BYTES, JoinAnswer, OfflineRequest, accept_offline_untrusted
from conflux.realm.member import Member
from conflux.realm.store import StateDir

REQUEST = "join.request"  # in the state directory, until its answer comes


def join(options: argparse.Namespace) -> int:
    """Join with a token, or make a request file, or read the answer to one."""
    config = context.load(options)
    name = wanted_name(config, options.name)
    token = (
        None if options.token is None else Token.parse(options.token)
    )  # a bad one is refused before anything is made
    peers = () if options.peer is None else (parse_hint(options.peer),)
    state = StateDir.open(config.node.state_dir, create=options.answer is None)
    state.lock()
    try:
        former = state.member()
        if former is not None:
            _require_ended(state, former, token)
            name = options.name or former.name
        if token is not None:
            member = join_with_token(config, state, token, name, peers)
        elif options.request is not None:
            return _request(state, name, options)
        else:
            member = _answer(state, options)
    finally:
        state.close()
    print_member(member, f"joined realm {member.anchor.name}")
    sys.stdout.write("\nNext: conflux up\n")
    return 0


def _require_ended(state: StateDir, member: Member, token: Token | None) -> None:
    """Raise StateError unless the credential has ended and this is its realm: keys, name and addresses then stay."""
    if member.chain.not_after > realm_clock(state).now_unix() or (
        token is not None and token.realm_id != member.anchor.realm_id
    ):
        state.require_realm(None)


# ── by files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _request(state: StateDir, name: str, options: argparse.Namespace) -> int:
    request = OfflineRequest.build(state.make_node_keys(), name, nonce=os.urandom(NONCE_BYTES))
    context.write_file(options.request, request.encode())
    state.save_record(REQUEST, request)  # last: where no file can be written, an earlier request stays answerable
    rows = [
        ("request", f"{options.request}: {name}, {format_node_id(request.node_id)}"),
        ("next", f"carry it to a node that issues, and there: conflux realm sign {options.request.name}"),
    ]
    sys.stdout.write(show.fields(rows) + "\n")
    return 0


def _answer(state: StateDir, options: argparse.Namespace) -> Member:
    request = state.load_record(REQUEST, OfflineRequest)
    keys = state.node_keys()
    if request is None or keys is None:
        raise StateError(f"{state.path}: no request was made here: `conflux join --request FILE` makes one")
    answer = context.read_file(options.answer, JoinAnswer.BYTES_MAX)
    try:
        member = accept_offline_untrusted(answer, request, keys, realm_clock(state))
    except RemoteProtocolError as error:
        if error.reason == "wrong-answer":
            raise ConfigError(f"{options.answer}: not the answer to the newest request made here") from None
        raise ConfigError(f"{options.answer}: not a valid answer ({error})") from None
    state.save_member(member)
    state.remove(REQUEST)
    return member
