#!/usr/bin/env python3
"""Picture what a person sees who flashes a card, as `docs/how-to/flash-a-card.md` shows it: `make pictures`.

The command is the real one, with its own words; the card, the person who answers, and the time that passes are made up.
What the board writes on its card is written by first boot, on a board in a folder.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Final
from unittest.mock import patch
from xml.sax.saxutils import escape

from kit.cards import LAYOUT, MIB, formatted, with_table
from kit.flashed import PUBLIC_KEY, Flashed, Programs

from conflux.board import firstboot
from conflux.board.disk import Disk
from conflux.cli import parser, sdcard
from conflux.ids import NodeId
from conflux.realm.invite import Token

HERE: Final = Path(__file__).parent
IMAGE: Final = "conflux-rpi4.img.zst"
IMAGE_BYTES: Final = 1_300 * MIB
FULL_BYTES: Final = 220 * MIB  # of it, that cannot be packed
WRITES_A_S, READS_A_S = 21_000_000, 83_000_000  # a card of class 10 in a USB 3 reader
WRONG_CARD: Final = f"""\
[board]
name = "attic"
time_zone = "Europe/Berln"
ssh_key = "{PUBLIC_KEY}"

[wifi]
ssid = "home"
pasword = "correct horse"
"""

COLUMNS: Final = 96
CHAR_WIDTH, LINE_HEIGHT, EDGE, BAR = 7.83, 19.0, 18, 34
COLORS: Final = {"$": "#7ee2a8", "#": "#e6edf3", "!": "#ffb4a2"}  # typed; said; to be looked at


class Reader:
    """A card in a reader, for `conflux sdcard`: what is written is kept as far as it is not zero."""

    def __init__(self, path: Path) -> None:
        self.what = str(path)
        self.disk = Disk("8:16", "sdb", "Generic- SD/MMC", 31_914_983_424, 512, True, False, (), None)
        self.seconds = 0.0
        self._parts: dict[int, bytes] = {}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *ended: object) -> None:
        pass

    def unmount(self) -> None:
        """Nothing is mounted."""

    def open(self) -> None:
        """It is open."""

    def flush(self) -> None:
        """It keeps everything."""

    def look_again(self) -> None:
        """Nothing looks."""

    def write(self, offset: int, data: bytes) -> None:
        """Keep data, and take the time that a card takes."""
        self.seconds += len(data) / WRITES_A_S
        data = bytes(data)
        if data.count(0) == len(data):
            self._parts.pop(offset, None)
        else:
            self._parts[offset] = data

    def read(self, offset: int, count: int) -> bytes:
        """Return what was written."""
        self.seconds += count / READS_A_S
        return self._parts.get(offset, bytes(count))


class Terminal(io.StringIO):
    """What stands on a screen: a return of the carriage begins the line anew."""

    def isatty(self) -> bool:
        """It is one."""
        return True

    def lines(self) -> list[str]:
        """Return the lines as they stand there at the end."""
        return [line.rpartition("\r")[2].rstrip() for line in self.getvalue().rstrip("\n").split("\n")]


@contextmanager
def _here(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def written(image_bytes: int = IMAGE_BYTES, full_bytes: int = FULL_BYTES) -> list[str]:
    """Return what a person sees who writes a card."""
    token = Token(bytes(32), NodeId(bytes(16)), bytes(8), bytes(16), 1_800_000_000, 1, ()).format()
    words = ["sdcard", "write", IMAGE, "/dev/sdb", "--token-file", "token", "--name", "attic"]
    reader = Reader(Path("/dev/sdb"))
    screen = Terminal()
    clock = partial(sdcard.Progress, clock=lambda: reader.seconds)
    person = SimpleNamespace(isatty=lambda: True, readline=lambda size: screen.write("y\n") and "y\n")
    with tempfile.TemporaryDirectory() as folder, _here(Path(folder)), ExitStack() as stack:
        Path("token").write_text(token)
        content = tuple((name, bytes(formatted(16)) if name == "bootconfig" else bytes(size)) for name, size in LAYOUT)
        more = os.urandom(full_bytes) + bytes(image_bytes - full_bytes)
        Path("plain").write_bytes(with_table((*content, ("more", more))))
        subprocess.run(["zstd", "-q", "-1", "plain", "-o", IMAGE], check=True)  # noqa: S603, S607
        Path("conflux-rpi4.sha256").write_text(hashlib.sha256(Path(IMAGE).read_bytes()).hexdigest())
        stack.enter_context(patch.object(sdcard, "Target", lambda path: reader))
        stack.enter_context(patch.object(sdcard, "Progress", clock))
        stack.enter_context(patch.object(sys, "stdin", person))
        stack.enter_context(redirect_stdout(screen))
        stack.enter_context(redirect_stderr(screen))
        if parser.main(words):
            raise SystemExit(screen.getvalue())
    return [f"$ sudo conflux {' '.join(words)}", *screen.lines()]


def found_on_the_card() -> list[str]:
    """Return first-boot.log of a board whose conflux.toml has two mistakes."""
    with tempfile.TemporaryDirectory() as folder:
        board = Flashed(Path(folder))
        board.card(WRONG_CARD)
        firstboot.FirstBoot(board.places, Programs()).run()
        text = (board.places.fat / "first-boot.log").read_text()
    text = re.sub(r"Written \S+ \S+ UTC", "Written 2026-12-01 10:30 UTC", text)
    return text.rstrip("\n").split("\n")


def picture(title: str, lines: list[str]) -> str:
    """Return a window with these lines, as SVG."""
    shown = [
        part
        for line in lines
        for part in textwrap.wrap(line, COLUMNS, drop_whitespace=True, replace_whitespace=False) or [""]
    ]
    width = round(max(map(len, shown)) * CHAR_WIDTH + 2 * EDGE)
    height = round(BAR + len(shown) * LINE_HEIGHT + 2 * EDGE)
    rows = []
    for number, line in enumerate(shown):
        y = BAR + EDGE + (number + 0.75) * LINE_HEIGHT
        color = COLORS["$"] if line.startswith("$ ") else COLORS["!"] if _is_wrong(line) else COLORS["#"]
        if line:
            rows.append(f'<text x="{EDGE}" y="{y:.1f}" fill="{color}" xml:space="preserve">{escape(line)}</text>')
    dots = "".join(f'<circle cx="{18 + 18 * each}" cy="{BAR / 2:.0f}" r="5.5" fill="#4a5563"/>' for each in range(3))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" rx="9" fill="#12181f"/>',
            f'<path d="M0 9a9 9 0 0 1 9 -9h{width - 18}a9 9 0 0 1 9 9v{BAR - 9}h-{width}z" fill="#26303b"/>',
            dots,
            f'<text x="{width / 2:.0f}" y="{BAR / 2 + 4.5:.1f}" fill="#c3ccd6" font-size="13" text-anchor="middle" '
            f'font-family="Helvetica, Arial, sans-serif">{escape(title)}</text>',
            '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="13">',
            *rows,
            "</g>",
            "</svg>",
            "",
        ]
    )


def _is_wrong(line: str) -> bool:
    return line.startswith("  conflux.toml:")


PICTURES: Final = {
    "card-write.svg": lambda: picture("Terminal", written()),
    "card-log.svg": lambda: picture("first-boot.log on BOOTCONFIG", found_on_the_card()),
}


def main() -> None:
    """Write the pictures."""
    for name, make in PICTURES.items():
        (HERE / name).write_text(make())


if __name__ == "__main__":
    main()
