"""`conflux realm backup` and `conflux realm restore`: another board becomes the founder of a realm."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import NamedTuple

from conflux.cli import context, show
from conflux.cli.observe import print_json
from conflux.cli.ready import next_step
from conflux.cli.realm import joined, print_member
from conflux.daemon.joining import wanted_name
from conflux.errors import ConfigError, StateError, UserError
from conflux.realm.backup import BACKUP_BYTES_MAX, Backup
from conflux.realm.issued import Issued
from conflux.state.clock import realm_clock
from conflux.state.directory import ROOT_KEY, StateDir
from conflux.state.succession import make_backup, restore_realm

PASSPHRASE_CHARS_MIN = 10  # chosen: with scrypt, months of a large machine for ten random letters
PASSPHRASE_BYTES_MAX = 1024


class BackedUp(NamedTuple):
    """The answer to `conflux realm backup`.  nodes: how many are on record in it."""

    file: str
    realm: str
    nodes: int
    encrypted: bool


class Restored(NamedTuple):
    """The answer to `conflux realm restore`: the new founder.

    root: the root's fingerprint.  before: the founder until now, if it is a member still and is to be revoked.
    """

    name: str
    node: str
    realm: str
    addresses: tuple[str, ...]
    root: str
    root_key: str
    before: str | None


def backup(options: argparse.Namespace) -> int:
    """Write a backup of the root's key and of what it governs."""
    state = StateDir.open(context.load(options).node.state_dir)
    member = state.member()
    if member is None:
        raise StateError(f"{state.path}: in no realm yet; there is nothing to back up")
    made = make_backup(state, member, now_unix=realm_clock(state).now_unix())
    context.require_new(options.file, force=options.force)
    word = None if options.plain else _new_passphrase(options.passphrase_file)
    context.write_file(options.file, made.seal(word, entropy=os.urandom), mode=0o600)
    if word is None:
        sys.stderr.write("conflux: warning: the backup is not encrypted: whoever has it has the realm\n")
    if options.json:
        return print_json(BackedUp(str(options.file), member.anchor.name, len(made.nodes), word is not None))
    rows = [
        ("backup", f"{options.file}: realm {member.anchor.name}, {show.plural(len(made.nodes), 'node')} on record"),
        ("keep it", "away from this board; with it, another one becomes the founder: conflux realm restore FILE"),
    ]
    sys.stdout.write(show.fields(rows) + "\n")
    return 0


def restore(options: argparse.Namespace) -> int:
    """Make this board the founder of the realm of a backup."""
    config = context.load(options)
    name = wanted_name(config, options.node)
    data = context.read_file(options.file, BACKUP_BYTES_MAX)
    kept = Backup.unseal_untrusted(data, lambda: _passphrase(options.passphrase_file))
    state = StateDir.open(config.node.state_dir, create=True)
    state.lock()
    try:
        now_unix = max(realm_clock(state).now_unix(), kept.made_at)
        founder = restore_realm(state, kept, name, now_unix=now_unix, entropy=os.urandom)
    finally:
        state.close()
    before = _founder_before(kept, state)
    if options.json:
        member = joined(founder, config)._asdict() | {"root_key": str(state.path / ROOT_KEY)}
        return print_json(Restored(**member, before=before))
    print_member(founder, f"this board is the founder of realm {founder.anchor.name}", config)
    dead = "" if before is None else f"  The board before is a member still: conflux realm revoke {before}"
    sys.stdout.write(f"\nMembers find it by themselves.{dead}\n\nNext: {next_step(options)}\n")
    return 0


def _founder_before(kept: Backup, state: StateDir) -> str | None:
    """Return the name of the founder until now, if it is a member still; else None."""
    keys = state.node_keys()
    here = None if keys is None else keys.node_id
    before = {grant.issuer for grant in kept.own} - {here}
    entries = (state.load_record(name, Issued) for name in state.versions("issued", ".node"))
    names = [entry.name for entry in entries if entry is not None and entry.is_member and entry.node_id in before]
    return names[0] if names else None


def _new_passphrase(file: Path | None) -> str:
    word = _passphrase(file)
    if len(word) < PASSPHRASE_CHARS_MIN:
        raise ConfigError(f"the passphrase must have at least {PASSPHRASE_CHARS_MIN} characters")
    if file is None and getpass.getpass("Again: ") != word:
        raise ConfigError("the two are not the same")
    return word


def _passphrase(file: Path | None) -> str:
    """Return the passphrase in the first line of a file, of standard input (-), or that a person types."""
    if file is None:
        if not sys.stdin.isatty():
            raise UserError("no terminal to ask for a passphrase: --passphrase-file FILE, or - for standard input")
        return getpass.getpass("Passphrase: ")
    if str(file) == "-":
        data = sys.stdin.buffer.readline(PASSPHRASE_BYTES_MAX + 1)
    else:
        data = context.read_file(file, PASSPHRASE_BYTES_MAX)
    try:
        return data.decode().split("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: the passphrase is not UTF-8 text") from None
