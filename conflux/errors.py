"""The errors that Conflux raises on purpose; any other exception is a bug.

A peer's bytes raise RemoteProtocolError and nothing else.  An error that a person can correct (a config file, a token,
a missing device) is a subclass of UserError.  Its text says what is wrong and where, and the command line prints it
unchanged.
"""

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
        if not detail.isprintable():
            detail = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in detail)
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class AuthError(RemoteProtocolError):
    """A tag or signature did not verify."""

    def __init__(self, detail: str = "") -> None:
        super().__init__("auth", detail)


class UserError(ConfluxError):
    """An error that a person can correct; the text says what is wrong and where."""


class ConfigError(UserError):
    """conflux.toml, a flag or a token is wrong."""


class StateError(UserError):
    """The state directory is missing, damaged, locked or not writable."""
