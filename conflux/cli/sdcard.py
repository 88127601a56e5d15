"""`conflux sdcard write` and `conflux sdcard prepare`: flash a card, with what its board needs to know.

Secrets come from files, from standard input or from a person at a terminal, and never from an argument: other users of
a host see the arguments of commands.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from conflux.board import card, disk, flash, table
from conflux.board.compose import BYTES_MAX, compose
from conflux.board.fat import Fat, Stamp
from conflux.board.flash import CARD_FILE, Target
from conflux.board.image import Image
from conflux.cli import context, entry
from conflux.cli.observe import print_json
from conflux.errors import ConfigError, UsageError, UserError
from conflux.realm.invite import Token

TOKEN_BYTES_MAX: Final = 4096
LINE_BYTES_MAX: Final = 1024
KEY_BYTES_MAX: Final = 16384
STANDARD_INPUT: Final = Path("-")
ZONES: Final = Path("/usr/share/zoneinfo")
SAY_S: Final = 0.2  # between two states of a progress line


class CardWritten(NamedTuple):
    """The answer to `conflux sdcard write`.

    image_bytes: unpacked.  checked_by: the file with the image's SHA-256; None if there was none beside it.
    configured: conflux.toml was put on the card.
    """

    device: str
    image: str
    image_bytes: int
    checked_by: str | None
    configured: bool


class CardPrepared(NamedTuple):
    """The answer to `conflux sdcard prepare`."""

    place: str


def write(options: argparse.Namespace) -> int:
    """Write an image to a card."""
    config = _config(options)
    with Image(options.image) as image, Target(options.device) as target:
        progress = Progress()
        sums = image.check(lambda done, size: progress("checking", done, size))
        progress.end()
        found, head = image.read_head()
        why = disk.refusal(target.disk, found.disk_bytes, force=options.force)
        if why is not None:
            raise UserError(why)
        if config is not None:
            flash.put_config(head, found, config, _stamp(), image.name)
        _ask(options, image, target)
        target.unmount()
        target.open()
        try:
            flash.write(image, found, head, target, progress)
        except KeyboardInterrupt:
            progress.end()
            entry.complain(f"stopped: {_half(target)}")
            return entry.EXIT_INTERRUPTED
        except UserError as error:
            progress.end()
            raise UserError(f"{error} ({_half(target)})") from None
        progress.end()
        target.look_again()
    if options.json:
        return print_json(CardWritten(target.what, image.name, found.disk_bytes, sums, config is not None))
    rows = [
        f"{image.name} is on {target.what}, {disk.gigabytes(found.disk_bytes)}, and reads back as it was written.",
        f"{image.name} is what {sums} says." if sums else f"No SHA-256 file beside {image.name}: it was not checked.",
        *_about(config),
        "Take the card out, put it into the board, and switch it on.",
    ]
    sys.stdout.write("\n".join(rows) + "\n")
    return 0


def prepare(options: argparse.Namespace) -> int:
    """Put conflux.toml on a card that is written, or into an image."""
    config = _config(options)
    if config is None:
        raise UsageError("nothing to put on it: give --token-file, --name, another option, or --config")
    place: Path = options.place
    try:
        is_file = stat.S_ISREG(place.stat().st_mode)
    except OSError as error:
        raise UserError(f"{place}: {error.strerror}") from None
    if is_file:
        _prepare_image(place, config)
    else:
        _prepare_card(place, config, force=options.force)
    if options.json:
        return print_json(CardPrepared(str(place)))
    sys.stdout.write("\n".join([f"{CARD_FILE} is on {table.BOOTCONFIG} of {place}.", *_about(config)]) + "\n")
    return 0


def _prepare_image(place: Path, config: bytes) -> None:
    with Image(place) as image:
        if not image.is_raw:
            raise UserError(f"{place} is compressed: `conflux sdcard write` takes it as it is, with the same options")
    try:
        file_fd = os.open(place, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"{place}: {error.strerror}") from None
    _prepare(file_fd, str(place), config)


def _prepare_card(place: Path, config: bytes, *, force: bool) -> None:
    with Target(place) as target:
        why = disk.refusal(target.disk._replace(removable=True), 0, force=force)
        if why is not None:
            raise UserError(why)
        target.unmount()
        _prepare(target.take(), str(place), config)


def _prepare(file_fd: int, what: str, config: bytes) -> None:
    """Put conflux.toml into the file system of an open disk or image, and close it."""
    try:
        found = table.parse_untrusted(lambda offset, count: os.pread(file_fd, count, offset), what)
        place = table.bootconfig(found, what)

        def read(offset: int, count: int) -> bytes:
            return os.pread(file_fd, min(count, place.size - offset), place.offset + offset)

        def put(offset: int, data: bytes) -> None:
            if offset + len(data) > place.size or os.pwrite(file_fd, data, place.offset + offset) != len(data):
                raise UserError(f"{what}: cannot write all of {CARD_FILE}")

        Fat(read, put, f"{what}: {table.BOOTCONFIG}").save(CARD_FILE, config, _stamp())
        os.fsync(file_fd)
        os.posix_fadvise(file_fd, 0, 0, os.POSIX_FADV_DONTNEED)  # what is read next comes from the card
        if Fat(read, None, what).read(CARD_FILE) != config:
            raise UserError(f"{what}: {CARD_FILE} does not read as it was written: use another card")
    except OSError as error:
        raise UserError(f"{what}: {error.strerror}") from None
    finally:
        os.close(file_fd)


# ── what stands on the card ──


def _config(options: argparse.Namespace) -> bytes | None:
    """Return conflux.toml for the card; None if there is nothing to say.  Raises UserError, ConfigError."""
    if options.token_file == STANDARD_INPUT and options.wifi_password_file == STANDARD_INPUT:
        raise UsageError("standard input is one line: the token, or the password of the Wi-Fi")
    if options.wifi_ssid is None and (options.wifi_password_file is not None or options.wifi_country is not None):
        raise UsageError("a password or a country of a Wi-Fi belongs to --wifi-ssid")
    board: dict[str, Any] = {}
    if options.name is not None:
        board["name"] = options.name
    if options.time_zone is not None:
        board["time_zone"] = options.time_zone
    if options.ssh_key is not None:
        board["ssh_key"] = [_public_key(path) for path in options.ssh_key]
    if options.token_file is not None:
        board["token"] = _token(options.token_file)
    tables: dict[str, Any] = {"board": board} if board else {}
    if options.wifi_ssid is not None:
        tables["wifi"] = {"ssid": options.wifi_ssid}
        if password := _password(options):
            tables["wifi"]["password"] = password
        if options.wifi_country is not None:
            tables["wifi"]["country"] = options.wifi_country
    file = None if options.config is None else context.read_file(options.config, BYTES_MAX)
    if file is None and not tables:
        return None
    data = compose(file, str(options.config), tables)
    _check(data, CARD_FILE if tables else str(options.config))
    return data


def _check(data: bytes, name: str) -> None:
    """Raise ConfigError if the board would find a mistake in it, as it will be read there."""
    zones = ZONES if ZONES.is_dir() else None
    read = card.read_untrusted(data, name=name, zones=lambda zone: zones is None or (zones / zone).is_file())
    if read.faults:
        more = len(read.faults) - 1
        raise ConfigError(f"{read.faults[0]}{f' (and {more} more)' if more else ''}")


def _token(path: Path) -> str:
    if path == STANDARD_INPUT:
        where, data = "standard input", sys.stdin.buffer.readline(TOKEN_BYTES_MAX)
    else:
        where, data = str(path), context.read_file(path, TOKEN_BYTES_MAX)
    text = data.decode(errors="replace").strip()
    try:
        Token.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return text


def _password(options: argparse.Namespace) -> str:
    """Return the password of the Wi-Fi; empty for an open one."""
    path = options.wifi_password_file
    if path is None:
        if not sys.stdin.isatty():
            raise UserError(
                "no terminal to ask for the Wi-Fi's password: --wifi-password-file FILE (an empty one: none)"
            )
        from getpass import getpass

        return getpass(f"password of the Wi-Fi {options.wifi_ssid} (empty: it has none): ")
    if path == STANDARD_INPUT:
        data = sys.stdin.buffer.readline(LINE_BYTES_MAX)
    else:
        data = context.read_file(path, LINE_BYTES_MAX).split(b"\n")[0]
    return data.decode(errors="replace").rstrip("\r\n")


def _public_key(path: Path) -> str:
    text = context.read_file(path, KEY_BYTES_MAX).decode(errors="replace").strip()
    if "PRIVATE KEY" in text:
        raise UserError(f"{path} is a private key, which stays where it is: give {path}.pub")
    return text


def _about(config: bytes | None) -> list[str]:
    """Return what a person should know about what is on the card."""
    if config is None:
        return [f"There is no {CARD_FILE} on it: write one, or use `conflux sdcard prepare`."]
    board = card.read_untrusted(config).board
    rows = []
    if board.token is None:
        rows.append("There is no token on it: the board comes up, and waits for one.")
    if board.name is None:
        rows.append("There is no name on it: the board makes one up, as conflux-1a2b.")
    return rows


# ── asking and telling ──


def _ask(options: argparse.Namespace, image: Image, target: Target) -> None:
    """Have a person say that it is meant.  Raises UserError."""
    if options.yes:
        return
    said = f"everything on {target.disk.words()} is lost"
    if not sys.stdin.isatty():
        raise UserError(f"no terminal to ask on, and {said}: --yes writes without asking")
    sys.stderr.write(f"{said}.  Write {image.name}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline(16).strip().lower() not in ("y", "yes"):
        raise UserError("not written; nothing was changed")


def _half(target: Target) -> str:
    return f"{target.what} is empty now, not half an image: no board starts from it; write it again"


def _stamp() -> Stamp:
    return Stamp(*time.localtime()[:6])


class Progress:
    """Shows on standard error how far something is: on a terminal in one line, else ten lines.

    clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._what = ""
        self._began = self._said = 0.0
        self._tenth = 0
        self._is_open = False

    def __call__(self, what: str, done: int, size: int) -> None:
        """Show that done bytes of size are done."""
        now = self._clock()
        if what != self._what:
            self.end()
            self._what, self._began, self._said, self._tenth = what, now, 0.0, 0
        is_last = done >= size
        if sys.stderr.isatty():
            if now - self._said < SAY_S and not is_last:
                return
            self._said = now
            sys.stderr.write(f"\r{progress_line(what, done, size, now - self._began):<70}")
            self._is_open = True
        elif (tenth := done * 10 // max(size, 1)) > self._tenth:
            self._tenth = tenth
            sys.stderr.write(f"{progress_line(what, done, size, now - self._began)}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Go to the next line, if one is open."""
        if self._is_open:
            sys.stderr.write("\n")
            sys.stderr.flush()
        self._is_open, self._what = False, ""


def progress_line(what: str, done: int, size: int, seconds: float) -> str:
    """Return "writing    42 %   590 of 1400 MB   21 MB/s   38 s left"."""
    rate = done / seconds if seconds > 0 else 0.0
    line = f"{what:<10} {done * 100 // max(size, 1):3d} %  {done / 1e6:5.0f} of {size / 1e6:.0f} MB"
    if rate > 0 and seconds >= 1:
        line += f"  {rate / 1e6:4.0f} MB/s"
        line += f"  {(size - done) / rate:4.0f} s left" if done < size else f"  in {seconds:.0f} s"
    return line
