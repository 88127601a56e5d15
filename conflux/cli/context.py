"""What commands share: the configuration, the daemon's client, reading and writing files."""

from __future__ import annotations

import argparse
import os
import sys

from conflux.api.client import ApiClient
from conflux.config import place
from conflux.errors import ConfigError, UserError

TYPE_CHECKING = False  # these take long to import, and a command that looks does without
if TYPE_CHECKING:
    from pathlib import Path

    from conflux.config.settings import Config


def load(options: argparse.Namespace) -> Config:
    """Return the configuration that --config and --state-dir name."""
    from conflux.config import settings

    loaded = settings.load(options.config)
    if options.state_dir is not None:
        loaded = loaded.with_state_dir(options.state_dir.absolute())
    return loaded


def warn_of_readable_secrets(options: argparse.Namespace, config: Config) -> None:
    """Warn on standard error if every user of this host can read a configuration with a secret in it."""
    from conflux.config import settings

    secrets = [] if config.realm.token is None else ["an invitation (realm.token)"]
    if any(server.password is not None for server in config.link.ice_servers):
        secrets.append("a password (link.ice_servers)")
    path = options.config or settings.PATH_DEFAULT
    try:
        is_open = bool(secrets) and bool(path.stat().st_mode & 0o004)
    except OSError:
        return
    if is_open:
        sys.stderr.write(
            f"conflux: {path}: every user can read it, and it holds {' and '.join(secrets)}: chmod o-r it\n"
        )


def daemon(options: argparse.Namespace) -> ApiClient:
    """Return a client of the daemon of this configuration."""
    return ApiClient(_socket(options))


def _socket(options: argparse.Namespace) -> str:
    """Return where the daemon listens; a mistake elsewhere in the configuration must not keep it from being ended."""
    path, state_dir = (None if given is None else str(given) for given in (options.config, options.state_dir))
    return place.socket_of(path, state_dir) or str(_salvaged(options))


def _salvaged(options: argparse.Namespace) -> Path:
    """Return where the daemon listens, of a configuration that does not say so plainly."""
    from conflux.config import settings

    try:
        return load(options).socket
    except ConfigError as error:
        found = settings.salvage(options.config or settings.PATH_DEFAULT)
        if found is not None:
            sys.stderr.write(f"conflux: warning: {error}; this command needs only where the daemon is\n")
        elif options.config is None and not os.access(settings.PATH_DEFAULT, os.R_OK):
            found = settings.Config()  # who may only look cannot read it, as it may hold a token: the usual place it is
        else:
            raise
    if options.state_dir is not None:
        found = found.with_state_dir(options.state_dir.absolute())
    return found.socket


def read_file(path: Path, bytes_max: int) -> bytes:
    """Return the content of a small file.  Raises ConfigError, whose text names the file."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > bytes_max:
        raise ConfigError(f"{path}: larger than {bytes_max} bytes")
    return data


def require_new(path: Path, *, force: bool) -> None:
    """Raise UserError if something is there already, unless it may be replaced.  Asked before anything is done."""
    if not force and os.path.lexists(path):
        raise UserError(f"{path} is there already: --force replaces it, or give another name")


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Make data the content of path, completely or not at all; an existing file is replaced.

    mode: for a file that is not secret.
    """
    import tempfile  # it takes longer than all of `conflux status`, and few commands write
    from pathlib import Path

    try:
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(path)
    except OSError as error:
        Path(beside).unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from None
