"""What is mounted where, as the kernel lists it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

MOUNTINFO: Final = Path("/proc/self/mountinfo")

_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A file system that is mounted.  device: "8:1"; kind: "ext4"; source: "/dev/sda1"."""

    device: str
    place: str
    kind: str
    source: str


def mounts(file: Path = MOUNTINFO) -> Iterator[Mount]:
    """Yield every mount, the oldest first; of two at one place the later covers the other.  file: as mountinfo is."""
    try:
        text = file.read_text("utf-8", "replace")
    except OSError:
        return
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) >= 5 and len(kinds) >= 2:
            yield Mount(fields[2], unescaped(fields[4]), kinds[0], unescaped(kinds[1]))


def unescaped(text: str) -> str:
    """Return a path as the kernel has it, which writes spaces and the like in octal."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)
