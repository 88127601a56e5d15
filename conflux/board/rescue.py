"""What is read out of a damaged data partition, kept on the other partition meanwhile, and put back.

    SHA-256 of the rest | tar of the directories that last, with modes and owners

It holds the node's key, so it is erased from the FAT partition once it is restored.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from conflux.board.places import NODE_KEY

BYTES_MAX: Final = 16 << 20  # the FAT partition has 48 MiB, of which the firmware of a board takes some
FILE_BYTES_MAX: Final = 1 << 20
DIGEST_BYTES: Final = 32
CHECK_BYTES: Final = 8  # of a record of the state directory
FRAME_BYTES_MAX: Final = 16384  # of tar: the headers of one file, and the end of the archive
SPARE: Final = "spare"


def has_identity(state: Path) -> bool:
    """Say whether a state directory holds a node's key that is whole, or its spare."""
    return any(_is_whole(state / name) for name in (NODE_KEY, f"{SPARE}/{NODE_KEY}"))


def _is_whole(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _is_record(file.read(4096))
    except OSError:
        return False


def _is_record(data: bytes) -> bool:
    return len(data) > CHECK_BYTES and hashlib.sha256(data[:-CHECK_BYTES]).digest()[:CHECK_BYTES] == data[-CHECK_BYTES:]


def packed(top: Path, names: Iterable[str]) -> bytes:
    """Return directories below top as one text of bytes; files that cannot be read, or are too large, are left out.

    Keys come first: what there is no room for is something else.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted((path for name in names for path in _files(top / name)), key=_is_late):
            with contextlib.suppress(OSError):
                if packed.tell() + path.stat().st_size + FRAME_BYTES_MAX <= BYTES_MAX - DIGEST_BYTES:
                    archive.add(path, str(path.relative_to(top)), recursive=False)
    data = packed.getvalue()
    return hashlib.sha256(data).digest() + data


def _is_late(path: Path) -> bool:
    """Say whether a file may wait until the keys, the chain of the realm and the spares of both are packed."""
    return not (path.name.endswith("_key") or path.suffix in (".key", ".chain") or path.parent.name == SPARE)


def keeps_identity(data: bytes, state: str) -> bool:
    """Say whether a rescue holds a node's key that is whole, or its spare.  state: the name of the state directory."""
    with contextlib.suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(data[DIGEST_BYTES:])) as archive:
        for name in (f"{state}/{NODE_KEY}", f"{state}/{SPARE}/{NODE_KEY}"):
            with contextlib.suppress(KeyError):
                file = archive.extractfile(name)
                if file is not None and _is_record(file.read(4096)):
                    return True
    return False


def _files(directory: Path) -> Iterable[Path]:
    """Yield a directory and what is in it: directories and files of a reasonable size, no links, no devices."""
    if directory.is_symlink() or not directory.is_dir():
        return
    yield directory
    try:
        inside = sorted(directory.iterdir())
    except OSError:
        return
    for path in inside:
        if path.is_symlink():
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file() and path.stat().st_size <= FILE_BYTES_MAX:
            with contextlib.suppress(OSError), path.open("rb") as file:
                while file.read(FILE_BYTES_MAX):  # a file with a bad block would break the archive off
                    pass
                yield path


def is_whole(data: bytes | None) -> bool:
    """Say whether a rescue is complete: the power may have failed while it was written."""
    return (
        data is not None and len(data) > DIGEST_BYTES and hashlib.sha256(data[DIGEST_BYTES:]).digest() == digest(data)
    )


def digest(data: bytes) -> bytes:
    """Return what tells one rescue from another."""
    return data[:DIGEST_BYTES]


def unpack(data: bytes, top: Path) -> None:
    """Write a rescue's files below top, and flush them.  Raises OSError."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data[DIGEST_BYTES:]), mode="r") as archive:
            for member in archive:
                _restore(archive, member, top)
    except tarfile.TarError as error:
        raise OSError(f"the rescue makes no sense: {error}") from None
    os.sync()


def _restore(archive: tarfile.TarFile, member: tarfile.TarInfo, top: Path) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise OSError(f"the rescue has a file outside: {member.name!r}")
    path = top / name
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
    elif member.isreg():
        path.parent.mkdir(parents=True, exist_ok=True)
        file = archive.extractfile(member)
        assert file is not None
        path.write_bytes(file.read())
    else:
        return
    path.chmod(member.mode & 0o777)
    with contextlib.suppress(PermissionError):
        os.chown(path, member.uid, member.gid)
