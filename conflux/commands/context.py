"""What every command needs first: its configuration, and the daemon if it talks to one."""

from __future__ import annotations

import argparse
from pathlib import Path

from conflux import config
from conflux.client import ApiClient
from conflux.config import Config


def load(options: argparse.Namespace) -> Config:
    """Return the configuration that --config and --state-dir name."""
    loaded = config.load(options.config)
    if options.state_dir is not None:
        loaded = loaded.with_state_dir(Path(options.state_dir).absolute())
    return loaded


def daemon(options: argparse.Namespace) -> ApiClient:
    """Return a client of the daemon of this configuration."""
    return ApiClient(load(options).socket)
