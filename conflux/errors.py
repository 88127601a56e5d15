"""The errors that Conflux raises on purpose; any other exception is a bug.

A peer's bytes raise RemoteProtocolError and nothing else.  An error that a person can correct (a config file, a token,
a missing device) is a subclass of UserError.  Its text says what is wrong and where, and the command line prints it
unchanged.
"""

import os

DETAIL_CHARS_MAX = 160  # of what an error says about a peer's bytes: it goes into a line of the log


class ConfluxError(Exception):
    """The base of every error below."""


class LocalProtocolError(ConfluxError):
    """This program broke a rule of the protocol: a bug here, never the fault of a peer."""


class RemoteProtocolError(ConfluxError):
    """A peer broke a rule.

    reason: a short word such as "malformed" or "bad-signature"; drops are counted under it.  detail: for a person; what
    is longer than a line is cut, and what is not printable escaped, so that a peer's values may stand in it.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        if len(detail) > DETAIL_CHARS_MAX:
            detail = f"{detail[:DETAIL_CHARS_MAX]}..."
        detail = printable(detail)
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class AuthError(RemoteProtocolError):
    """A tag or signature did not verify."""

    def __init__(self, detail: str = "") -> None:
        super().__init__("auth", detail)


class UserError(ConfluxError):
    """An error that a person can correct; the text says what is wrong and where."""


class UsageError(UserError):
    """Options that do not go together: a command line that is none."""


class ConfigError(UserError):
    """conflux.toml, a flag or a token is wrong."""


class StateError(UserError):
    """The state directory is missing, damaged, locked or not writable."""


def printable(text: str) -> str:
    """Return text with what is not printable escaped: line ends, terminal codes, marks that turn the direction."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def words_of(error: BaseException) -> str:
    """Return an error as a person reads it.

    Python's own words for an error of the host have numbers, tuples and names of its source files in them.
    """
    if isinstance(error, OSError):
        said = _words_of_host(error)
        return f"{error.filename}: {said}" if isinstance(error.filename, str) else said
    return str(error) or "no reason is known"


def _words_of_host(error: OSError) -> str:
    if isinstance(reason := getattr(error, "reason", None), str):  # ssl.SSLError: "CERTIFICATE_VERIFY_FAILED"
        return reason.lower().replace("_", " ")
    if isinstance(error, TimeoutError) and not error.strerror:
        return "no answer in time"
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    said = error.strerror or str(error)
    if said.startswith("Multiple exceptions:"):  # of asyncio, which tried several addresses
        return "no address of it answers"
    return said or "no reason is known"
