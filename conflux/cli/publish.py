"""`conflux policy publish`, `show`, `diff` and `rollback`: the policy of the realm, as this node knows it.

A running daemon tells all others of a policy; without one, the next daemon here does.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import time
from typing import NamedTuple

from conflux.api.client import NotRunning
from conflux.cli import context, entry, policy
from conflux.cli.grammar import EXIT_USAGE
from conflux.cli.observe import print_json
from conflux.cli.office import date, in_realm
from conflux.errors import ConfigError, UserError, printable
from conflux.ids import format_node_id
from conflux.policy import reading
from conflux.realm.member import Member
from conflux.realm.policy import SignedPolicy
from conflux.realm.policybook import PolicyBook, sign_next
from conflux.state.clock import realm_clock
from conflux.state.directory import StateDir
from conflux.state.list_files import ListFiles
from conflux.state.policy_files import PolicyFiles
from conflux.state.revoking import load_book

LISTED = "`conflux policy show --json` lists those that are"


class Published(NamedTuple):
    """The answer to `conflux policy publish` and `rollback`.

    new: False if this text is the policy already.  told: the nodes in reach have heard of it.
    """

    number: int
    new: bool
    told: bool


class PolicyRow(NamedTuple):
    """A policy that is kept here.  published_at: Unix seconds, by the signer's clock.  current: it counts."""

    number: int
    signer: str
    node: str
    published_at: int
    bytes: int
    current: bool


class PolicyShown(NamedTuple):
    """The answer to `conflux policy show`.  text: of the one that was asked for; None: the realm has no policy."""

    text: str | None
    policies: tuple[PolicyRow, ...]


class PolicyDiff(NamedTuple):
    """The answer to `conflux policy diff`.  lines: a unified diff, from what counts to the file."""

    file: str
    same: bool
    lines: tuple[str, ...]


class _Desk(NamedTuple):
    """This node, and the policies that it keeps."""

    state: StateDir
    member: Member
    files: PolicyFiles
    book: PolicyBook
    now_unix: int

    @property
    def kept(self) -> tuple[SignedPolicy, ...]:
        """What counts, then what was before it."""
        current = self.book.current
        return () if current is None else (current, *self.book.earlier)


def publish(options: argparse.Namespace) -> int:
    """Check a rule file, sign it and have all nodes hear of it; exit code 1 if it is not good."""
    try:
        data = context.read_file(options.file, reading.FILE_BYTES_MAX)
        members = policy.members_of(options.members)
    except ConfigError as error:
        entry.complain(str(error))
        return EXIT_USAGE
    return _publish(options, _open(options), str(options.file), data, members)


def rollback(options: argparse.Namespace) -> int:
    """Publish the policy before the one that counts again, or the one of a number."""
    desk = _open(options)
    earlier = desk.book.earlier
    if options.to is None:
        found = earlier[0] if earlier else None
        missing = "there is no earlier policy here"
    else:
        found = next((each for each in earlier if each.head.number == options.to), None)
        missing = f"no earlier policy {options.to} is kept here: {LISTED}"
    if found is None:
        raise UserError(missing)
    return _publish(options, desk, f"policy {found.head.number}", found.text, None)


def _publish(options: argparse.Namespace, desk: _Desk, name: str, data: bytes, members: policy.Members) -> int:
    checked = policy.checked(name, data, members)
    if not checked.valid:
        lines = [*policy.lines(checked), f"{name}: not published"]
        if options.json:
            print_json(checked)
        else:
            sys.stdout.write("".join(f"{line}\n" for line in lines))
        return 1
    current = desk.book.current
    if current is not None and current.text == data:
        done = Published(current.head.number, new=False, told=False)
    else:
        signed = sign_next(desk.book, desk.member, data, now_unix=desk.now_unix)
        desk.files.save(signed)
        done = Published(signed.head.number, new=True, told=_tell(options))
    if options.json:
        return print_json(done)
    for line in policy.lines(checked):
        if ": warning: " in line:
            sys.stdout.write(f"{line}\n")
    sys.stdout.write(_said(name, done) + "\n")
    return 0


def _said(name: str, done: Published) -> str:
    if not done.new:
        return f"{name}: this is policy {done.number}, which counts already"
    told = "every node in reach hears of it" if done.told else "no daemon runs here: `conflux up` tells the others"
    return f"{name}: published as policy {done.number}; {told}"


def _tell(options: argparse.Namespace) -> bool:
    """Have the daemon take the policy from the disk; return whether there is one."""
    try:
        context.daemon(options).call("look-at-policy")
    except NotRunning:
        return False
    return True


def shown(options: argparse.Namespace) -> int:
    """Print the rule file that counts, or an earlier one."""
    desk = _open(options)
    found = desk.book.current
    if options.number is not None:
        found = next((each for each in desk.kept if each.head.number == options.number), None)
        if found is None:
            raise UserError(f"no policy {options.number} is kept here: {LISTED}")
    if options.json:
        text = None if found is None else found.text.decode(errors="replace")
        return print_json(PolicyShown(text, tuple(_row(desk, each) for each in desk.kept)))
    if found is None:
        sys.stdout.write("the realm has no policy: members reach one another\n")
    elif sys.stdout.isatty():
        head = found.head
        by = head.chain.credential.name
        sys.stdout.write(f"# policy {head.number}, published by {by} on {date(head.number)}\n")
        sys.stdout.write("".join(f"{printable(line)}\n" for line in _lines(found.text)))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(found.text)
    return 0


def diff(options: argparse.Namespace) -> int:
    """Print what a file would change of the policy that counts; exit code 1 if it would change anything."""
    try:
        data = context.read_file(options.file, reading.FILE_BYTES_MAX)
    except ConfigError as error:
        entry.complain(str(error))
        return EXIT_USAGE
    current = _open(options).book.current
    name = "no policy" if current is None else f"policy {current.head.number}"
    before = [] if current is None else _lines(current.text)
    lines = tuple(
        printable(line) for line in difflib.unified_diff(before, _lines(data), name, str(options.file), lineterm="")
    )
    same = current is not None and current.text == data
    if options.json:
        print_json(PolicyDiff(str(options.file), same, lines))
    elif same:
        sys.stdout.write(f"{options.file}: the same as {name}\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines) or f"{options.file}: other line ends than {name}\n")
    return 0 if same else 1


def _open(options: argparse.Namespace) -> _Desk:
    state = StateDir.open(context.load(options).node.state_dir)
    member = in_realm(state)
    clock = realm_clock(state)
    files = PolicyFiles(state)
    lists = load_book(ListFiles(state), member, lambda: int(time.time()))
    book = PolicyBook(lists, clock.now_unix)
    book.load(files.all())
    return _Desk(state, member, files, book, clock.now_unix())


def _row(desk: _Desk, each: SignedPolicy) -> PolicyRow:
    head = each.head
    return PolicyRow(
        head.number,
        head.chain.credential.name,
        format_node_id(head.signer),
        head.number,
        len(each.text),
        each is desk.book.current,
    )


def _lines(text: bytes) -> list[str]:
    return text.decode(errors="replace").splitlines()
