"""`conflux realm backup` and `conflux realm restore`: another board becomes the founder of a realm."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path

from conflux.cli import context, show
from conflux.cli.ready import next_step
from conflux.cli.realm import print_member
from conflux.daemon.joining import wanted_name
from conflux.errors import ConfigError, StateError, UserError
from conflux.realm.backup import BACKUP_BYTES_MAX, Backup
from conflux.realm.issued import Issued
from conflux.state.clock import realm_clock
from conflux.state.directory import StateDir
from conflux.state.succession import make_backup, restore_realm

PASSPHRASE_CHARS_MIN = 10  # chosen: with scrypt, months of a large machine for ten random letters
PASSPHRASE_BYTES_MAX = 1024


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
    rows = [
        ("backup", f"{options.file}: realm {member.anchor.name}, {show.plural(len(made.nodes), 'node')} on record"),
        ("keep it", "away from this board; with it, another one becomes the founder: conflux realm restore FILE"),
    ]
    sys.stdout.write(show.fields(rows) + "\n")
    if word is None:
        sys.stderr.write("conflux: the backup is not encrypted: whoever has it has the realm\n")
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
    print_member(founder, f"this board is the founder of realm {founder.anchor.name}", config)
    sys.stdout.write(f"\nMembers find it by themselves.{_dead(kept, state)}\n\nNext: {next_step(options)}\n")
    return 0


def _dead(kept: Backup, state: StateDir) -> str:
    """Return what to do about the founder before, if it is a member still."""
    keys = state.node_keys()
    here = None if keys is None else keys.node_id
    before = {grant.issuer for grant in kept.own} - {here}
    entries = (state.load_record(name, Issued) for name in state.versions("issued", ".node"))
    names = [entry.name for entry in entries if entry is not None and entry.is_member and entry.node_id in before]
    if not names:
        return ""
    return f"  The board before is a member still: conflux realm revoke {names[0]}"


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
