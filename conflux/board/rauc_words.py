"""What `rauc` prints, read: a bundle, the slots, how far an installation is, and why it refused one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from conflux.board.trial import NAME_CHARS_MAX, SLOTS
from conflux.errors import printable

_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*m")
_FIELD = re.compile(r"^\s*([A-Za-z ]+?):\s+'?([^'\n]*)'?\s*$", re.MULTILINE)
_PERCENT = re.compile(r"\s*(\d{1,3})% (\S.*)")
_HEX = re.compile(r"[0-9a-f]{64}")

CHANGED = "its content does not fit its signature: it was changed, or damaged"
_UNSIGNED = "its signature does not fit: it was changed, or damaged"
_CUT = "it is cut short, or no update bundle"

# What RAUC and OpenSSL say, and what it means to a person; the first that fits counts.
_MEANINGS = (
    (
        ("local issuer certificate", "self-signed", "self signed"),
        "it is signed with a key that this board does not trust",
    ),
    (("certificate purpose",), "it is signed with a certificate that is not for updates"),
    (("certificate has expired", "not yet valid"), "the certificate that signed it was not valid on that day"),
    (("exceeds bundle size", "seek to end of bundle", "Signature size", "seek to start of signature"), _CUT),
    (("signature verification failed", "no valid CMS", "parse signature", "inline signature"), _UNSIGNED),
    (("identifier", "Invalid bundle format"), _CUT),
    (("Input/output error", "payload is corrupted"), CHANGED),
    (("No space left",), "a slot is too small for it"),
    (("de.pengutronix.rauc", "D-Bus", "bus name"), "RAUC's service does not answer: systemctl status rauc"),
)


class Bundle(NamedTuple):
    """A bundle whose signature was found good.  tree_bytes: of the hash tree that follows the content."""

    compatible: str
    version: str
    salt: bytes
    root: bytes
    tree_bytes: int


class Slot(NamedTuple):
    """One of the two slots.  name: "A" or "B".  version: of what RAUC wrote there; None: it wrote nothing."""

    name: str
    is_booted: bool
    is_good: bool
    version: str | None


class Slots(NamedTuple):
    """Both slots.  booted, next: names; None: not known.  next: what starts at the next boot."""

    slots: tuple[Slot, ...]
    booted: str | None
    next: str | None

    def version(self, name: str) -> str | None:
        """Return the version of what RAUC installed in a slot."""
        return next((slot.version for slot in self.slots if slot.name == name), None)


def bundle(text: str) -> Bundle:
    """Return what `rauc info` prints for people.  Raises ValueError: another RAUC may print something else."""
    said: dict[str, str] = {}
    for name, value in _FIELD.findall(_TERMINAL_CODE.sub("", text)):
        said.setdefault(name.lower(), value)
    try:
        salt, root = said["verity salt"], said["verity hash"]
        if not _HEX.fullmatch(salt) or not _HEX.fullmatch(root):
            raise ValueError("no hash")
        return Bundle(
            _bounded(said["compatible"]),
            _bounded(said["version"]),
            bytes.fromhex(salt),
            bytes.fromhex(root),
            int(said["verity size"]),
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"what rauc info says makes no sense ({printable(str(error))})") from None


def slots(text: str) -> Slots:
    """Return what `rauc status --detailed --output-format=json` prints.  Raises ValueError."""
    try:
        said = json.loads(text)
        rows = [(name, row) for each in said["slots"] for name, row in each.items()]
        primary = said.get("boot_primary")
        found = tuple(_slot(row, dict(rows), name) for name, row in rows if row.get("bootname") in SLOTS)
        by_name = {name: row.get("bootname") for name, row in rows}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"what rauc status says makes no sense ({printable(str(error))[:NAME_CHARS_MAX]})") from None
    booted = next((slot.name for slot in found if slot.is_booted), None)
    return Slots(found, booted, by_name.get(primary))


def _slot(row: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]], name: str) -> Slot:
    status: Mapping[str, Any] = row.get("slot_status") or next(
        (each["slot_status"] for each in rows.values() if each.get("parent") == name and each.get("slot_status")), {}
    )
    version = (status.get("bundle") or {}).get("version")
    return Slot(
        name=row["bootname"],
        is_booted=row.get("state") == "booted",
        is_good=row.get("boot_status") == "good",
        version=None if version is None else _bounded(version),
    )


def progress(line: str) -> tuple[int, str] | None:
    """Return how far an installation is, in percent, and what it does; None if a line does not say so."""
    found = _PERCENT.fullmatch(line.rstrip())
    if found is None:
        return None
    return min(100, int(found[1])), printable(found[2])[:NAME_CHARS_MAX]


def reason(text: str) -> str:
    """Return why RAUC refused a bundle, for a person, from what it printed."""
    for words, meaning in _MEANINGS:
        if any(word in text for word in words):
            return meaning
    lines = [line.strip() for line in _TERMINAL_CODE.sub("", text).splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("LastError:", "Failed", "Error"))] or lines[-1:]
    return printable(failed[-1])[:400] if failed else "RAUC does not say why"


def _bounded(text: str) -> str:
    if not isinstance(text, str) or not 1 <= len(text) <= NAME_CHARS_MAX:
        raise ValueError("a name is too long, or none")
    return printable(text)
