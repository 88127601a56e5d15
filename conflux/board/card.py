"""conflux.toml on the FAT partition of a flashed card: its keys, and what is wrong in it.

    [board]    name  time_zone  ssh_key  token  console
    [wifi]     ssid  password  country  hidden
    [conflux]  any key of /etc/conflux/conflux.toml, checked by the same code

Whoever edits it has no console.  So a mistake spoils its own key alone, every mistake is reported with its line, and a
board always comes up.
"""

from __future__ import annotations

import base64
import binascii
import copy
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NamedTuple

from conflux.config import checks
from conflux.config.checks import Refused
from conflux.config.settings import Config, Key, Wrong, filled, most_of
from conflux.config.source import Source

NAME: Final = "conflux.toml"
FILE_BYTES_MAX: Final = 65536
SSH_KEY_COUNT_MAX: Final = 16  # chosen: the people who look after one board
SSH_KEY_CHARS_MAX: Final = 8192  # one of RSA with 16384 bits has 2800
SSID_BYTES_MAX: Final = 32  # IEEE 802.11
PASSWORD_CHARS: Final = range(8, 64)  # IEEE 802.11i
USED: Final = "used"  # what stands in place of a token that was used, filled up with spaces

_SSH_KINDS: Final = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,30}(/[A-Za-z0-9_+-]{1,30}){0,2}")

Zones = Callable[[str], bool]
"""Says whether the system knows a time zone."""


def time_zone(value: object) -> str:
    """Return the name of a time zone; whether there is one of this name, read() asks."""
    if not isinstance(value, str) or not _ZONE.fullmatch(value):
        raise Refused('must be a time zone such as "Europe/Berlin"')
    return value


def ssh_keys(value: object) -> tuple[str, ...]:
    """Return the public keys of a text or of a list of texts, each once."""
    keys = [value] if isinstance(value, str) else value
    if not isinstance(keys, list) or not all(isinstance(each, str) for each in keys):
        raise Refused('must be a public key, as "ssh-ed25519 AAAA...", or a list of them')
    if len(keys) > SSH_KEY_COUNT_MAX:
        raise Refused(f"must hold at most {SSH_KEY_COUNT_MAX} keys, not {len(keys)}")
    return tuple(dict.fromkeys(_ssh_key(each.strip()) for each in keys))


def _ssh_key(line: str) -> str:
    """Return a line of authorized_keys that is a key and nothing else: options before it could run programs."""
    if "PRIVATE KEY" in line:
        raise Refused("must be the public key, the file that ends in .pub; this is the private one, which is no one's")
    if not line.isprintable() or len(line) > SSH_KEY_CHARS_MAX:
        raise Refused("must be a public key on one line")
    kind, _, rest = line.partition(" ")
    data = rest.strip().partition(" ")[0]
    if kind not in _SSH_KINDS:
        raise Refused(f"must begin with the kind of the key, as ssh-ed25519, not with {kind[:40]!r}")
    try:
        blob = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(f"holds a {kind} key that was cut or mistyped: it is not base64") from None
    if len(blob) < 48 or blob[: 4 + len(kind)] != len(kind).to_bytes(4, "big") + kind.encode():
        raise Refused(f"holds a {kind} key that was cut or mistyped")
    return line


def card_token(value: object) -> str:
    """Return an invitation, or what stands in the place of one that was used."""
    if isinstance(value, str) and value.startswith(USED):
        return value
    return checks.token(value)


def ssid(value: object) -> str:
    """Return the name of a Wi-Fi network."""
    if not isinstance(value, str) or not 1 <= len(value.encode()) <= SSID_BYTES_MAX:
        raise Refused(f"must be the network's name, of 1 to {SSID_BYTES_MAX} bytes")
    return value


def password(value: object) -> str:
    """Return a Wi-Fi password, or the 64 hexadecimal digits that it stands for; no error shows it."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{64}", value):
        return value.lower()
    if not isinstance(value, str) or len(value) not in PASSWORD_CHARS or not re.fullmatch(r"[ -~]+", value):
        raise Refused("must be the network's password, of 8 to 63 characters of ASCII")
    return value


def country(value: object) -> str:
    """Return a country as two capital letters."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z]{2}", value):
        raise Refused('must be a country of two letters, as "DE"')
    return value.upper()


class BoardSection(NamedTuple):
    """[board]"""

    name: Annotated[
        str | None, Key(checks.node_name, "Name of the board: NAME.local on the LAN, and asked for when joining.")
    ] = None
    time_zone: Annotated[str | None, Key(time_zone, "Time zone of the log. Not set: UTC.")] = None
    ssh_key: Annotated[
        tuple[str, ...], Key(ssh_keys, "Public keys that root may log in with. Not set: ssh is off.")
    ] = ()
    token: Annotated[
        str | None, Key(card_token, "Invitation to the realm. Erased once the board has joined.", secret=True)
    ] = None
    console: Annotated[
        str | None, Key(checks.choice("root"), "For development: `root` opens a root shell on the serial console.")
    ] = None

    def __repr__(self) -> str:
        """Return this without the token, a secret that lets a node into the realm: never in a log."""
        return f"BoardSection(name={self.name!r}, time_zone={self.time_zone!r}, {len(self.ssh_key)} keys)"


class WifiSection(NamedTuple):
    """[wifi]"""

    ssid: Annotated[str | None, Key(ssid, "Name of the network.")] = None
    password: Annotated[
        str | None, Key(password, "Its password, or the key of 64 hexadecimal digits. Not set: an open network.")
    ] = None
    country: Annotated[
        str | None, Key(country, "Where the board stands, two letters: it decides which channels are allowed.")
    ] = None
    hidden: Annotated[bool, Key(checks.boolean, "The network does not announce its name.")] = False

    def __repr__(self) -> str:
        """Return this without the password: never in a log."""
        return f"WifiSection(ssid={self.ssid!r})"


class _File(NamedTuple):
    board: BoardSection = BoardSection()
    wifi: WifiSection = WifiSection()


class Fault(NamedTuple):
    """What is wrong.  place: "conflux.toml:3".  key: "board.name"; "" if it is no key that would be known."""

    place: str
    text: str
    key: str = ""

    def __str__(self) -> str:
        """Return this as a person reads it."""
        return f"{self.place}: {self.text}"


class Card(NamedTuple):
    """What a card says, as far as it is right.

    conflux: the keys of the ordinary configuration, as TOML has them.  faults: every mistake.  wrong: the keys, as
    "board.name", "wifi" or "conflux", that are set, and wrongly: what was right the last time goes on counting.
    """

    board: BoardSection = BoardSection()
    wifi: WifiSection = WifiSection()
    conflux: Mapping[str, Any] = {}
    faults: tuple[Fault, ...] = ()
    wrong: frozenset[str] = frozenset()


def text_of_untrusted(data: bytes, name: str) -> tuple[str, list[Fault]]:
    """Return the text of a file on the card; editors save it as they like."""
    if len(data) > FILE_BYTES_MAX:
        return "", [Fault(name, f"is larger than {FILE_BYTES_MAX} bytes and was not read")]
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"", "utf-8-sig")):
        if data.startswith(mark):
            try:
                return data.decode(encoding).replace("\r\n", "\n"), []
            except UnicodeDecodeError:
                break
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        kept = data.decode("utf-8-sig", "replace").replace("\r\n", "\n").split("\n")
        kept[line - 1] = ""
        return "\n".join(kept), [Fault(f"{name}:{line}", "is not UTF-8 text: save the file as UTF-8")]
    return "", [Fault(name, "is not UTF-8 text: save the file as UTF-8")]


def read_untrusted(data: bytes, *, name: str = NAME, zones: Zones = lambda name: True) -> Card:
    """Return what the bytes of conflux.toml say; nothing that is in them raises an error."""
    text, unread = text_of_untrusted(data, name)
    table, kept, broken = most_of(text)
    source = Source(name, kept)
    faults = [*unread, *(Fault(name if each.line is None else f"{name}:{each.line}", each.text) for each in broken)]
    card = checked(table, zones=zones, place=lambda path: f"{name}:{source.line(path)}")
    # A broken line may have been any key: none that is missing is taken for unset.
    unsure = frozenset({"board", "wifi", "conflux"}) if broken or unread else frozenset()
    return card._replace(faults=(*faults, *card.faults), wrong=card.wrong | unsure)


def checked(table: Mapping[str, Any], *, zones: Zones, place: Callable[[tuple[str, ...]], str]) -> Card:
    """Return what a table of the card's shape says.  place: where the key of a path stands, for a person."""
    own = {key: value for key, value in table.items() if key != "conflux"}
    file, wrong = filled(_File, own)
    wrong = [_with_conflux(each) for each in wrong]
    conflux, more = _conflux(table.get("conflux", {}))
    wrong += more
    board, wifi = file.board, file.wifi
    if board.time_zone is not None and not zones(board.time_zone):
        wrong.append(Wrong(("board", "time_zone"), f"board.time_zone: there is no time zone {board.time_zone!r}"))
        board = board._replace(time_zone=None)
    if wifi.ssid is None and (wifi.password is not None or wifi.country is not None) and not _about(wrong, "wifi"):
        wrong.append(Wrong(("wifi",), "wifi.ssid is missing: the name of the network"))
    return Card(
        board,
        wifi,
        conflux,
        tuple(Fault(place(each.path), each.text, ".".join(each.path[:2])) for each in wrong),
        frozenset(".".join(each.path[:2]) if each.path[0] == "board" else each.path[0] for each in wrong),
    )


def _with_conflux(wrong: Wrong) -> Wrong:
    """Return a fault of an unknown table with what is meant, if it is one of the ordinary configuration."""
    if len(wrong.path) == 1 and wrong.path[0] in Config._fields:
        section = wrong.path[0]
        return Wrong(wrong.path, f"[{section}] is of the daemon's configuration: write [conflux.{section}] here")
    return wrong


def _about(wrong: list[Wrong], section: str) -> bool:
    return any(each.path[0] == section for each in wrong)


def _conflux(table: object) -> tuple[dict[str, Any], list[Wrong]]:
    """Return the keys of [conflux] that are right, and what is wrong with the others."""
    if not isinstance(table, dict):
        return {}, [
            Wrong(("conflux",), "'conflux' is a table: write [conflux.control.lan], or another of its sections")
        ]
    right, wrong = copy.deepcopy(table), filled(Config, table)[1]
    realm = right.get("realm")
    if isinstance(realm, dict) and "token" in realm:
        wrong.append(Wrong(("realm", "token"), "realm.token: on the card the token is board.token"))
    state = right.get("node")
    if isinstance(state, dict) and "state_dir" in state:
        wrong.append(Wrong(("node", "state_dir"), "node.state_dir: on a flashed board it lies on the data partition"))
    for fault in wrong:
        _leave_out(right, fault.path)
    return right, [Wrong(("conflux", *each.path), each.text) for each in wrong]


def _leave_out(table: dict[str, Any], path: tuple[str, ...]) -> None:
    *above, last = path
    for key in above:
        inner = table.get(key)
        if not isinstance(inner, dict):
            return
        table = inner
    table.pop(last, None)
