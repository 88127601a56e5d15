"""An image to flash, as it comes: raw, or compressed by zstd or xz; checked against the SHA-256 file beside it."""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import shutil
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final, Self

from conflux.board import table
from conflux.board.table import Table
from conflux.errors import UserError

PART_BYTES: Final = 1 << 20  # read at a time
HEAD_BYTES_MAX: Final = 128 << 20  # up to the end of bootconfig, held in memory
SUM_BYTES_MAX: Final = 65536  # of a file of checksums

_ZSTD, _XZ = b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00"
_OTHERS: Final = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2"}

Progress = Callable[[int, int], None]
"""Told of bytes done and of all."""


class Image:
    """An image that is read once, from beginning to end.

    Raises UserError, whose text names the file, from every method.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self._done = b""
        self._closing = contextlib.ExitStack()
        try:
            self._file = self._closing.enter_context(path.open("rb", buffering=0))  # zstd reads it too
            self.file_bytes = os.fstat(self._file.fileno()).st_size
            magic = self._file.read(6)
            self._file.seek(0)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        self._magic = magic
        other = next((name for begin, name in _OTHERS.items() if magic.startswith(begin)), None)
        if other is not None:
            self._closing.close()
            raise UserError(
                f"{path}: compressed by {other}: unpack it; .img, .img.zst and .img.xz are read as they are"
            )
        self._stream: IO[bytes] | None = None
        self._zstd: subprocess.Popen[bytes] | None = None

    @property
    def is_raw(self) -> bool:
        """Whether it is not compressed."""
        return not self._magic.startswith((_ZSTD, _XZ))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        if self._zstd is not None:
            self._zstd.kill()
            self._zstd.wait()
        self._closing.close()

    def check(self, progress: Progress) -> str | None:
        """Compare the file with its SHA-256; return the file that has it, or None if there is none beside it."""
        found = _sums_of(self.path)
        if found is None:
            return None
        place, wanted = found
        digest = hashlib.sha256()
        done = 0
        try:
            while part := self._file.read(PART_BYTES):
                digest.update(part)
                done += len(part)
                progress(done, self.file_bytes)
            self._file.seek(0)
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror}") from None
        if digest.hexdigest() != wanted:
            raise UserError(f"{self.path}: damaged: its SHA-256 is not the one in {place.name}: load it again")
        return place.name

    def read_head(self) -> tuple[Table, bytearray]:
        """Return the partition table, and all up to the end of bootconfig.  Called first, and once."""
        head = bytearray(self.read(table.HEAD_BYTES))
        found = table.parse_untrusted(lambda offset, count: bytes(head[offset : offset + count]), self.name)
        config = table.bootconfig(found, self.name)
        end = config.offset + config.size
        if config.offset < table.HEAD_BYTES or end > min(HEAD_BYTES_MAX, found.disk_bytes):
            raise UserError(f"{self.name}: no image of Conflux: bootconfig is not its first partition")
        head += self.read(end - len(head))
        if len(head) < end:
            raise UserError(f"{self.name}: cut off after {len(head)} bytes")
        return found, head

    def read(self, count: int) -> bytes:
        """Return the next bytes of the unpacked image; fewer at its end alone."""
        parts = []
        try:
            if self._stream is None:
                self._stream = self._open()
            while count and (part := self._stream.read(min(count, PART_BYTES))):
                parts.append(part)
                count -= len(part)
        except (lzma.LZMAError, EOFError, ValueError) as error:
            raise UserError(f"{self.name}: damaged: {error}") from None
        except OSError as error:
            raise UserError(f"{self.name}: {error.strerror or error}") from None
        except Exception as error:  # each library for zstd has errors of its own
            if type(error).__name__ not in ("ZstdError",):
                raise
            raise UserError(f"{self.name}: damaged: {error}") from None
        if count and self._zstd is not None and self._zstd.wait() != 0:
            raise UserError(f"{self.name}: damaged, or cut off: zstd cannot unpack it")
        return b"".join(parts)

    def _open(self) -> IO[bytes]:
        if self._magic.startswith(_XZ):
            return self._closing.enter_context(lzma.open(self._file, "rb"))
        if not self._magic.startswith(_ZSTD):
            return self._file
        if library := _library("compression.zstd"):  # Python 3.14
            return library.open(self._file, "rb")  # type: ignore[no-any-return]
        if library := _library("zstandard"):
            return library.open(self._file, "rb", closefd=False)  # type: ignore[no-any-return]
        program = shutil.which("zstd")
        if program is None:
            raise UserError(f"{self.name}: zstd is needed to unpack it: sudo apt-get install zstd")
        self._zstd = subprocess.Popen(  # noqa: S603  # a program of the system
            [program, "-dcq"], stdin=self._file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._zstd.stdout is not None
        return self._closing.enter_context(self._zstd.stdout)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


def _sums_of(path: Path) -> tuple[Path, str] | None:
    """Return the file beside an image that has its SHA-256, and that; None if there is no such file."""
    names = [f"{path.name}.sha256"]
    stem = path.name
    while "." in stem:
        stem = stem.rpartition(".")[0]
        names.append(f"{stem}.sha256")
    for name in [*dict.fromkeys(names), "SHA256SUMS"]:
        place = path.with_name(name)
        try:
            with place.open("rb") as file:
                text = file.read(SUM_BYTES_MAX).decode("ascii", "replace")
        except OSError:
            continue
        wanted = parse_sums(text, path.name)
        if wanted is not None:
            return place, wanted
        if name != "SHA256SUMS":
            raise UserError(f"{place}: it has no SHA-256 of {path.name}")
    return None


def parse_sums(text: str, name: str) -> str | None:
    """Return the SHA-256 of a file from the output of sha256sum, in lower case; None if it is not there.

    A line of a digest alone is that of the one file it lies beside.
    """
    for line in text.splitlines():
        digest, _, named = line.strip().partition(" ")
        if len(digest) == 64 and all(char in "0123456789abcdefABCDEF" for char in digest):
            named = named.strip().removeprefix("*")
            if named.rpartition("/")[2] in ("", name):
                return digest.lower()
    return None
