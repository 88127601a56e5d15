"""What the programs around the daemon have a person know, on a flashed board: a wrong key of the card, a failed update.

Each program has a file of its own in the directory, a line a notice.  They are shown by the daemon's status, by the
doctor, and so by the page.  On any other host there is no such directory, and no notice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from conflux.errors import printable

PLACE: Final = Path("/run/conflux-board/notices")
FILE_COUNT_MAX: Final = 16
FILE_BYTES_MAX: Final = 8192
LINE_COUNT_MAX: Final = 32  # of all files
LINE_CHARS_MAX: Final = 400


def notices(place: Path = PLACE, *, but: str = "") -> tuple[str, ...]:
    """Return every notice, by file; what cannot be read is none.  but: a file that is left out."""
    try:
        files = sorted(file for file in place.iterdir() if file.name != but and not file.name.startswith("."))[
            :FILE_COUNT_MAX
        ]
    except OSError:
        return ()
    found: list[str] = []
    for file in files:
        try:
            with file.open("rb") as opened:
                text = opened.read(FILE_BYTES_MAX).decode("utf-8", "replace")
        except OSError:
            continue
        found += [printable(line.strip())[:LINE_CHARS_MAX] for line in text.splitlines() if line.strip()]
    return tuple(found[:LINE_COUNT_MAX])
