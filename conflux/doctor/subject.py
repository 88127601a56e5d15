"""What the checks look at: the configuration as far as it is right, and what the daemon and the state directory say."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from conflux.api.client import ApiClient, HangsError, NotRunning
from conflux.config import settings
from conflux.config.settings import Config, Fault
from conflux.errors import ConfigError, StateError, UserError
from conflux.realm.member import Member
from conflux.state.directory import StateDir


class Answer(StrEnum):
    """What became of the question to the daemon."""

    STATUS = "status"
    NOT_RUNNING = "not-running"
    HANGS = "hangs"
    FORBIDDEN = "forbidden"


class Daemon(NamedTuple):
    """status: the answer to `conflux status`, {} if there is none.  said: why there is none, for a person."""

    answer: Answer
    status: Mapping[str, Any]
    said: str = ""

    @property
    def runs(self) -> bool:
        """Whether a daemon is there, even one that hangs."""
        return self.answer is not Answer.NOT_RUNNING


class Subject(NamedTuple):
    """file: the configuration; None: there is none.  faults: what is wrong in it.  unread: why it cannot be read.

    state: the directory, if it can be read.  member: this node, if it is one.  untold: why there is no state.
    """

    config: Config
    file: Path | None
    faults: tuple[Fault, ...]
    unread: str
    daemon: Daemon
    state: StateDir | None
    member: Member | None
    untold: str


def subject(file: Path | None, state_dir: Path | None) -> Subject:
    """Return what there is to look at.

    file: None for the usual place.  state_dir: in place of the configured one.  Asks the daemon, and reads the state
    directory if that is permitted; nothing that is wrong raises an error.
    """
    config, faults, unread = Config(), tuple[Fault, ...](), ""
    path = file or settings.PATH_DEFAULT
    try:
        if file is not None or path.exists():
            config, found = settings.examined(settings.read(path))
            faults = tuple(found)
        else:
            path = None  # type: ignore[assignment]
    except (ConfigError, OSError) as error:
        unread = str(error)
    if state_dir is not None:
        config = config.with_state_dir(state_dir.absolute())
    state = member = None
    untold = ""
    try:
        state = StateDir.open(config.node.state_dir, mends=False)
        member = state.member()
        untold = next((each for each in state.warnings() if each.startswith("state-damaged")), "")
    except StateError as error:
        untold = str(error)
    except PermissionError:
        untold = f"{config.node.state_dir}: no permission"
    return Subject(config, path, faults, unread, ask(config.socket), state, member, untold)


def ask(socket: Path) -> Daemon:
    """Return what the daemon on a socket says of itself."""
    try:
        answer = ApiClient(socket).look("status")
    except NotRunning as error:
        return Daemon(Answer.NOT_RUNNING, {}, str(error))
    except HangsError as error:
        return Daemon(Answer.HANGS, {}, str(error))
    except UserError as error:
        return Daemon(Answer.FORBIDDEN, {}, str(error))
    return Daemon(Answer.STATUS, answer if isinstance(answer, dict) else {})
