"""The file system that a kernel begins with: archives in the format "newc", one after another, some of them compressed.

A header is 070701 and thirteen numbers of 8 hexadecimal digits; name and content each begin at a multiple of 4.
"""

from __future__ import annotations

from collections.abc import Mapping

from image.disk import command

HEADER_BYTES = 110
MAGIC, END = b"070701", "TRAILER!!!"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MODE, SIZE, NAME_SIZE = 1, 6, 11  # of the numbers
FOLDER, PROGRAM, FILE = 0o040755, 0o100755, 0o100644


def unpack(initrd: bytes) -> dict[str, bytes]:
    """Return the files of an initrd by name: of archives as they are, and at last of one that zstd compressed."""
    files: dict[str, bytes] = {}
    at = 0
    while initrd[at : at + 6] == MAGIC:
        size, name_size = (int(initrd[at + 6 + 8 * number :][:8], 16) for number in (SIZE, NAME_SIZE))
        name = initrd[at + HEADER_BYTES : at + HEADER_BYTES + name_size - 1].decode()
        body = _aligned(at + HEADER_BYTES + name_size)
        at = _aligned(body + size)
        if name != END:
            files[name] = initrd[body : body + size]
            continue
        rest = initrd[at:].lstrip(b"\0")
        at = len(initrd) - len(rest)
    if initrd[at:].startswith(ZSTD_MAGIC):
        files.update(unpack(command("zstd", "-dc", given=initrd[at:])))
    elif initrd[at:].strip(b"\0"):
        raise AssertionError(f"the archive breaks off after {list(files)[-1:]}")
    return files


def pack(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """Return an archive, not compressed.  files: mode and content by name; a folder stands before what is in it."""
    archive = bytearray()
    for number, (name, (mode, content)) in enumerate([*files.items(), (END, (0, b""))], start=1):
        numbers = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        archive += MAGIC + b"".join(b"%08X" % value for value in numbers) + name.encode() + b"\0"
        archive += bytes(_aligned(len(archive)) - len(archive)) + content
        archive += bytes(_aligned(len(archive)) - len(archive))
    return bytes(archive)


def add(initrd: bytes, files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """Return an initrd with more files; one of a name that is there already replaces it."""
    return initrd + bytes(_aligned(len(initrd)) - len(initrd)) + pack(files)


def _aligned(place: int) -> int:
    return -(-place // 4) * 4
