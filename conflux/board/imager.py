"""What Raspberry Pi Imager writes onto a card, as far as it maps to the card's own keys.

    user-data, network-config   cloud-init's, as Imager 2 writes them
    custom.toml                 of Raspberry Pi OS
    firstrun.sh                 of Imager 1: it is read, and never run

Only what a person enters in Imager's form is read: name, time zone, ssh keys, Wi-Fi.  Of the rest it is said that it
does not count: a user with a password above all, since there is none on this board.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from conflux.board.card import Card, Fault, Zones, checked, text_of_untrusted
from conflux.board.plain_yaml import PlainYamlError, parse

FILES: Final = ("firstrun.sh", "custom.toml", "network-config", "user-data")
NO_PASSWORDS: Final = "passwords are not taken: log in as root with a key (ssh_authorized_keys)"
_IMAGER: Final = "imager_custom"


class Found(NamedTuple):
    """What one file says: a table of the card's shape, where each key stands, and what does not count."""

    board: dict[str, Any]
    wifi: dict[str, Any]
    notes: tuple[str, ...] = ()


def read_untrusted(files: Mapping[str, bytes], *, zones: Zones) -> Card | None:
    """Return what Imager's files say; None: there are none.  files: content by name."""
    tables: dict[str, dict[str, Any]] = {"board": {}, "wifi": {}}
    origin: dict[tuple[str, str], str] = {}
    faults: list[Fault] = []
    is_any = False
    for name in FILES:
        if name not in files:
            continue
        is_any = True
        text, unread = text_of_untrusted(files[name], name)
        faults += unread
        try:
            found = _READERS[name](text)
        except PlainYamlError as error:
            faults.append(Fault(f"{name}:{error.line}", f"not understood: {error.text}"))
            continue
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            faults.append(Fault(name, f"not understood: {error}"))
            continue
        faults += [Fault(name, note) for note in found.notes]
        for section, values in (("board", found.board), ("wifi", found.wifi)):
            for key, value in values.items():
                if value is not None:
                    tables[section][key] = value
                    origin[section, key] = name
    if not is_any:
        return None

    def place(path: tuple[str, ...]) -> str:
        return origin.get((path[0], path[1] if len(path) > 1 else "ssid"), FILES[-1])

    card = checked({key: table for key, table in tables.items() if table}, zones=zones, place=place)
    return card._replace(faults=(*faults, *card.faults))


def joined(card: Card | None, imager: Card | None) -> Card | None:
    """Return both as one: what conflux.toml says counts, key by key, and Imager's files where it says nothing."""
    if card is None or imager is None:
        return card or imager
    board = imager.board._replace(
        **{key: value for key, value in card.board._asdict().items() if value not in (None, ())}
    )
    return card._replace(
        board=board,
        wifi=card.wifi if card.wifi.ssid is not None or "wifi" in card.wrong else imager.wifi,
        faults=(*card.faults, *imager.faults),
        wrong=card.wrong | imager.wrong,
    )


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _user_data(text: str) -> Found:
    """Read cloud-init's user-data."""
    table = _table(parse(text))
    users = [_table(each) for each in _list(table.get("users"))]
    keys = [*_list(table.get("ssh_authorized_keys"))]
    for user in users:
        keys += _list(user.get("ssh_authorized_keys"))
    notes = []
    if any({"passwd", "plain_text_passwd", "hashed_passwd"} & set(user) for user in users) or "chpasswd" in table:
        notes.append(NO_PASSWORDS)
    if ignored := sorted(set(table) & {"runcmd", "bootcmd", "packages", "write_files", "package_upgrade"}):
        notes.append(f"{', '.join(ignored)}: nothing of this is run or installed on this board")
    name = table.get("hostname")
    board = {"name": name, "time_zone": table.get("timezone"), "ssh_key": keys or None}
    return Found(board, {}, tuple(notes))


def _network_config(text: str) -> Found:
    """Read cloud-init's network-config, version 2: its first Wi-Fi network."""
    top = _table(parse(text))
    network = _table(top.get("network", top))
    for wifi in _table(network.get("wifis")).values():
        device = _table(wifi)
        for name, point in _table(device.get("access-points")).items():
            inside = _table(point)
            secret = inside.get("password", _table(inside.get("auth")).get("password"))
            return Found(
                {},
                {
                    "ssid": name,
                    "password": secret,
                    "country": device.get("regulatory-domain"),
                    "hidden": True if inside.get("hidden") is True else None,
                },
            )
    return Found({}, {})


def _custom_toml(text: str) -> Found:
    """Read the custom.toml of Raspberry Pi OS."""
    import tomli

    table = tomli.loads(text)
    ssh, wlan = _table(table.get("ssh")), _table(table.get("wlan"))
    board = {
        "name": _table(table.get("system")).get("hostname"),
        "time_zone": _table(table.get("locale")).get("timezone"),
        "ssh_key": ssh.get("authorized_keys") or None,
    }
    wifi = {key: wlan.get(key) for key in ("ssid", "password", "country")}
    notes = (NO_PASSWORDS,) if "password" in _table(table.get("user")) or ssh.get("password_authentication") else ()
    return Found(board, {**wifi, "hidden": True if wlan.get("hidden") is True else None}, notes)


def _firstrun(text: str) -> Found:
    """Read the arguments that Imager's script would hand to its programs: the first form of each counts."""
    board: dict[str, Any] = {}
    wifi: dict[str, Any] = {}
    notes = []
    for words in _calls(text):
        match words:
            case ["set_hostname", name, *_]:
                board.setdefault("name", name)
            case ["set_timezone", zone, *_]:
                board.setdefault("time_zone", zone)
            case ["enable_ssh", "-k", *keys]:
                board.setdefault("ssh_key", [line for key in keys for line in key.splitlines() if line.strip()])
            case ["enable_ssh", *_]:
                notes.append(NO_PASSWORDS)
            case ["set_wlan", *options]:
                plain = [word for word in options if word not in ("-h", "-p")]
                wifi = dict(zip(("ssid", "password", "country"), plain, strict=False))
                if "-h" in options:
                    wifi["hidden"] = True
    return Found(board, wifi, tuple(dict.fromkeys(notes)))


def _calls(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of imager_custom; a quoted one may go over several lines."""
    for found in re.finditer(rf"^[ \t]*(?:\S*/)?{_IMAGER}[ \t]+", text, re.MULTILINE):
        lines = text[found.end() :].split("\n")
        for count in range(1, min(len(lines), 20) + 1):
            try:
                yield shlex.split("\n".join(lines[:count]))
            except ValueError:  # a quote that is not closed yet
                continue
            break


_READERS: Final = {
    "user-data": _user_data,
    "network-config": _network_config,
    "custom.toml": _custom_toml,
    "firstrun.sh": _firstrun,
}
