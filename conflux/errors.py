"""The errors Conflux raises on purpose; whatever else escapes is a bug.

A peer's bytes raise RemoteProtocolError and nothing else.  What a person can mend (a config file, a token, a missing
device) is a subclass of UserError whose text names what is wrong and where; the command line prints it as it stands.
"""


class ConfluxError(Exception):
    """The base of every error below."""


class LocalProtocolError(ConfluxError):
    """This program broke a rule of the protocol: a bug here, never a peer's doing."""


class RemoteProtocolError(ConfluxError):
    """A peer broke a rule.

    reason: a short slug such as "malformed" or "bad-signature"; drops are counted under it.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class AuthError(RemoteProtocolError):
    """A tag or signature did not verify."""

    def __init__(self, detail: str = "") -> None:
        super().__init__("auth", detail)


class UserError(ConfluxError):
    """Something a person can mend; the text says what and where."""


class ConfigError(UserError):
    """conflux.toml, a flag or a token is wrong."""


class StateError(UserError):
    """The state directory is missing, damaged, locked or not writable."""
