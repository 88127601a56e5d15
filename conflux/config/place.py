"""Where the daemon listens, by the two keys of conflux.toml that say so.

A command that looks needs nothing else of the configuration, and is called often.  To load settings takes it longer
than all else that it does, so this reads no more than it must, and leaves what is not plain to settings.
"""

from __future__ import annotations

import os

FILE = "/etc/conflux/conflux.toml"
FILE_BYTES_MAX = 65536  # a full file with every comment is about 4 kB
STATE_DIR = "/var/lib/conflux"
SOCKET_NAME = "conflux.sock"
SOCKET = f"/run/conflux/{SOCKET_NAME}"  # the state directory is closed to those who may only look
SOCKET_PATH_BYTES_MAX = 107  # sun_path without its closing zero


def socket_of(path: str | None, state_dir: str | None) -> str | None:
    """Return the daemon's socket; None if this cannot be said without settings, which also say what is wrong.

    path: of the configuration; None for the usual place.  state_dir: wins over the configured one; None: nothing does.
    """
    try:
        with open(path or FILE, "rb") as file:  # pathlib is what takes long
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        if path is not None:
            return None
        data = b""
    except OSError:
        return None
    if len(data) > FILE_BYTES_MAX:
        return None
    configured, socket = None, None
    if _says_where(data):
        try:
            configured, socket = _told(data)
        except ValueError:
            return None
    if state_dir is not None:
        configured = os.path.normpath(os.path.join(os.getcwd(), state_dir))  # likewise
    if socket is not None:
        return socket
    return SOCKET if configured in (None, STATE_DIR) else f"{configured}/{SOCKET_NAME}"


def _says_where(data: bytes) -> bool:
    """Say whether one of the keys may stand in a line that is no comment; a quoted key can have escapes in it."""
    return any(
        not line.lstrip().startswith(b"#") and (b"state_dir" in line or b"socket" in line or b"\\" in line)
        for line in data.split(b"\n")
    )


def _told(data: bytes) -> tuple[str | None, str | None]:
    """Return what a text says of state directory and socket.  Raises ValueError for anything that settings refuse."""
    import tomli  # where there is no such key, it is not needed

    table = tomli.loads(data.decode("utf-8-sig"))
    node, api = table.get("node", {}), table.get("api", {})
    if not isinstance(node, dict) or not isinstance(api, dict):
        raise ValueError("no tables")
    configured, socket = node.get("state_dir"), api.get("socket")
    for value in (configured, socket):
        if value is not None and not (
            isinstance(value, str)
            and value.startswith("/")
            and value.isprintable()
            and os.path.normpath(value) == value
            and not value.startswith("//")
        ):
            raise ValueError("no plain path")
    if socket is not None and len(socket.encode()) > SOCKET_PATH_BYTES_MAX:
        raise ValueError("too long")
    return configured, socket
