"""A report of a fault: what this board is and says of itself, in one archive, with every secret taken out."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from conflux.config import settings
from conflux.config.settings import Config
from conflux.doctor import journal, node
from conflux.doctor.finding import Check, Finding
from conflux.doctor.firewall import PROGRAMS
from conflux.doctor.foreign import end_of
from conflux.doctor.host import device_name
from conflux.doctor.scrub import scrubbed, without_values
from conflux.doctor.subject import Subject
from conflux.errors import ConfigError, UserError

RUN_S = 10.0
PART_CHARS_MAX = 512 * 1024  # of a part: its end counts
LOG_LINES = 2000
CRASH_LINES = 500
LOG_FILE = "daemon.log"  # in the state directory, of a daemon that runs in the background
FILE_COUNT_MAX = 1000
CONFIGURATION = "configuration.txt"
KNOWN_CHARS_MIN = 6  # chosen: of a secret that is taken out wherever it stands

README = """\
A report of Conflux on this board, made by `conflux report`.

Keys, invitations and passwords are taken out.  Names, node ids, addresses and the end of the log are in it: read it
before you send it.
"""

_NETWORK = (
    ("ip", "-brief", "address"),
    ("ip", "-statistics", "link"),
    ("ip", "route"),
    ("ip", "-6", "route"),
    ("ip", "rule"),
    ("ip", "-6", "rule"),
    ("ss", "-lntu"),
)
_STARTS = re.compile(r"\d\d:\d\d:\d\d\.\d{3}  ")


class Part(NamedTuple):
    """One file of the archive."""

    name: str
    text: str


def parts(seen: Subject, findings: Iterable[Finding]) -> Iterator[Part]:
    """Yield the files of a report, without secrets.  findings: of the doctor."""
    secrets = tuple(_secrets(seen.config))
    for name, text in _parts(seen, findings):
        yield Part(name, scrubbed(text[-PART_CHARS_MAX:], known_in(name, secrets)))


def known_in(name: str, secrets: Iterable[str]) -> Iterator[str]:
    """Yield the secrets that are taken out of a part by their value.

    A short one, as the name of a user "pi", is a piece of many words: it goes out of the configuration alone.
    """
    return (each for each in secrets if len(each) >= KNOWN_CHARS_MIN or name == CONFIGURATION)


def archive(files: Iterable[Part], folder: str, now_unix: int) -> bytes:
    """Return a tar.gz of files within a folder."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files:
            data = text.encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), now_unix, 0o600
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def write(path: Path, data: bytes) -> None:
    """Write a new file that its owner alone can read.  Raises UserError, also if there is a file already."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise UserError(f"{path} is there already: name another file") from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def _parts(seen: Subject, findings: Iterable[Finding]) -> Iterator[Part]:
    yield Part("README.txt", README)
    yield Part("status.json", json.dumps(seen.daemon.status or {"error": seen.daemon.said}, indent=2))
    yield Part("doctor.txt", "".join(f"{each.grade} {each.check}: {_finding(each)}\n" for each in findings))
    yield Part(CONFIGURATION, _configuration(seen))
    yield Part("versions.txt", _versions(seen))
    yield Part("network.txt", "\n".join(_run(words) for words in _NETWORK))
    yield Part("rules.txt", _run(("nft", "list", "table", "inet", f"conflux-{device_name(seen)}")))
    yield Part("state.txt", "".join(_listed(seen.config.node.state_dir)))
    log = _log(seen.config.node.state_dir)
    yield Part("log.txt", "\n".join(log))
    yield Part("crashes.txt", "\n".join(_crashes(log)))


def _secrets(config: Config) -> Iterator[str]:
    """Yield the secrets of a configuration."""
    if config.realm.token is not None:
        yield config.realm.token
    for server in config.link.ice_servers:
        yield from filter(None, (server.username, server.password))


def _finding(each: Finding) -> str:
    """Return what a finding says, without the value of a key that is secret."""
    if each.check is Check.CONFIGURATION and (key := _secret_in(each.text)):
        return f"{key} is wrong"
    return each.text


def _secret_in(text: str) -> str | None:
    return next((key for key, _, entry in settings.every_key() if entry.secret and key in text), None)


def _configuration(seen: Subject) -> str:
    """Return every value that counts with its origin; of a broken file its keys alone, and what is wrong."""
    if seen.file is None:
        return "there is none: every key has its default\n"
    try:
        text = settings.read(seen.file)
    except ConfigError as error:
        return f"{error}\n"
    if not seen.faults:
        lines = [f"{each.key} = {json.dumps(each.value)}  # {_origin(each.line)}" for each in settings.valued(text)]
        return "\n".join(lines) + "\n"
    wrong = [f"line {each.line}: {_secret_in(each.text) or each.text}" for each in seen.faults]
    return "\n".join(("what is wrong:", *wrong, "", "keys, without values:", without_values(text))) + "\n"


def _origin(line: int | None) -> str:
    return "default" if line is None else f"line {line}"


def _versions(seen: Subject) -> str:
    own = node.look_at_versions(seen)
    lines = [f"{name}: {value}" for name, value in own._asdict().items()]
    lines += [f"machine: {platform.machine()}", f"uname: {' '.join(os.uname())}"]
    try:
        lines += Path("/etc/os-release").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines.append("no /etc/os-release")
    lines.append("")
    for requirement in metadata.requires("conflux") or ():
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue  # of an extra that is not installed
    return "\n".join(dict.fromkeys(lines)) + "\n"


def _run(words: Sequence[str]) -> str:
    """Return what a program of the system prints, under its command line."""
    title = f"$ {' '.join(words)}\n"
    program = shutil.which(words[0], path=PROGRAMS)
    if program is None:
        return f"{title}(not installed)\n"
    try:
        done = subprocess.run(  # noqa: S603  # a program of the system
            [program, *words[1:]], capture_output=True, timeout=RUN_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{title}({error})\n"
    return title + (done.stdout + done.stderr).decode(errors="replace")


def _listed(path: Path) -> Iterator[str]:
    """Yield name, mode, owner, size and age of what is in the state directory; of no file the content."""
    now, count = time.time(), 0
    for folder, _, names in os.walk(path):
        for name in sorted(names):
            count += 1
            if count > FILE_COUNT_MAX:
                yield "...\n"
                return
            file = Path(folder, name)
            try:
                status = file.lstat()
            except OSError:
                continue
            mode, age_s = stat.filemode(status.st_mode), now - status.st_mtime
            yield f"{mode} {status.st_uid} {status.st_size:>9} {age_s:>9.0f} s ago  {file.relative_to(path)}\n"
    if not count:
        yield f"{path}: nothing that this user may see\n"


def _log(state_dir: Path) -> list[str]:
    """Return the end of the log: of the journal, and of the file that a daemon in the background writes."""
    lines, why_not = journal.tail("7 days ago", LOG_LINES)
    found = lines if lines is not None else [f"({why_not})"]
    return [*found, *background_log(state_dir)]


def background_log(state_dir: Path) -> list[str]:
    """Return the end of the file that a daemon in the background writes; if it is not to be read, why."""
    try:
        text = end_of(state_dir / LOG_FILE)
    except UserError as error:
        return [f"({error})"]
    return [] if text is None else [f"--- {state_dir / LOG_FILE}", *text.splitlines()[-LOG_LINES:]]


def _crashes(log: Sequence[str]) -> list[str]:
    """Return the lines of a log that tell of a bug: those with its word, and the traceback under each."""
    found: list[str] = []
    follows = False
    for line in log:
        if "critical:" in line or "a bug ended the daemon" in line or "Traceback (most recent" in line:
            follows = True
        elif follows and _STARTS.match(line):
            follows = False
        if follows:
            found.append(line)
    return found[-CRASH_LINES:]
