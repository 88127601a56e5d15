"""`conflux config check` and `conflux config show`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from conflux.cli import context, entry, show
from conflux.cli.grammar import EXIT_USAGE
from conflux.cli.observe import print_json
from conflux.config import settings
from conflux.config.mask import masked
from conflux.config.settings import Fault, Valued
from conflux.errors import ConfigError
from conflux.host import networks
from conflux.realm.invite import Token

DEFAULT = "default"


class Checked(NamedTuple):
    """The answer to `conflux config check`.  file: None if there is none."""

    file: str | None
    faults: tuple[Fault, ...]


class MaskedFile(NamedTuple):
    """The answer to `conflux config mask`.  keys: how many it sets."""

    file: str
    keys: int


class ValueRow(NamedTuple):
    """A value that counts.  origin: FILE:LINE, --state-dir or default.  live: a reload changes it."""

    value: Any
    origin: str
    live: bool


class Values(NamedTuple):
    """The answer to `conflux config show`.  file: None if there is none."""

    file: str | None
    values: Mapping[str, ValueRow]


class _File(NamedTuple):
    """The file that counts, and its text.  path: None if there is none, and every key has its default."""

    path: Path | None
    text: str


def check(options: argparse.Namespace) -> int:
    """Print everything that is wrong in the configuration; exit code 1 if there is something."""
    try:
        file = _file(options.file or options.config)
    except ConfigError as error:
        entry.complain(str(error))
        return EXIT_USAGE
    name = str(file.path or settings.PATH_DEFAULT)
    faults = faults_of(file.text)
    if options.json:
        print_json(Checked(None if file.path is None else name, tuple(faults)))
        return 1 if faults else 0
    for fault in faults:
        place = name if fault.line is None else f"{name}:{fault.line}"
        sys.stdout.write(f"{place}: {fault.text}\n")
    if not faults:
        sys.stdout.write(f"{name}: {'valid' if file.path else 'there is none; every key has its default'}\n")
    return 1 if faults else 0


def faults_of(text: str) -> list[Fault]:
    """Return what is wrong in a configuration by itself; if nothing is, what does not fit this host."""
    found = settings.faults_of(text)
    return found or list(_unfit(text))


def _unfit(text: str) -> list[Fault]:
    """Return what is well-formed and cannot work here."""
    config = settings.parse(text)
    line_of = {each.key: each.line for each in settings.valued(text)}
    found: list[tuple[str, str]] = []
    if config.realm.token is not None:
        try:
            Token.parse(config.realm.token)
        except ConfigError as error:
            found.append(("realm.token", str(error)))
    lan = config.control.lan
    if lan.enabled and (absent := networks.missing(lan.interfaces)) is not None:
        found.append(("control.lan.interfaces", absent))
    ca = config.control.nats.ca
    if ca is not None:
        try:
            ca.read_bytes()
        except OSError as error:
            found.append(("control.nats.ca", f"cannot read {ca}: {error.strerror}"))
    return [Fault(line_of[key], f"{key}: {said}") for key, said in found]


def show_values(options: argparse.Namespace) -> int:
    """Print every key with the value that counts, and where it comes from."""
    file = _file(options.config)
    rows = [(each.key, each.value, _origin(file, each), each.is_live) for each in _overridden(options, file)]
    if options.json:
        values = {key: ValueRow(value, origin, live) for key, value, origin, live in rows}
        return print_json(Values(None if file.path is None else str(file.path), values))
    table = [(key, shown(value), origin) for key, value, origin, _ in rows]
    sys.stdout.write(show.table(("key", "value", "from"), table, columns=show.columns()) + "\n")
    return 0


def write_masked(options: argparse.Namespace) -> int:
    """Write the configuration without its secrets."""
    context.require_new(options.file, force=options.force)
    file = _file(options.config)
    try:
        text = masked(file.text)
    except ConfigError:
        settings.load(options.config)  # the same error, with the name of the file
        raise
    context.write_file(options.file, text.encode())
    if options.json:
        return print_json(MaskedFile(str(options.file), text.count("\n")))
    sys.stdout.write(f"{options.file}: {show.plural(text.count(chr(10)), 'key')}, and no secret\n")
    return 0


def shown(value: object) -> str:
    """Return a value as the file has it; "not set" for None."""
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _overridden(options: argparse.Namespace, file: _File) -> list[Valued]:
    """Return every value, of the state directory the one of the command line."""
    try:
        values = settings.valued(file.text)
    except ConfigError:
        settings.load(options.config)  # the same error, with the name of the file
        raise
    if options.state_dir is None:
        return values
    given = str(options.state_dir.absolute())
    return [each._replace(value=given, line=0) if each.key == "node.state_dir" else each for each in values]


def _origin(file: _File, value: Valued) -> str:
    if value.line is None:
        return DEFAULT
    return f"{file.path}:{value.line}" if value.line else "--state-dir"


def _file(path: Path | None) -> _File:
    """Return the file at path, or at the usual place.  Raises ConfigError."""
    if path is None:
        try:
            if not settings.PATH_DEFAULT.exists():
                return _File(None, "")
        except PermissionError as error:
            raise ConfigError(f"cannot read {settings.PATH_DEFAULT}: {error.strerror}") from None
    path = path or settings.PATH_DEFAULT
    return _File(path, settings.read(path))
