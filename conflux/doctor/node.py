"""Checks of the node: its configuration, its daemon, its neighbours, versions, its state directory, its credential."""

from __future__ import annotations

import os
import platform
import ssl
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from conflux import __version__
from conflux.config import settings
from conflux.doctor.finding import AS_ROOT, Check, Finding, bad, good, unseen
from conflux.doctor.subject import Answer, Subject
from conflux.realm.dates import span, utc

START = "sudo systemctl start conflux    (or: sudo conflux up)"
RESTART = "sudo conflux down; sudo conflux up    (or: sudo systemctl restart conflux)"
# Warnings of the daemon of which a check of this package says more.
ELSEWHERE = frozenset({"clock-behind", "ipv4-collides", "ipv6-collides", "no-interface", "state-full", "no-ipv6"})
FILE_COUNT_MAX = 10_000  # of the state directory that are looked at


def configuration(seen: Subject) -> Iterator[Finding]:
    """Judge the configuration."""
    if seen.unread:
        yield bad(Check.CONFIGURATION, seen.unread, "sudo conflux config check")
    for fault in seen.faults:
        place = f"{seen.file}:{fault.line}" if fault.line else str(seen.file)
        yield bad(Check.CONFIGURATION, f"{place}: {fault.text}", f"sudo nano {seen.file}    # then: conflux reload")
    if not seen.unread and not seen.faults:
        said = f"{seen.file} is valid" if seen.file else f"there is no {settings.PATH_DEFAULT}: the defaults count"
        yield good(Check.CONFIGURATION, said)


def daemon(seen: Subject) -> Iterator[Finding]:
    """Judge whether the daemon runs, and what it warns of."""
    told, status = seen.daemon, seen.daemon.status
    if told.answer is Answer.NOT_RUNNING:
        yield bad(Check.DAEMON, f"no daemon listens on {seen.config.socket}", START)
    elif told.answer is Answer.HANGS:
        yield bad(Check.DAEMON, told.said, "sudo kill -9 $(pidof -x conflux); sudo conflux up")
    elif told.answer is Answer.FORBIDDEN:
        yield unseen(Check.DAEMON, told.said, AS_ROOT)
    else:
        yield good(Check.DAEMON, f"runs as process {status.get('pid')} for {span(int(status.get('uptime_s', 0)))}")
        for text in status.get("warnings", ()):
            name = str(text).partition(":")[0]
            if name not in ELSEWHERE:
                yield bad(Check.DAEMON, str(text), f"see {name} in docs/how-to/trouble.md")
        for row in status.get("control", ()):
            if not row.get("up"):
                yield bad(Check.DAEMON, f"{row.get('name')}: {row.get('detail')}", "conflux status")


def neighbours(seen: Subject) -> Iterator[Finding]:
    """Judge whether another node is heard."""
    if seen.daemon.answer is not Answer.STATUS:
        return
    rows = [each for row in seen.daemon.status.get("control", ()) for each in row.get("neighbours", ())]
    names = sorted({str(each.get("name")) for each in rows})
    if names:
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        yield good(Check.NEIGHBOURS, f"{len(names)} heard: {shown}")
    else:
        yield unseen(Check.NEIGHBOURS, "no other node is heard; if one runs near here, ask its doctor too")


class Versions(NamedTuple):
    """daemon: the version of the daemon that runs, or None."""

    own: str
    daemon: str | None
    python: str
    kernel: str
    openssl: str


def look_at_versions(seen: Subject) -> Versions:
    """Return the versions of what runs here."""
    told = seen.daemon.status.get("version")
    return Versions(__version__, told and str(told), platform.python_version(), os.uname().release, ssl.OPENSSL_VERSION)


def versions(seen: Versions) -> Iterator[Finding]:
    """Judge whether the daemon is of the version of this command."""
    said = f"conflux {seen.own}, Python {seen.python}, Linux {seen.kernel}, {seen.openssl}"
    if seen.daemon not in (None, seen.own):
        yield bad(Check.VERSIONS, f"the daemon is of version {seen.daemon}, this command of {seen.own}", RESTART)
    else:
        yield good(Check.VERSIONS, said)


class State(NamedTuple):
    """The state directory.  mode: None if it is not there.  loose: files that others can read.

    owner: the user it belongs to.  user: the one that a daemon would have.
    """

    path: Path
    mode: int | None
    is_directory: bool
    is_readable: bool
    owner: int
    user: int
    loose: tuple[str, ...]
    is_member: bool
    untold: str


def look_at_state(seen: Subject) -> State:
    """Look at the state directory; what cannot be read is noted as such."""
    path = seen.config.node.state_dir
    try:
        status = path.stat()
    except OSError:
        return State(path, None, False, os.geteuid() == 0, 0, os.geteuid(), (), False, seen.untold)
    is_readable = os.access(path, os.R_OK | os.X_OK)
    return State(
        path,
        stat.S_IMODE(status.st_mode),
        stat.S_ISDIR(status.st_mode),
        is_readable,
        status.st_uid,
        status.st_uid if seen.daemon.runs else os.geteuid(),
        tuple(_loose(path)) if is_readable else (),
        seen.member is not None,
        seen.untold,
    )


def _loose(path: Path) -> Iterator[str]:
    count = 0
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder, name)
            count += 1
            try:
                status = file.lstat()
            except OSError:  # it went meanwhile
                continue
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
                yield str(file)
            if count >= FILE_COUNT_MAX:
                return


def state(seen: State) -> Iterator[Finding]:
    """Judge the state directory."""
    if seen.mode is None and not seen.is_readable:
        yield unseen(Check.STATE, f"{seen.path} is not there, or hidden from this user", AS_ROOT)
    elif seen.mode is None:
        yield bad(Check.STATE, f"{seen.path} is not there: this board is in no realm", "sudo conflux join TOKEN")
    elif not seen.is_directory:
        yield bad(Check.STATE, f"{seen.path} is not a directory", f"sudo mv {seen.path} {seen.path}.old")
    elif seen.mode & 0o077:
        yield bad(Check.STATE, f"{seen.path} is open to others (mode {seen.mode:04o})", f"sudo chmod 700 {seen.path}")
    elif not seen.is_readable:
        yield unseen(Check.STATE, f"{seen.path}: no permission to look inside", AS_ROOT)
    else:
        yield from _inside(seen)


def _inside(seen: State) -> Iterable[Finding]:
    if seen.loose:
        yield bad(Check.STATE, f"{seen.loose[0]} is open to others", f"sudo chmod -R go= {seen.path}")
    if seen.user != seen.owner:
        yield bad(
            Check.STATE,
            f"{seen.path} belongs to user {seen.owner}, and a daemon of user {seen.user} cannot use it",
            f"sudo chown -R {seen.user} {seen.path}",
        )
    if seen.untold:
        yield bad(Check.STATE, seen.untold, f"sudo ls -la {seen.path}    # restore the file from a copy")
    elif not seen.is_member:
        yield bad(Check.STATE, f"{seen.path}: in no realm yet", "sudo conflux join TOKEN")
    elif not seen.loose and seen.user == seen.owner:
        yield good(Check.STATE, f"{seen.path}: complete, and its owner's alone")


class Dates(NamedTuple):
    """Of a credential, in Unix seconds."""

    not_after: int
    renew_at: int


def look_at_credential(seen: Subject) -> Dates | None:
    """Return the dates of this node's credential, from the daemon or from the disk; None: neither says."""
    told: Any = seen.daemon.status.get("credential") or {}
    if "expires_at" in told and "renew_at" in told:  # a daemon of another version may say neither
        return Dates(int(told["expires_at"]), int(told["renew_at"]))
    if seen.member is None:
        return None
    return Dates(seen.member.chain.not_after, seen.member.chain.credential.renew_at)


def credential(dates: Dates | None, *, now_unix: float | None = None) -> Iterator[Finding]:
    """Judge a credential.  now_unix: by this host's clock."""
    if dates is None:
        yield unseen(Check.CREDENTIAL, "there is none, or this user may not read it", AS_ROOT)
        return
    now = int(time.time() if now_unix is None else now_unix)
    until = utc(dates.not_after)
    if now >= dates.not_after:
        said = f"it ended at {until}, {span(now - dates.not_after)} ago by this clock ({utc(now)})"
        yield bad(Check.CREDENTIAL, said, "conflux up    # on the board that let this one in: it renews what it meets")
    elif now >= dates.renew_at:
        said = f"it ends at {until}, in {span(dates.not_after - now)}, and is not renewed yet"
        yield bad(Check.CREDENTIAL, said, "conflux up    # on the board that let this one in: it renews what it meets")
    else:
        yield good(Check.CREDENTIAL, f"holds until {until}, and renews automatically")
