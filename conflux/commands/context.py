"""What every command needs first: its configuration, and the daemon if it talks to one."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from conflux import config
from conflux.client import ApiClient
from conflux.config import Config
from conflux.errors import ConfigError, UserError


def load(options: argparse.Namespace) -> Config:
    """Return the configuration that --config and --state-dir name."""
    loaded = config.load(options.config)
    if options.state_dir is not None:
        loaded = loaded.with_state_dir(Path(options.state_dir).absolute())
    return loaded


def daemon(options: argparse.Namespace) -> ApiClient:
    """Return a client of the daemon of this configuration."""
    return ApiClient(load(options).socket)


def read_file(path: Path, bytes_max: int) -> bytes:
    """Return a small file's content.  Raises ConfigError naming it."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > bytes_max:
        raise ConfigError(f"{path}: larger than {bytes_max} bytes")
    return data


def write_file(path: Path, data: bytes) -> None:
    """Make data the content of path, wholly or not at all; what was there is replaced."""
    try:
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o644)  # nothing secret is written this way
            file.write(data)
        Path(beside).replace(path)
    except OSError as error:
        Path(beside).unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from None
