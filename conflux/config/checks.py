"""Checks of single configuration values: each takes a value as tomli read it and returns it as the program uses it.

A check raises Refused for a value that its key does not take.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path

from conflux.carrier.ice.server import IceServer
from conflux.config.place import SOCKET_PATH_BYTES_MAX
from conflux.errors import ConfigError
from conflux.ids import BROKER_PORT, LAN_PORT, NAME, fold_name, with_port

BROKER_SERVER_COUNT_MAX = 32  # chosen: a cluster has three, and a realm few regions
PEER_COUNT_MAX = 64  # chosen: static peers are for a few places without multicast
ICE_SERVER_COUNT_MAX = 8  # chosen: each makes gathering candidates slower
ICE_TEXT_CHARS_MAX = 256  # chosen: RFC 8489 allows usernames of 509 bytes, and real ones are much shorter
DEVICE_NAME_BYTES_MAX = 15  # IFNAMSIZ without its closing zero

SIZE_BYTES_MIN, SIZE_BYTES_MAX = 100_000, 10**15  # of a bound; chosen: less than that passes while a board starts

_SIZE_UNITS = {
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?([kKmMgGtT][iI]?[bB])")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})")


class Refused(Exception):
    """A value is not what its key expects; the text continues a sentence that begins with "section.key"."""


def _shown(value: object) -> str:
    try:
        text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    except ValueError:  # more than Python's limit of 4300 digits; in hexadecimal the TOML reader takes more
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def _expects(what: str, value: object) -> Refused:
    return Refused(f"must be {what}, not {_shown(value)}")


def boolean(value: object) -> bool:
    """Return value, which is true or false."""
    """Return value, which is true or false."""
    if not isinstance(value, bool):
        raise _expects("true or false", value)
    return value


def integer(least: int, most: int) -> Callable[[object], int]:
    """Return a check for a whole number from least to most."""

    def check(value: object) -> int:
        if type(value) is not int or not least <= value <= most:
            raise _expects(f"a whole number from {least} to {most}", value)
        return value

    return check


def seconds(least: float, most: float) -> Callable[[object], float]:
    """Return a check for a number of seconds from least to most."""

    def check(value: object) -> float:
        # The comparison also refuses NaN, and an integer that is too large for float().
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise _expects(f"a number of seconds from {least:g} to {most:g}", value)
        return float(value)

    return check


def size(value: object) -> int:
    """Return the bytes of "50 MB": a number and a unit of a thousand, or of 1024 as "50 MiB"."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _expects('a size such as "50 MB" or "1.5 GB"', value)
    count = round(float(found[1]) * _SIZE_UNITS[found[2].lower()])
    if not SIZE_BYTES_MIN <= count <= SIZE_BYTES_MAX:
        raise _expects("a size from 100 kB to 1000 TB", value)
    return count


def choice(*words: str) -> Callable[[object], str]:
    """Return a check for one of words."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise _expects("one of " + ", ".join(f'"{word}"' for word in words), value)
        return value

    return check


def node_name(value: object) -> str:
    """Return value, which is a name as in realm/name.py."""
    """Return value, folded, which is a name as in realm/name.py."""
    if not isinstance(value, str) or not NAME.fullmatch(name := fold_name(value)):
        raise _expects("a name of 1 to 63 characters a-z, 0-9 and hyphens, no hyphen first or last", value)
    return name


def token(value: object) -> str:
    """Return value, which may be an invitation: realm/invite.py reads it.  No error shows it, because it is secret."""
    if not isinstance(value, str) or not value.startswith("cfx1") or not value.isascii() or len(value) > 4096:
        raise Refused('must be an invitation, a text that begins with "cfx1"')
    return value


def device_name(value: object) -> str:
    """Return value, which is a name that the kernel takes for a network device."""
    """Return value, which is a name that the kernel takes for a network device."""
    bad = not isinstance(value, str) or not 1 <= len(value.encode()) <= DEVICE_NAME_BYTES_MAX or value in (".", "..")
    if bad or not re.fullmatch(r"[!-~]+", str(value)) or any(sign in str(value) for sign in "/:%"):
        raise _expects(f"a device name of 1 to {DEVICE_NAME_BYTES_MAX} characters without / : % or spaces", value)
    return str(value)


def interface_names(value: object) -> tuple[str, ...]:
    """Return the names of a list of network devices."""
    """Return the names of a list of network devices."""
    return tuple(device_name(entry) for entry in _sequence(value, 64, "a list of interface names"))


def page_places(value: object) -> tuple[str, ...]:
    """Return where the page is served besides loopback: "overlay", names of network devices, addresses of a LAN."""
    return tuple(_page_place(entry) for entry in _sequence(value, 16, "a list of places to listen at"))


def _page_place(value: object) -> str:
    try:
        address = ipaddress.ip_address(value) if isinstance(value, str) else None
    except ValueError:
        return device_name(value)
    if address is None:
        raise _expects('"overlay", a network device or an address', value)
    if not address.is_private or address.is_unspecified:
        raise Refused(f"must not be {address}: the page is for a LAN or the overlay, where no stranger reads it")
    return str(address)


def host_names(value: object) -> tuple[str, ...]:
    """Return the host names of a list, in lower case."""
    what = "a list of host names"
    names = _sequence(value, 16, what)
    if not all(isinstance(name, str) and _HOST.fullmatch(name) for name in names):
        raise _expects(what, value)
    return tuple(str(name).lower().rstrip(".") for name in names)


def directory(value: object) -> Path:
    """Return the absolute path of a directory, which need not exist."""
    """Return the absolute path of a directory, which need not exist."""
    return _absolute(value, "an absolute path of a directory")


def socket_path(value: object) -> Path:
    """Return the absolute path of a Unix socket."""
    """Return the absolute path of a Unix socket."""
    path = _absolute(value, "an absolute path of a socket")
    if len(str(path).encode()) > SOCKET_PATH_BYTES_MAX:
        raise Refused(
            f"must be a path of at most {SOCKET_PATH_BYTES_MAX} bytes: the kernel takes no longer socket path"
        )
    return path


def _absolute(value: object, what: str) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
        raise _expects(what, value)
    return Path(value)


def _sequence(value: object, count_max: int, what: str) -> list[object]:
    if not isinstance(value, list):
        raise _expects(what, value)
    if len(value) > count_max:
        raise Refused(f"must hold at most {count_max} entries, not {len(value)}")
    return value


def addresses(value: object) -> tuple[tuple[str, int], ...]:
    """Return (host, port) of each entry of a list of "host:port"."""
    return tuple(address(entry, LAN_PORT) for entry in _sequence(value, PEER_COUNT_MAX, 'a list of "host:port"'))


def address(value: object, port_default: int | None = None) -> tuple[str, int]:
    """Return (host, port) of "host:port" or "[ipv6]:port"; of "host" too if there is a port by default."""
    if not isinstance(value, str):
        raise _expects('"host:port"', value)
    text = value if port_default is None else with_port(value, port_default)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise _expects('"host:port" or "[ipv6]:port"', value) from None
    elif not _HOST.fullmatch(host):
        raise _expects('"host:port" or "[ipv6]:port"', value)
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise _expects('"host:port" with a port from 1 to 65535', value)
    return host, int(port)


def broker_servers(value: object) -> tuple[tuple[str, int], ...]:
    """Return (host, port) of each entry of a list of "tls://host:port", each once."""
    entries = _sequence(value, BROKER_SERVER_COUNT_MAX, 'a list of "tls://host:port"')
    return tuple(dict.fromkeys(_broker_server(entry) for entry in entries))


def _broker_server(value: object) -> tuple[str, int]:
    if not isinstance(value, str) or not value.startswith("tls://"):
        raise _expects('a list of "tls://host:port"', value)
    place = value.removeprefix("tls://")
    without_port = place.endswith("]") or ":" not in place
    try:
        return address(f"{place}:{BROKER_PORT}" if without_port else place)
    except Refused:
        raise _expects('a list of "tls://host:port" or "tls://[ipv6]:port", each port from 1 to 65535', value) from None


def file(value: object) -> Path:
    """Return the absolute path of a file."""
    return _absolute(value, "an absolute path of a file")


def area(value: object) -> str:
    """Return value, which names an area of the realm."""
    from conflux.realm.broker.subjects import AREA_CHARS_MAX, is_area  # slow to import, and seldom configured

    if not isinstance(value, str) or not is_area(value):
        raise _expects(
            f"a name of 1 to {AREA_CHARS_MAX} characters a-z, 0-9 and hyphens, no hyphen first or last", value
        )
    return value


def ice_servers(value: object) -> tuple[IceServer, ...]:
    """Return the servers of a list of URLs, or of tables of url, username and credential."""
    what = 'a list of "stun:host:port" and of tables such as { url = "turn:host", username = "u", credential = "c" }'
    if not isinstance(value, list):  # perhaps a table, which holds a password: it is not shown
        raise Refused(f"must be {what}")
    return tuple(_ice_server(entry, what) for entry in _sequence(value, ICE_SERVER_COUNT_MAX, what))


def _ice_server(entry: object, what: str) -> IceServer:
    if isinstance(entry, str):
        entry = {"url": entry}
    if not isinstance(entry, dict):
        raise _expects(what, entry)
    for key, text in entry.items():
        if key not in ("url", "username", "credential"):
            raise Refused(f"has an entry with the unknown key {key!r}; known: url, username, credential")
        if not isinstance(text, str) or not 0 < len(text) <= ICE_TEXT_CHARS_MAX:
            raise Refused(f"has an entry whose {key} is not a text of 1 to {ICE_TEXT_CHARS_MAX} characters")
    try:
        return IceServer.parse(entry.get("url", ""), entry.get("username"), entry.get("credential"))
    except ConfigError as error:
        raise Refused(f"has an entry that is no server: {error}") from None
